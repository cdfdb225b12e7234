"""Overlapping windows made one: the rule of blending, the whole clip at once, and the wavefront.

The batch functions say what a render with windows is. The wavefront gives the same bits with a
small buffer for each step, in the order in which stages that work side by side can go.

Shape legend: C = channels, T = frames, L = frames of a window, H, W = rows and columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import torch


class RunWindow(Protocol):
    """One denoising step of one window: the network and the update rule."""

    def __call__(self, step: int, start: int, latents_CLHW: torch.Tensor, /) -> torch.Tensor:
        """The latents of the window at frame `start` after the step; the input stays as it is."""
        ...


def window_starts(num_frames: int, length: int, overlap: int) -> tuple[int, ...]:
    """Where windows begin; the last one ends with the clip, and may overlap more for that.

    Raises:
        ValueError: the clip is shorter than a window.
    """
    if num_frames < length:
        raise ValueError(f"{num_frames} frames hold no window of {length}: make the clip longer")
    stride = length - overlap
    last = num_frames - length
    return (*range(0, last, stride), last)


def shifted_bounds(num_frames: int, length: int, offset: int) -> tuple[tuple[int, int], ...]:
    """First frame and end of each window of a step whose borders lie `offset` beyond multiples."""
    first = offset if 0 < offset < num_frames else min(length, num_frames)
    borders = (0, *range(first, num_frames, length), num_frames)
    return tuple(pairwise(borders))


def blended(before_CTHW: torch.Tensor, window_CTHW: torch.Tensor) -> torch.Tensor:
    """From the earlier window's frames at the first to the later one's at the last, evenly.

    A single frame stays the earlier window's. Source: FlashPortrait, r_j = j / (o - 1).
    """
    num_frames = before_CTHW.shape[1]
    ramp_T11 = torch.linspace(0.0, 1.0, num_frames).to(before_CTHW)[:, None, None]
    return ramp_T11 * window_CTHW + (1.0 - ramp_T11) * before_CTHW


@dataclass(slots=True)
class BlendBuffer:
    """Frames that a step has written and that its next window may still touch.

    `start` is the first one's place. Windows come in order and leave no frame out.
    """

    start: int = 0
    frames_CTHW: torch.Tensor | None = None

    @property
    def end(self) -> int:
        """The frame after the last one written."""
        return self.start + (0 if self.frames_CTHW is None else self.frames_CTHW.shape[1])

    def write(self, start: int, window_CTHW: torch.Tensor, *, blends: bool = True) -> torch.Tensor:
        """Take a window at frame `start`; returns it as written, blended or in the old one's place.

        Raises:
            ValueError: it leaves a hole, or begins before what is still held.
        """
        if self.frames_CTHW is None:
            self.start = start
        elif not self.start <= start <= self.end:
            raise ValueError(
                f"window at frame {start} does not fit frames {self.start} to {self.end}: run "
                "windows in order"
            )
        held_CTHW = window_CTHW[:, :0] if self.frames_CTHW is None else self.frames_CTHW
        kept = start - self.start
        common = held_CTHW.shape[1] - kept
        if common and blends:
            head_CTHW = blended(held_CTHW[:, kept:], window_CTHW[:, :common])
            window_CTHW = torch.cat([head_CTHW, window_CTHW[:, common:]], dim=1)
        self.frames_CTHW = torch.cat([held_CTHW[:, :kept], window_CTHW], dim=1)
        return window_CTHW

    def release(self, end: int) -> torch.Tensor:
        """Give away the frames before `end`, which no later window may touch.

        Raises:
            ValueError: not all of them were written.
        """
        if self.frames_CTHW is None or end > self.end:
            raise ValueError(f"frames up to {end} are not written: run their windows first")
        count = end - self.start
        given_CTHW = self.frames_CTHW[:, :count].clone()
        self.start, self.frames_CTHW = end, self.frames_CTHW[:, count:].clone()
        return given_CTHW


def batch(
    noise_CTHW: torch.Tensor,
    num_steps: int,
    starts: Sequence[int],
    length: int,
    run: RunWindow,
    *,
    blend_first: bool = True,
) -> torch.Tensor:
    """All windows step by step over the whole clip; each step goes on from the blended latents.

    The released FlashPortrait loop, which does not blend at step 0, is `blend_first` false.
    """
    latents_CTHW = noise_CTHW
    for step in range(num_steps):
        written_CTHW, end = torch.empty_like(latents_CTHW), 0
        for start in starts:
            window_CLHW = run(step, start, latents_CTHW[:, start : start + length])
            common = max(0, end - start)
            if common and (step > 0 or blend_first):
                before_CTHW = written_CTHW[:, start:end]
                head_CTHW = blended(before_CTHW, window_CLHW[:, :common])
                window_CLHW = torch.cat([head_CTHW, window_CLHW[:, common:]], dim=1)
            end = start + length
            written_CTHW[:, start:end] = window_CLHW
        latents_CTHW = written_CTHW
    return latents_CTHW


def batch_causal(
    noise_CTHW: torch.Tensor,
    num_steps: int,
    starts: Sequence[int],
    length: int,
    run: RunWindow,
    *,
    blend_first: bool = True,
) -> torch.Tensor:
    """Window after window through all steps; each is blended into the one before, at every step.

    The earlier window is not told, so nothing has to wait for the next one. The last step blends
    as well: what is shown is its buffer.
    """
    buffers = [BlendBuffer() for _ in range(num_steps)]
    shown = []
    for start in starts:
        window_CLHW = noise_CTHW[:, start : start + length]
        for step, buffer in enumerate(buffers):
            window_CLHW = run(step, start, window_CLHW)
            blends = step > 0 or blend_first
            window_CLHW = buffer.write(start, window_CLHW, blends=blends)
            given_CTHW = buffer.release(_next_start(starts, start, length))
        shown.append(given_CTHW)
    return torch.cat(shown, dim=1)


def batch_shifted(
    noise_CTHW: torch.Tensor, bounds: Sequence[Sequence[tuple[int, int]]], run: RunWindow
) -> torch.Tensor:
    """Windows that do not overlap, cut elsewhere at every step: `bounds` of each, in order.

    Source: SpotDiffusion.
    """
    latents_CTHW = noise_CTHW
    for step, windows in enumerate(bounds):
        made = [run(step, start, latents_CTHW[:, start:end]) for start, end in windows]
        latents_CTHW = torch.cat(made, dim=1)
    return latents_CTHW


@dataclass(slots=True)
class _Line:
    """One step of the wavefront: frames that came in, and those written and not yet given on."""

    inputs_CTHW: torch.Tensor
    inputs_start: int = 0
    next_window: int = 0
    buffer: BlendBuffer = field(default_factory=BlendBuffer)

    def take(self, frames_CTHW: torch.Tensor) -> None:
        """Frames of the step before, next in order."""
        self.inputs_CTHW = torch.cat([self.inputs_CTHW, frames_CTHW], dim=1)

    def window(self, start: int, length: int) -> torch.Tensor | None:
        """The input of the window at `start`, None while a part of it is missing."""
        first = start - self.inputs_start
        if first + length > self.inputs_CTHW.shape[1]:
            return None
        self.inputs_CTHW, self.inputs_start = self.inputs_CTHW[:, first:], start
        return self.inputs_CTHW[:, :length]


def wavefront(
    noise_CTHW: torch.Tensor,
    num_steps: int,
    starts: Sequence[int],
    length: int,
    run: RunWindow,
    *,
    blend_first: bool = True,
) -> tuple[torch.Tensor, int]:
    """What `batch` gives, bit for bit, and the number of slots it took.

    In a slot every step runs one window if it has all of it. After window m a step gives on the
    frames before window m + 1, since nothing later can touch them, and none beyond.
    """
    empty_CTHW = noise_CTHW[:, :0]
    lines = [_Line(inputs_CTHW=empty_CTHW) for _ in range(num_steps)]
    lines[0].take(noise_CTHW)
    shown, slots = [], 0
    while lines[-1].next_window < len(starts):
        for step in reversed(range(num_steps)):  # what a slot gives is there in the next one
            given_CTHW = _one_window(lines[step], step, starts, length, run, blend_first)
            if given_CTHW is None:
                continue
            if step + 1 < num_steps:
                lines[step + 1].take(given_CTHW)
            else:
                shown.append(given_CTHW)
        slots += 1
    return torch.cat(shown, dim=1), slots


def _one_window(
    line: _Line,
    step: int,
    starts: Sequence[int],
    length: int,
    run: RunWindow,
    blend_first: bool,
) -> torch.Tensor | None:
    """Run a step's next window if it is there; the frames that are done with."""
    if line.next_window == len(starts):
        return None
    start = starts[line.next_window]
    window_CLHW = line.window(start, length)
    if window_CLHW is None:
        return None
    line.next_window += 1
    line.buffer.write(start, run(step, start, window_CLHW), blends=step > 0 or blend_first)
    return line.buffer.release(_next_start(starts, start, length))


def _next_start(starts: Sequence[int], start: int, length: int) -> int:
    """Where the next window begins, the end of the clip after the last one."""
    after = [other for other in starts if other > start]
    return after[0] if after else start + length
