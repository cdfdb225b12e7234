"""Pictures from the decoder to the process that shows them, through memory that both see.

A session has a file in shared memory with one slot more than chunks may be under way. The decoder
writes chunk c into slot c modulo their number; the slot was read by then, because chunk c is only
sent off once chunk c - num_slots has come out.

Shape legend: T = pictures, H, W = rows and columns, C = colours.
"""

import mmap
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

Shape = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class RingSpec:
    """Where a ring lies and what fits: `num_slots` chunks of at most `slot_bytes`."""

    path: str
    num_slots: int
    slot_bytes: int


class FrameRing:
    """A mapped ring; the side that made it removes it."""

    def __init__(self, spec: RingSpec, *, create: bool = False) -> None:
        """Map the ring; `create` makes its file first.

        Raises:
            OSError: the file is not there, or memory is full.
        """
        self.spec = spec
        size = spec.num_slots * spec.slot_bytes
        with Path(spec.path).open("xb+" if create else "rb+") as file:
            if create:
                file.truncate(size)
            self._memory = mmap.mmap(file.fileno(), size)

    def write(self, chunk: int, frames_THWC: npt.NDArray[np.uint8]) -> None:
        """Put a chunk's pictures into its slot.

        Raises:
            ValueError: they do not fit.
        """
        if frames_THWC.nbytes > self.spec.slot_bytes:
            raise ValueError(
                f"pictures of {frames_THWC.nbytes} bytes do not fit a slot of "
                f"{self.spec.slot_bytes}"
            )
        self._slot(chunk, frames_THWC.shape)[:] = frames_THWC

    def read(self, chunk: int, shape_THWC: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        """A copy of the pictures in a chunk's slot.

        Raises:
            ValueError: no such pictures fit there.
        """
        if prod(shape_THWC) > self.spec.slot_bytes or len(shape_THWC) != 4:
            raise ValueError(f"pictures of shape {shape_THWC} do not fit a slot")
        return self._slot(chunk, shape_THWC).copy()

    def _slot(self, chunk: int, shape_THWC: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        offset = chunk % self.spec.num_slots * self.spec.slot_bytes
        return np.ndarray(shape_THWC, np.uint8, self._memory, offset)

    def close(self) -> None:
        """Give the mapping back."""
        self._memory.close()

    def remove(self) -> None:
        """Give the mapping back and remove the file."""
        self.close()
        Path(self.spec.path).unlink(missing_ok=True)


def open_ring(spec: RingSpec | None) -> FrameRing | None:
    """The ring if it is on this machine; elsewhere pictures go by the link."""
    if spec is None or not Path(spec.path).exists():
        return None
    return FrameRing(spec)
