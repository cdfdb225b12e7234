"""What a head does while it talks: sways, nods, blinks and glances, frame by frame.

T is video frames. Poses are those of `video.head_pose`, turning about y, x and z (right-handed, y
up, z to the viewer), in radians: positive yaw turns to the viewer's right, positive pitch looks
down, positive roll leans counter-clockwise as the viewer sees it; shifts are centimetres (right,
up, forward). A gaze is (right, up) for the viewer, in radians.
"""

import numpy as np

from training.smoothing import gaussian

POSE_AXES = ("yaw", "pitch", "roll", "tx", "ty", "tz")

# Spread of each axis for a lively and a calm head alike, before the performance's own liveliness.
_SWAY_STD = np.array([np.deg2rad(3.0), np.deg2rad(2.0), np.deg2rad(1.5), 0.3, 0.2, 0.3])
# Two bands, each a smoothed random walk pulled back to the middle: slow posture, quick gesture.
# A Gaussian of 0.13 s passes 0.13 of the amplitude at 2.5 Hz, the 0.45 s one nothing.
_POSTURE_SMOOTHING_S, _GESTURE_SMOOTHING_S = 0.45, 0.13
_GESTURE_SHARE = 0.35
_NOD_S = 0.16
_BREATH_CM = 0.12

_CLOSING_S, _CLOSED_S, _OPENING_S = (0.08, 0.15), (0.06, 0.12), (0.14, 0.20)
_BLINK_MEAN_S = (3.0, 5.0)
_GLANCE_STD = np.deg2rad([4.0, 2.5])
_SACCADE_S = 0.02


def sway(num_frames: int, fps: float, liveliness: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth motion of head and shoulders around zero: float64 [T, 6] in the order POSE_AXES."""
    bands = (
        (1.0 - _GESTURE_SHARE, _POSTURE_SMOOTHING_S),
        (_GESTURE_SHARE, _GESTURE_SMOOTHING_S),
    )
    motion_6T = np.zeros((6, num_frames))
    for share, smoothing_s in bands:
        motion_6T += np.sqrt(share) * _band(6, num_frames, smoothing_s * fps, rng)
    pose_T6: np.ndarray = motion_6T.T * _SWAY_STD * liveliness
    phase, rate_hz = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.3)
    time_s = np.arange(num_frames) / fps
    pose_T6[:, 4] += _BREATH_CM * np.sin(2 * np.pi * rate_hz * time_s + phase)
    return pose_T6


def drift(num_frames: int, fps: float, rng: np.random.Generator) -> np.ndarray:
    """A slow random track of unit variance, for moods: float64 [T]."""
    row: np.ndarray = _band(1, num_frames, 0.6 * fps, rng)[0]
    return row


def _band(num_rows: int, num_frames: int, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian-smoothed white noise scaled to unit variance, without end effects."""
    margin = int(np.ceil(4 * sigma)) + 1
    noise = rng.standard_normal((num_rows, num_frames + 2 * margin))
    # The sum of squares of a unit Gaussian kernel is 1 / (2 sqrt(pi) sigma).
    smooth = gaussian(noise, sigma) * np.sqrt(2 * np.sqrt(np.pi) * sigma)
    band: np.ndarray = smooth[:, margin:-margin]
    return band


def bumps(
    num_frames: int, fps: float, centres_s: np.ndarray, heights: np.ndarray, width_s: float
) -> np.ndarray:
    """A bell of the given height at each time: nods, raised brows. float64 [T]."""
    time_s = np.arange(num_frames) / fps
    track_T = np.zeros(num_frames)
    for centre_s, height in zip(centres_s, heights, strict=True):
        track_T += height * np.exp(-0.5 * ((time_s - centre_s) / width_s) ** 2)
    return track_T


def nods(
    num_frames: int, fps: float, stresses_s: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Small downward nods, radians of pitch, on about half of the stressed moments: [T]."""
    nodded_s = stresses_s[rng.random(len(stresses_s)) < 0.5]
    heights = np.deg2rad(rng.uniform(0.8, 3.0, len(nodded_s)))
    return bumps(num_frames, fps, nodded_s, heights, _NOD_S)


def stresses(open_T: np.ndarray, fps: float) -> np.ndarray:
    """The stressed moments: peaks of the smoothed opening above its mean, in seconds."""
    smooth_T = gaussian(open_T, 0.09 * fps)
    if len(smooth_T) < 3 or smooth_T.max() < 0.1:
        return np.zeros(0)
    inner_T = smooth_T[1:-1]
    is_peak = (inner_T > smooth_T[:-2]) & (inner_T >= smooth_T[2:])
    is_peak &= inner_T > max(0.15, float(smooth_T.mean()) * 1.2)
    peaks_s: np.ndarray = (np.flatnonzero(is_peak) + 1) / fps
    return peaks_s


def blinks(num_frames: int, fps: float, rng: np.random.Generator) -> np.ndarray:
    """How far the lids are closed: 12 to 20 blinks a minute, each 1 for at least a frame: [T]."""
    mean_s = rng.uniform(*_BLINK_MEAN_S)
    time_s = np.arange(num_frames) / fps
    closed_T = np.zeros(num_frames)
    onset_s = float(rng.uniform(0.0, mean_s))
    # A blink that the end would cut before the lids met is not begun.
    while onset_s + _CLOSING_S[1] + 1.0 / fps < num_frames / fps:
        closing_s, opening_s = rng.uniform(*_CLOSING_S), rng.uniform(*_OPENING_S)
        # Never shorter than a frame, or the sampled lids might not meet.
        closed_s = max(float(rng.uniform(*_CLOSED_S)), 1.001 / fps)
        down_T = (time_s - onset_s) / closing_s
        up_T = (onset_s + closing_s + closed_s + opening_s - time_s) / opening_s
        lid_T = np.clip(np.minimum(down_T, up_T), 0.0, 1.0)
        closed_T = np.maximum(closed_T, lid_T * lid_T * (3.0 - 2.0 * lid_T))
        pause_s = max(0.6, float(rng.gamma(4.0, mean_s / 4.0)))
        onset_s += pause_s
    return closed_T


def droops(num_frames: int, fps: float, rng: np.random.Generator) -> np.ndarray:
    """Lids that sink and rise slowly, mostly half way, one in four until they meet: [T]."""
    time_s = np.arange(num_frames) / fps
    closed_T = np.zeros(num_frames)
    onset_s = float(rng.uniform(0.0, 0.8))
    while onset_s < num_frames / fps:
        closing_s, held_s, opening_s = rng.uniform((0.25, 0.1, 0.25), (0.8, 0.9, 0.8))
        depth = 1.0 if rng.random() < 0.25 else rng.uniform(0.25, 0.8)
        down_T = (time_s - onset_s) / closing_s
        up_T = (onset_s + closing_s + held_s + opening_s - time_s) / opening_s
        lid_T = np.clip(np.minimum(down_T, up_T), 0.0, 1.0)
        closed_T = np.maximum(closed_T, depth * lid_T * lid_T * (3.0 - 2.0 * lid_T))
        onset_s += closing_s + held_s + opening_s + float(rng.uniform(0.2, 1.5))
    return closed_T


def glances(
    num_frames: int, fps: float, pose_T6: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Where the eyes look, relative to the head: float64 [T, 2] (right, up).

    The eyes rest on the camera, leave it in quick jumps, and hold still while the head moves.
    """
    target_T2 = np.zeros((num_frames, 2))
    start = 0
    while start < num_frames:
        length = max(2, int(rng.gamma(2.0, 0.7) * fps))
        away = rng.random() < 0.45
        target_T2[start : start + length] = rng.normal(0.0, _GLANCE_STD) * (1.0 if away else 0.15)
        start += length
    # Repeated edges keep the smoothing from pulling both ends to zero.
    padded_2T = np.pad(target_T2, ((4, 4), (0, 0)), mode="edge").T
    smooth_T2 = gaussian(padded_2T, max(_SACCADE_S * fps, 0.4))[:, 4:-4].T
    # A positive pitch turns the head down, and so the resting eyes up.
    gaze_T2: np.ndarray = smooth_T2 + 0.8 * pose_T6[:, :2] * (-1.0, 1.0)
    return gaze_T2
