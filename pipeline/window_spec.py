"""How a render cuts its latent frames into windows that are denoised side by side.

Window m begins at frame m * stride and a message of the chain carries one stride, so that stage
after stage can work on what lies between two windows. Source: FlashPortrait, weighted sliding
windows; SpotDiffusion, shifted windows; Streaming Diffusion Policy, the rolling buffer.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import ConfigDict

if TYPE_CHECKING:
    from pipeline.plan import Plan

Blend = Literal["exact", "causal", "shifted", "rolling"]
MAX_LENGTH = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSpec:
    """Windows of `length` latent frames, the last `overlap` of which the next one sees as well.

    `blend` says how they are made one:
    - `exact`: after every step the overlap is blended, and both windows go on from the blend.
    - `causal`: the later window is blended into the earlier one, which does not hear of it.
    - `shifted`: no overlap; the borders move by `shift` frames at every step.
    - `rolling`: one window whose strides are each a step noisier than the one before; a clean
      stride leaves with every pass.

    `blend_first` false leaves step 0 unblended, as the released FlashPortrait code does.
    `bidirectional` is for a network in which every frame of a window sees every other.

    Raises:
        ValueError: the values contradict each other.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    length: int
    overlap: int = 0
    blend: Blend = "exact"
    shift: int = 0
    blend_first: bool = True
    bidirectional: bool = False

    def __post_init__(self) -> None:
        """Refuse windows that could not be laid side by side."""
        if self.blend not in ("exact", "causal", "shifted", "rolling"):
            raise ValueError(f"blend {self.blend!r} is unknown: exact, causal, shifted or rolling")
        if not 1 <= self.length <= MAX_LENGTH:
            raise ValueError(f"windows.length {self.length} must lie in 1..{MAX_LENGTH}")
        if not 0 <= self.overlap < self.length:
            raise ValueError(f"windows.overlap {self.overlap} must lie in 0..{self.length - 1}")
        if self.blend in ("shifted", "rolling") and self.overlap:
            raise ValueError(f"{self.blend} windows do not overlap: leave windows.overlap at 0")
        if (self.blend == "shifted") != (self.shift > 0) or self.shift >= self.length:
            raise ValueError(
                f"windows.shift {self.shift} must lie in 1..{self.length - 1} for blend shifted, "
                "and be left out otherwise"
            )

    def stride(self, num_steps: int) -> int:
        """Frames from one window's begin to the next one's, which is what a message carries."""
        return self.length // num_steps if self.blend == "rolling" else self.length - self.overlap

    @property
    def held_back(self) -> int:
        """Strides that a window reaches beyond its first one."""
        return -(-self.overlap // (self.length - self.overlap))

    def offset(self, step: int) -> int:
        """How far the borders of a step's windows lie beyond whole strides."""
        return step * self.shift % self.length

    def lag(self, num_steps: int) -> int:
        """Strides that go into a chain before the first one comes out, less one."""
        if self.blend == "rolling":
            return num_steps - 1
        if self.blend == "shifted":
            return sum(self.offset(step) > 0 for step in range(num_steps))
        return self.held_back * (num_steps if self.blend == "exact" else 1)

    def num_strides(self, num_frames: int, num_steps: int) -> int:
        """Strides whose windows cover so many frames: as many as must go into a chain.

        A window is run once all of it is there, so the frames of the last stride that lie beyond
        the last window are nobody's.
        """
        if num_frames == 0:
            return 0
        if self.blend in ("shifted", "rolling"):
            return -(-num_frames // self.stride(num_steps))
        num_windows = 1 + -(-max(0, num_frames - self.length) // self.stride(num_steps))
        return num_windows + self.held_back


def window_complaints(plan: "Plan") -> Iterator[str]:
    """Windows that fit the plan around them."""
    windows = plan.windows
    if windows is None:
        return
    num_steps = len(plan.steps)
    if windows.blend == "rolling" and windows.length % num_steps:
        yield (
            f"a rolling window of {windows.length} frames cannot hold {num_steps} steps' strides: "
            f"make length a multiple of {num_steps}"
        )
    stride = windows.stride(num_steps)
    if plan.frames_per_chunk != stride:
        yield (
            f"frames_per_chunk {plan.frames_per_chunk} is not the windows' stride {stride} "
            f"(length {windows.length} less overlap {windows.overlap}): set it to {stride}"
        )
    if plan.short is not None:
        yield "windows are all of one kind: leave out short, or take a plan without windows"
    if windows.blend == "rolling" and (
        len(plan.stages) > 1 or any(step.resolution != 1.0 for step in plan.steps)
    ):
        yield "a rolling window takes all steps in one pass: use one stage and one resolution"
