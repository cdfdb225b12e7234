"""A face that speaks: visemes into expression weights of the head, with blinks, brows and moods.

T is video frames, V the six visemes, E the 57 expressions of the face kit in the order
`EXPRESSIONS`. Lips are solved, not guessed: the jaw moves more slowly than the lips, and
`mouthClose` makes up the difference, so that the gap between the lips is the wanted one and is none
at p, b and m whatever the jaw still does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.motion import blinks, bumps, drift, droops, glances, nods, stresses, sway
from training.smoothing import gaussian
from training.visemes import OPEN, PRESS, RATE_HZ, ROUND, TONGUE, TUCK, WIDE

_PAIRED_BEFORE = (
    "PupilDilate browDown browInnerUp browOuterUp cheekPuff cheekRaiser cheekSquint eyeBlink "
    "eyeLookDown eyeLookIn eyeLookOut eyeLookUp eyeSquint eyeWide"
)
EXPRESSIONS = (
    *(f"{name}_{side}" for name in _PAIRED_BEFORE.split() for side in "LR"),
    *("jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose"),
    *("mouthDimple_L", "mouthDimple_R", "mouthFrown_L", "mouthFrown_R", "mouthFunnel"),
    *("mouthLeft", "mouthLowerDown_L", "mouthLowerDown_R", "mouthPress_L", "mouthPress_R"),
    *("mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper"),
    *("mouthShrugLower", "mouthShrugUpper", "mouthSmile_L", "mouthSmile_R"),
    *("mouthStretch_L", "mouthStretch_R", "mouthUpperUp_L", "mouthUpperUp_R"),
    *("noseSneer_L", "noseSneer_R"),
)

_JAW_LOUD = 0.66
# How far one mouthClose undoes one jawOpen at the inner lips (measured on the face kit).
_CLOSE_PER_JAW = 0.84
_JAW_SMOOTHING_S = 0.045
_LID_RANGE = np.deg2rad(30.0)


@dataclass(frozen=True)
class Performance:
    """All that a face does, one row a video frame.

    Attributes:
        expression_TE: float32 [T, E] weights, 0 to 1.
        visemes_TV: float32 [T, 6], the visemes at the video's rate.
        blink_T: float32 [T], 1 where the lids are closed.
        gaze_T2: float32 [T, 2] radians relative to the head (viewer's right, up).
        pose_T6: float32 [T, 6] (yaw, pitch, roll in radians; tx, ty, tz in cm) around zero,
            with the signs of `training.motion`.
    """

    expression_TE: np.ndarray
    visemes_TV: np.ndarray
    blink_T: np.ndarray
    gaze_T2: np.ndarray
    pose_T6: np.ndarray


@dataclass(frozen=True)
class Temper:
    """What is one's own in a performance: how wide, how lively, how lopsided, how cheerful.

    Attributes:
        articulation: gain of the mouth, about 0.75 to 1.15.
        liveliness: gain of head and brows.
        smile: resting smile, 0 to 0.2.
        lopsided: how much stronger the left side is than the right, -0.15 to 0.15.
        lips: how much of rounding is pucker (1) or funnel (0).
    """

    articulation: float = 1.0
    liveliness: float = 1.0
    smile: float = 0.05
    lopsided: float = 0.0
    lips: float = 0.5


def draw_temper(rng: np.random.Generator) -> Temper:
    """Draw a temper."""
    return Temper(
        articulation=float(rng.uniform(0.75, 1.15)),
        liveliness=float(rng.uniform(0.5, 1.3)),
        smile=float(rng.beta(1.2, 6.0)) * 0.4,
        lopsided=float(np.clip(rng.normal(0.0, 0.05), -0.15, 0.15)),
        lips=float(rng.uniform(0.25, 0.75)),
    )


def perform(
    visemes_VT: np.ndarray,
    rng: np.random.Generator,
    fps: float = 25,
    names: Sequence[str] = EXPRESSIONS,
    *,
    drowsy: bool = False,
) -> Performance:
    """Perform 100 Hz visemes at `fps`; video frame j shows the instant j / fps.

    Args:
        visemes_VT: float32 [6, T] at 100 Hz.
        rng: chooses temper, blinks, glances and head motion.
        fps: frames a second.
        names: expressions wanted, and their order.
        drowsy: let the lids also sink slowly, mostly half way.

    Raises:
        ValueError: a name is no expression of the face kit.
    """
    unknown = set(names) - set(EXPRESSIONS)
    if unknown:
        raise ValueError(f"names: {min(unknown)!r} is no expression; use those of EXPRESSIONS")
    temper = draw_temper(rng)
    visemes_TV = resample(visemes_VT, fps)
    num_frames = len(visemes_TV)
    stresses_s = stresses(visemes_TV[:, OPEN], fps)
    pose_T6 = sway(num_frames, fps, temper.liveliness, rng)
    pose_T6[:, 1] += temper.liveliness * nods(num_frames, fps, stresses_s, rng)
    gaze_T2 = glances(num_frames, fps, pose_T6, rng)
    blink_T = blinks(num_frames, fps, rng)
    if drowsy:
        blink_T = np.maximum(blink_T, droops(num_frames, fps, rng))
    weights = mouth(visemes_TV, temper, fps)
    weights |= _brows(num_frames, fps, stresses_s, temper, rng)
    weights |= _lids(blink_T, gaze_T2, temper)
    _add_smile(weights, temper.smile * np.exp(0.5 * drift(num_frames, fps, rng)))
    nothing_T = np.zeros(num_frames)
    expression_ET = np.stack([weights.get(name, nothing_T) for name in names])
    return Performance(
        expression_TE=np.ascontiguousarray(np.clip(expression_ET.T, 0.0, 1.0), np.float32),
        visemes_TV=visemes_TV.astype(np.float32),
        blink_T=blink_T.astype(np.float32),
        gaze_T2=gaze_T2.astype(np.float32),
        pose_T6=pose_T6.astype(np.float32),
    )


def resample(visemes_VT: np.ndarray, fps: float) -> np.ndarray:
    """Take 100 Hz visemes at each video frame's instant: float64 [frames, 6]."""
    num_frames = int(np.ceil(visemes_VT.shape[1] / RATE_HZ * fps - 1e-9))
    source = np.arange(visemes_VT.shape[1])
    wanted = np.arange(num_frames) / fps * RATE_HZ
    return np.stack([np.interp(wanted, source, row) for row in visemes_VT], axis=1)


def mouth(visemes_TV: np.ndarray, temper: Temper, fps: float) -> dict[str, np.ndarray]:
    """Weights [T] of jaw and lips for visemes at `fps`, by expression name."""
    visemes_VT = np.asarray(visemes_TV, np.float64).T
    # Lips in contact can neither part nor protrude much.
    press_T, tuck_T = visemes_VT[PRESS], visemes_VT[TUCK]
    parted_T = 1.0 - press_T
    round_T = temper.articulation * visemes_VT[ROUND] * (1.0 - 0.5 * press_T)
    wide_T = temper.articulation * visemes_VT[WIDE]
    lips_T = temper.articulation * visemes_VT[OPEN] * _JAW_LOUD
    jaw_T = np.maximum(lips_T, gaussian(lips_T, _JAW_SMOOTHING_S * fps))
    # The tongue's consonants show in the jaw even where vowels are closed.
    teeth_T = 0.10 * wide_T * parted_T + 0.06 * visemes_VT[TONGUE] * parted_T
    left, right = 1.0 + temper.lopsided, 1.0 - temper.lopsided
    funnel_T = (1.1 - 0.7 * temper.lips) * 0.55 * round_T * parted_T
    # A funnel parts the lips by itself: of a narrow one (u, w) up to two thirds are taken back.
    narrow_T = 0.25 * funnel_T * (1.0 - visemes_VT[OPEN])
    weights = {
        "jawOpen": jaw_T,
        "mouthClose": _CLOSE_PER_JAW * (jaw_T - lips_T) + narrow_T,
        "mouthFunnel": funnel_T,
        "mouthPucker": (0.5 + 0.7 * temper.lips) * 0.75 * round_T,
        "mouthRollLower": 0.18 * press_T + 0.65 * tuck_T,
        "mouthRollUpper": 0.12 * press_T,
        "mouthShrugLower": 0.25 * tuck_T,
    }
    for side, gain in (("L", left), ("R", right)):
        weights[f"mouthPress_{side}"] = 0.55 * gain * press_T
        weights[f"mouthStretch_{side}"] = 0.40 * gain * wide_T
        weights[f"mouthSmile_{side}"] = 0.22 * gain * wide_T
        weights[f"mouthDimple_{side}"] = 0.10 * gain * wide_T
        weights[f"mouthLowerDown_{side}"] = gain * (teeth_T + 0.22 * lips_T) * (1.0 - tuck_T)
        weights[f"mouthUpperUp_{side}"] = gain * (0.6 * teeth_T + 0.15 * lips_T + 0.30 * tuck_T)
    return weights


def _brows(
    num_frames: int,
    fps: float,
    stresses_s: np.ndarray,
    temper: Temper,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Brows drift with the mood and rise on about a third of the stressed moments."""
    raised_s = stresses_s[rng.random(len(stresses_s)) < 0.35]
    heights = rng.uniform(0.2, 0.7, len(raised_s)) * temper.liveliness
    raised_T = bumps(num_frames, fps, raised_s, heights, 0.14)
    mood_T = 0.12 * drift(num_frames, fps, rng)
    up_T, down_T = raised_T + np.maximum(mood_T, 0.0), np.maximum(-mood_T, 0.0)
    weights: dict[str, np.ndarray] = {}
    for side, gain in (("L", 1.0 + temper.lopsided), ("R", 1.0 - temper.lopsided)):
        weights[f"browInnerUp_{side}"] = gain * up_T
        weights[f"browOuterUp_{side}"] = 0.7 * gain * up_T
        weights[f"browDown_{side}"] = gain * down_T
    return weights


def _lids(blink_T: np.ndarray, gaze_T2: np.ndarray, temper: Temper) -> dict[str, np.ndarray]:
    """Lids blink, and follow the eyes; the eyes themselves are turned by the gaze."""
    right_T, up_T = np.maximum(gaze_T2, 0.0).T / _LID_RANGE
    left_T, down_T = np.maximum(-gaze_T2, 0.0).T / _LID_RANGE
    open_T = 1.0 - blink_T
    weights = {
        # The viewer's right is the head's own left.
        "eyeLookOut_L": right_T * open_T,
        "eyeLookIn_R": right_T * open_T,
        "eyeLookIn_L": left_T * open_T,
        "eyeLookOut_R": left_T * open_T,
    }
    for side in "LR":
        weights[f"eyeBlink_{side}"] = blink_T
        weights[f"eyeLookUp_{side}"] = up_T * open_T
        weights[f"eyeLookDown_{side}"] = down_T * open_T
        weights[f"eyeSquint_{side}"] = 0.6 * temper.smile * open_T
    return weights


def _add_smile(weights: dict[str, np.ndarray], smile_T: np.ndarray) -> None:
    """Lay a mood's smile over the mouth and cheeks; rounded lips cannot smile."""
    free_T = np.clip(1.0 - weights["mouthPucker"], 0.0, 1.0)
    for side in "LR":
        weights[f"mouthSmile_{side}"] = weights[f"mouthSmile_{side}"] + smile_T * free_T
        weights[f"cheekSquint_{side}"] = 0.7 * smile_T
