"""What a drawn face does in one frame, in px of the sheet, from the expressions of 3-D heads.

The gap between the lips is about that of the 3-D heads (percentiles of openness over training clips
agree within a pixel or two) and is none when lips press, so that both domains move alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.facekit import Array
from training.performance import EXPRESSIONS

_AT = {name: index for index, name in enumerate(EXPRESSIONS)}
_GAP_PER_JAW_PX = 31.0
_CLOSE_PER_JAW = 0.84
_CHIN_PER_JAW_PX = 20.0
SIDES = (-1, 1)
"""The viewer's left (the character's own right), then the viewer's right."""


@dataclass(frozen=True)
class Act:
    """One frame of a drawn face; pairs are (viewer's left, viewer's right).

    Attributes:
        up_px, down_px: how far the inner lips part upward and downward.
        middle_px: how far the line where lips meet goes down with a jaw that opens behind it.
        chin_px: drop of the chin.
        width: width of the mouth, 1 at rest.
        lift_px: rise of the mouth's corners.
        roundness: 0 .. 1.
        press, tuck: lips in contact; lower lip under the upper teeth.
        aside_px: the mouth's way to the viewer's right.
        lid: 0 open .. 1 shut, negative when wide.
        squint, cheek: 0 .. 1.
        brow_in_px, brow_out_px: rise of the brows' ends.
        gaze: (to the viewer's right, up) in radians.
    """

    up_px: float = 0.0
    down_px: float = 0.0
    middle_px: float = 0.0
    chin_px: float = 0.0
    width: float = 1.0
    lift_px: tuple[float, float] = (0.0, 0.0)
    roundness: float = 0.0
    press: float = 0.0
    tuck: float = 0.0
    aside_px: float = 0.0
    lid: tuple[float, float] = (0.0, 0.0)
    squint: tuple[float, float] = (0.0, 0.0)
    cheek: tuple[float, float] = (0.0, 0.0)
    brow_in_px: tuple[float, float] = (0.0, 0.0)
    brow_out_px: tuple[float, float] = (0.0, 0.0)
    gaze: tuple[float, float] = (0.0, 0.0)


def act_out(expression_E: Array, gaze: tuple[float, float], gain: float = 1.0) -> Act:
    """Read expression weights [E] in the order of `EXPRESSIONS`; `gain` scales the mouth."""
    weight = _Weights(expression_E)
    press = min(weight.mean("mouthPress") / 0.55, 1.0)
    tuck = min(weight["mouthRollLower"] / 0.65, 1.0) * (1 - press)
    shut = weight["mouthClose"] / _CLOSE_PER_JAW
    gap = _GAP_PER_JAW_PX * (weight["jawOpen"] - shut) + 7.6 * weight["mouthFunnel"]
    raised, lowered = 5.0 * weight.mean("mouthUpperUp"), 6.0 * weight.mean("mouthLowerDown")
    total = max(gain * (gap + raised + lowered) - 5.0 * press, 0.0)
    total = max(total * (1 - 0.5 * tuck), 1.6 * tuck)
    up = min(gain * raised + 0.14 * max(gap, 0.0), 0.6 * total)
    smile = weight.pair("mouthSmile")
    narrow = 0.40 * weight["mouthPucker"] + 0.24 * weight["mouthFunnel"]
    wide = 0.24 * weight.mean("mouthSmile") + 0.20 * weight.mean("mouthStretch")
    frown, dimple = weight.pair("mouthFrown"), weight.pair("mouthDimple")
    return Act(
        up_px=up,
        down_px=total - up,
        middle_px=0.4 * _GAP_PER_JAW_PX * max(shut, 0.0) - 1.0 * tuck,
        chin_px=gain * _CHIN_PER_JAW_PX * weight["jawOpen"],
        width=1 + wide + 0.06 * weight.mean("mouthDimple") - gain * narrow,
        lift_px=_pair(7.0 * np.array(smile) + 1.0 * np.array(dimple) - 5.0 * np.array(frown)),
        roundness=min(weight["mouthPucker"] + weight["mouthFunnel"], 1.0),
        press=press,
        tuck=tuck,
        aside_px=6.0 * (weight["mouthLeft"] - weight["mouthRight"]),
        lid=_pair(_lids(weight)),
        squint=weight.pair("eyeSquint"),
        cheek=_pair(np.maximum(weight.pair("cheekSquint"), 0.6 * np.array(smile))),
        brow_in_px=_pair(_brows(weight, "browInnerUp", 9.0, 5.0)),
        brow_out_px=_pair(_brows(weight, "browOuterUp", 7.0, 2.0)),
        gaze=gaze,
    )


class _Weights:
    def __init__(self, expression_E: Array) -> None:
        self._values = np.asarray(expression_E, np.float64)

    def __getitem__(self, name: str) -> float:
        return float(self._values[_AT[name]])

    def pair(self, name: str) -> tuple[float, float]:
        """The viewer's left is the character's right."""
        return self[f"{name}_R"], self[f"{name}_L"]

    def mean(self, name: str) -> float:
        return sum(self.pair(name)) / 2


def _pair(values: Array) -> tuple[float, float]:
    return float(values[0]), float(values[1])


def _lids(weight: _Weights) -> Array:
    shut = np.array(weight.pair("eyeBlink"))
    drawn = 0.30 * np.array(weight.pair("eyeLookDown")) - 0.12 * np.array(weight.pair("eyeLookUp"))
    drawn = drawn + 0.16 * np.array(weight.pair("eyeSquint"))
    drawn = drawn - 0.18 * np.array(weight.pair("eyeWide"))
    return np.clip(shut + (1 - shut) * drawn, -0.25, 1.0)


def _brows(weight: _Weights, name: str, up_px: float, down_px: float) -> Array:
    return up_px * np.array(weight.pair(name)) - down_px * np.array(weight.pair("browDown"))
