"""What a face does of its own accord: blinks and glances, decided ahead of the network.

Sound does not say when to blink. A session draws these tracks from its seed and hands them to the
prior as conditions, so their rate is exact and a hint from outside could steer them; what the eyes
then look like is the networks' matter. Every value is a pure function of (seed, time): any chunk,
placement, retry or resume draws the same. The shapes are those of the training performances.

Shape legend: C = (lids closed 0..1, glance to the viewer's right, glance up; glances in units of
`GLANCE_UNIT_RAD`), T = video frames.
"""

from fractions import Fraction

import numpy as np
import numpy.typing as npt
import torch

BEHAVIOUR_CHANNELS = 3
GLANCE_UNIT_RAD = 0.1

# About 16 blinks a minute, none nearer to the next than 1.1 s: people at rest make 8 to 25.
_BLINK_EVERY_S, _BLINK_JITTER = 3.75, 0.7
_CLOSING_S, _CLOSED_S, _OPENING_S = (0.08, 0.15), (0.06, 0.12), (0.14, 0.20)
_GLANCE_EVERY_S, _GLANCE_JITTER = 1.4, 0.8
_AWAY_SHARE, _AT_CAMERA = 0.45, 0.15
_GLANCE_STD_RAD = (0.070, 0.044)
_SACCADE_S = 0.06
_BLINKS, _GLANCES = 0, 1

Track = npt.NDArray[np.float64]


def behaviour(seed: int, first_frame: int, num_frames: int, fps: Fraction) -> torch.Tensor:
    """Blinks and glances [C, T] float32 of frames `first_frame` and on; frame j shows j / fps."""
    time_s = np.arange(first_frame, first_frame + num_frames) / float(fps)
    tracks = np.concatenate((lids(seed, time_s)[None], glances(seed, time_s) / GLANCE_UNIT_RAD))
    return torch.from_numpy(tracks.astype(np.float32))


def lids(seed: int, time_s: Track) -> Track:
    """How far the lids are closed at each time: 1 at the bottom of a blink, 0 between blinks."""
    closed_T = np.zeros(len(time_s))
    for slot in _slots(time_s, _BLINK_EVERY_S):
        draw = _draws(seed, _BLINKS, slot)
        onset_s = (slot + 0.5 + _BLINK_JITTER * (draw.random() - 0.5)) * _BLINK_EVERY_S
        closing_s, opening_s = draw.uniform(*_CLOSING_S), draw.uniform(*_OPENING_S)
        shut_s = draw.uniform(*_CLOSED_S)
        down_T = (time_s - onset_s) / closing_s
        up_T = (onset_s + closing_s + shut_s + opening_s - time_s) / opening_s
        lid_T = np.clip(np.minimum(down_T, up_T), 0.0, 1.0)
        closed_T = np.maximum(closed_T, lid_T * lid_T * (3.0 - 2.0 * lid_T))
    return closed_T


def glances(seed: int, time_s: Track) -> Track:
    """Where the eyes look [2, T], radians (viewer's right, up): at the camera, or away and back."""
    looked_2T = np.zeros((2, len(time_s)))
    for slot in _slots(time_s, _GLANCE_EVERY_S):
        jump_s, target_2 = _glance(seed, slot)
        _, before_2 = _glance(seed, slot - 1)
        moved_T = np.clip((time_s - jump_s) / _SACCADE_S, 0.0, 1.0)
        path_2T = before_2[:, None] + (target_2 - before_2)[:, None] * moved_T
        looked_2T = np.where(time_s >= jump_s, path_2T, looked_2T)
    return looked_2T


def _glance(seed: int, slot: int) -> tuple[float, Track]:
    """When the eyes jump in a slot, and to where."""
    if slot < 0:
        return slot * _GLANCE_EVERY_S, np.zeros(2)
    draw = _draws(seed, _GLANCES, slot)
    jump_s = (slot + 0.5 + _GLANCE_JITTER * (draw.random() - 0.5)) * _GLANCE_EVERY_S
    away = 1.0 if draw.random() < _AWAY_SHARE else _AT_CAMERA
    return jump_s, draw.normal(0.0, _GLANCE_STD_RAD) * away


def _slots(time_s: Track, every_s: float) -> range:
    """The slots whose events may reach into these times, in order."""
    first = int(time_s[0] // every_s) - 1 if len(time_s) else 0
    last = int(time_s[-1] // every_s) if len(time_s) else -1
    return range(max(first, 0), last + 1)


def _draws(seed: int, kind: int, slot: int) -> np.random.Generator:
    """The random numbers of one event; a counter-based generator, so no state is carried."""
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, slot, kind, 0]))
