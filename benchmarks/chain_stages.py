"""Stages for measuring the chain itself: they sleep, do nothing, or do what several stages do.

They live in a module of their own because the actors of a chain import them by name.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from pipeline.recipe import Recipe
from pipeline.session_state import SessionState
from pipeline.stage import ChunkWork, SessionInputs, Stage
from video.chunk import LatentChunk, VideoChunk

FPS = Fraction(25)
SLOWEST_S = 0.05
FASTEST_S = 0.01


def sleep_until_s(moment_s: float) -> None:
    """Return at that moment of the clock `perf_counter`, not a timer's slack later."""
    while (left_s := moment_s - time.perf_counter()) > 0:
        time.sleep(max(left_s - 60e-6, 0.0))


class SleepStage:
    """Takes so long for each chunk without computing, and hands it on as it came."""

    def __init__(self, sleep_s: float) -> None:
        """Sleep `sleep_s` for each chunk, 0 for not at all."""
        self._sleep_s = sleep_s

    def prepare(self, inputs: SessionInputs) -> None:
        """Nothing of a session is known."""

    def process(self, work: ChunkWork) -> ChunkWork:
        """The chunk as it came, a while later."""
        if self._sleep_s:
            sleep_until_s(time.perf_counter() + self._sleep_s)
        return work

    def reset(self, session: str) -> None:
        """Nothing was kept."""

    def memory_bytes(self, session: str) -> int:
        """A session takes nothing."""
        del session
        return 0

    def export_state(self, session: str) -> SessionState:
        """No state: the chain still keeps the chunks under way."""
        del session
        return SessionState()

    def import_state(self, session: str, state: SessionState) -> None:
        """Nothing to go on from."""

    def close(self) -> None:
        """Nothing was kept."""


class ShowStage(SleepStage):
    """The end of a chain without a decoder: shows the latents' bytes, or grey of a given size."""

    def __init__(self, sleep_s: float, shape_THWC: tuple[int, ...] | None) -> None:
        """Make pictures of `shape_THWC`; None makes one of the latents' bytes."""
        super().__init__(sleep_s)
        self._grey = None if shape_THWC is None else np.full(shape_THWC, 127, np.uint8)

    def process(self, work: ChunkWork) -> VideoChunk:  # type: ignore[override]  # the last stage
        """The pictures, a while later."""
        work = super().process(work)
        frames_THWC = self._grey
        if frames_THWC is None:
            values = work.latent.latents_CTHW.contiguous().view(torch.uint8).numpy().reshape(-1)
            frames_THWC = np.resize(values, (1, -(-values.size // 3), 1, 3))
        return VideoChunk(frames_THWC=frames_THWC, pts=work.latent.index, time_base=1 / FPS)


@dataclass(frozen=True, slots=True, kw_only=True)
class SleepRecipe:
    """A stage that takes `sleep_s` a chunk; the one that `shows` ends the chain."""

    index: int
    sleep_s: float = 0.0
    shows: bool = False
    shape_THWC: tuple[int, ...] | None = None

    @property
    def name(self) -> str:
        """Its place."""
        return f"sleep{self.index}"

    @property
    def steps_done(self) -> int:
        """As if it were one step."""
        return self.index + 1

    def build(self) -> Stage[Any]:
        """The stage."""
        if self.shows:
            return ShowStage(self.sleep_s, self.shape_THWC)
        return SleepStage(self.sleep_s)


class JoinedStage:
    """Several stages in one place, one after the other for each chunk.

    Their states go by different names, as those of steps and decoders do.
    """

    def __init__(self, stages: Sequence[Stage[Any]]) -> None:
        """Own the stages, in order."""
        self._stages = tuple(stages)

    def prepare(self, inputs: SessionInputs) -> None:
        """Open the session in all."""
        for stage in self._stages:
            stage.prepare(inputs)

    def process(self, work: ChunkWork) -> Any:
        """What the last one makes of what the others made."""
        made: Any = work
        for stage in self._stages:
            made = stage.process(made)
        return made

    def reset(self, session: str) -> None:
        """Forget the session in all."""
        for stage in self._stages:
            stage.reset(session)

    def memory_bytes(self, session: str) -> int:
        """What the session takes in all of them."""
        return sum(stage.memory_bytes(session) for stage in self._stages)

    def export_state(self, session: str) -> SessionState:
        """The states of all, side by side."""
        whole = SessionState()
        for stage in self._stages:
            state = stage.export_state(session)
            whole.tensors.update(state.tensors)
            whole.numbers.update(state.numbers)
        return whole

    def import_state(self, session: str, state: SessionState) -> None:
        """Have each take its own out of it."""
        for stage in self._stages:
            stage.import_state(session, state)

    def close(self) -> None:
        """Close all."""
        for stage in self._stages:
            stage.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinedRecipe:
    """Several recipes for one actor."""

    parts: tuple[Recipe, ...]

    @property
    def name(self) -> str:
        """All names."""
        return "+".join(part.name for part in self.parts)

    @property
    def steps_done(self) -> int:
        """Steps behind what leaves the last part that makes latents."""
        return max(part.steps_done for part in self.parts)

    def build(self) -> JoinedStage:
        """All stages."""
        return JoinedStage([part.build() for part in self.parts])


def sleep_recipes(sleeps_s: list[float], shape_THWC: tuple[int, ...] | None) -> list[SleepRecipe]:
    """A chain of one actor for each sleep; the last one shows pictures of that shape."""
    last = len(sleeps_s) - 1
    return [
        SleepRecipe(
            index=index,
            sleep_s=sleep_s,
            shows=index == last,
            shape_THWC=shape_THWC if index == last else None,
        )
        for index, sleep_s in enumerate(sleeps_s)
    ]


def sleeps_s(
    num_stages: int, fastest_s: float = FASTEST_S, slowest_s: float = SLOWEST_S
) -> list[float]:
    """One sleep per stage between the fastest and the slowest, the slowest in the middle."""
    step_s = (slowest_s - fastest_s) / max(num_stages - 1, 1)
    rising = [slowest_s - step_s * index for index in range(num_stages)]
    return rising[1::2][::-1] + rising[::2]


def blank_inputs(session: str, size_px: int) -> SessionInputs:
    """A session that shows a black square."""
    return SessionInputs(
        session=session,
        seed=0,
        fps=FPS,
        image_BCHW=torch.zeros(1, 3, size_px, size_px),
        reference_BCTHW=torch.zeros(1, 1, 1, 1, 1),
    )


def blank_work(session: str, num_bytes: int) -> ChunkWork:
    """Chunk 0 of latents of `num_bytes`, half of them the prior's, as a pocket chunk has it."""
    latents_CTHW = torch.zeros(1, 1, 1, num_bytes // 8)
    latent = LatentChunk(latents_CTHW=latents_CTHW, index=0, start_frame=0, sigma=1.0)
    return ChunkWork(
        session=session,
        latent=latent,
        audio_LCT=torch.zeros(1, 1, 1),
        cond_CTHW=torch.zeros_like(latents_CTHW),
    )


def numbered(work: ChunkWork, index: int) -> ChunkWork:
    """The same work as another chunk."""
    return replace(work, latent=replace(work.latent, index=index, start_frame=3 * index))
