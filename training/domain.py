"""What a clip needs of a domain of faces, be they 3-D heads or drawn characters."""

from __future__ import annotations

from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from training.camera import Framing, View
from training.facekit import Array
from training.head import Gaze
from training.renderer import Measure


class Vocabulary(Protocol):
    """The expressions that a renderer's faces know."""

    @property
    def expression_names(self) -> tuple[str, ...]:
        """Names in the order of expression weights."""

    def expression_index(self, name: str) -> int:
        """Column of a named expression."""


class Scene(Protocol):
    """One person before one camera, with a reference; `training.renderer.Scene` says more."""

    view: View
    measure: Measure

    @property
    def landmarks_px(self) -> Array:
        """The 68 points of the reference, [68, 2]."""

    def picture(self, expression_E: Array, gaze: Gaze) -> npt.NDArray[np.uint8]:
        """The person under an expression, [256, 256, 3]."""

    def flow(self, expression_E: Array, gaze: Gaze, samples: int) -> Array:
        """Samples [samples, samples, 4]: flow x and y (px of 256), seen 0/1, foreground 0/1."""

    def openness_track_px(self, expression_TE: Array) -> Array:
        """Gap [T] between the inner lips, px of a 256 picture."""

    def close(self) -> None:
        """Free what the scene holds."""


Person = TypeVar("Person")


class Renderer(Protocol[Person]):
    """A domain of faces: 3-D heads or drawn characters."""

    @property
    def kit(self) -> Vocabulary:
        """The expressions its faces know."""

    def sample(self, rng: np.random.Generator) -> Person:
        """Make up somebody."""

    def begin(self, person: Person, framing: Framing, expression_E: Array, gaze: Gaze) -> Scene:
        """Fix a person, a camera and the reference expression."""
