"""Stages that cost nothing and forget nothing: whatever is lost, doubled or swapped shows at once.

What a toy makes of a chunk depends on every chunk before it, exactly.
"""

import hashlib
import time
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch

from pipeline.chain import LocalChain
from pipeline.errors import ModelError
from pipeline.session_state import SessionState
from pipeline.stage import ChunkWork, SessionInputs
from video.chunk import LatentChunk, VideoChunk

SIDE_PX = 16
PICTURES = 4


class ToyStage:
    """Adds a decaying memory of all its inputs, and its session's seed, to each chunk."""

    def __init__(self, recipe: "ToyRecipe") -> None:
        self._recipe, self._name = recipe, f"step{recipe.index}"
        self._memory: dict[str, torch.Tensor] = {}

    def prepare(self, inputs: SessionInputs) -> None:
        if inputs.seed == self._recipe.unwanted_seed:
            raise ModelError("this seed is not wanted")
        self._memory[inputs.session] = torch.full((1,), float(inputs.seed))

    def process(self, work: ChunkWork) -> ChunkWork:
        time.sleep(self._recipe.sleep_s)
        if (work.session, work.latent.index) == self._recipe.fails_at:
            raise ModelError(f"chunk {work.latent.index} cannot be made")
        latents_CTHW = work.latent.latents_CTHW
        memory = 0.75 * self._memory[work.session] + latents_CTHW
        self._memory[work.session] = memory
        latent = replace(work.latent, latents_CTHW=latents_CTHW + memory)
        return replace(work, latent=latent)

    def reset(self, session: str) -> None:
        self._memory.pop(session, None)

    def memory_bytes(self, session: str) -> int:
        return 4 if session in self._memory else 0

    def export_state(self, session: str) -> SessionState:
        return SessionState.of({self._name: {"memory": self._memory[session]}})

    def import_state(self, session: str, state: SessionState) -> None:
        self._memory[session] = state.part(self._name).tensors["memory"].clone()

    def close(self) -> None:
        self._memory.clear()


class ToyDecoder:
    """Shows the latents' bits as pictures, beside the number of pictures shown before."""

    def __init__(self, recipe: "ToyRecipe") -> None:
        self._recipe = recipe
        self._shown: dict[str, int] = {}

    def prepare(self, inputs: SessionInputs) -> None:
        self._shown[inputs.session] = 0

    def process(self, work: ChunkWork) -> VideoChunk:
        time.sleep(self._recipe.sleep_s)
        shown = self._shown[work.session]
        self._shown[work.session] = shown + PICTURES
        frames = np.full((PICTURES, SIDE_PX, SIDE_PX, 3), shown % 251, np.uint8)
        bits = work.latent.latents_CTHW.contiguous().view(torch.uint8).numpy().reshape(-1)
        if bits.size > frames.size:
            bits = np.frombuffer(hashlib.sha256(bits.tobytes()).digest(), np.uint8)
        frames.reshape(-1)[: bits.size] = bits
        return VideoChunk(frames_THWC=frames, pts=shown, time_base=Fraction(1, 25))

    def reset(self, session: str) -> None:
        self._shown.pop(session, None)

    def memory_bytes(self, session: str) -> int:
        return 8 if session in self._shown else 0

    def export_state(self, session: str) -> SessionState:
        return SessionState.of({"decoder": SessionState(numbers={"shown": self._shown[session]})})

    def import_state(self, session: str, state: SessionState) -> None:
        self._shown[session] = state.part("decoder").numbers["shown"]

    def close(self) -> None:
        self._shown.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyRecipe:
    """A toy at one position of a chain; the last one decodes."""

    index: int
    is_decoder: bool = False
    sleep_s: float = 0.0
    fails_at: tuple[str, int] | None = None
    unwanted_seed: int = -1
    cannot_be_built: bool = False

    @property
    def name(self) -> str:
        return f"toy{self.index}"

    @property
    def steps_done(self) -> int:
        return self.index + 1

    def build(self) -> ToyStage | ToyDecoder:
        if self.cannot_be_built:
            raise ModelError("this toy is broken")
        return ToyDecoder(self) if self.is_decoder else ToyStage(self)


def toy_recipes(num_stages: int, **options: float) -> list[ToyRecipe]:
    """So many stages and a decoder; `options` are those of every one of them."""
    stages = [ToyRecipe(index=index, **options) for index in range(num_stages)]  # type: ignore[arg-type]  # any of its fields
    return [*stages, ToyRecipe(index=num_stages, is_decoder=True)]


def toy_inputs(session: str, seed: int = 1) -> SessionInputs:
    image = torch.zeros(1, 3, SIDE_PX, SIDE_PX)
    reference = torch.zeros(1, 2, 1, 2, 2)
    return SessionInputs(
        session=session, seed=seed, fps=Fraction(25), image_BCHW=image, reference_BCTHW=reference
    )


def toy_works(session: str, num_chunks: int, seed: int = 1, side: int = 2) -> list[ChunkWork]:
    """Chunks of noise; `side` is that of the latents: 64 makes them 100 kB large."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for index in range(num_chunks):
        latents = torch.randn(2, 3, side, side, generator=generator)
        latent = LatentChunk(latents_CTHW=latents, index=index, start_frame=3 * index, sigma=1.0)
        audio, cond = torch.zeros(1, 1, 12), torch.zeros(2, 3, side, side)
        made.append(ChunkWork(session=session, latent=latent, audio_LCT=audio, cond_CTHW=cond))
    return made


def toy_pictures(
    num_stages: int, session: str, num_chunks: int, seed: int = 1, side: int = 2
) -> list[VideoChunk]:
    """What a chain of toys makes when nothing happens to it."""
    *stages, decoder = (recipe.build() for recipe in toy_recipes(num_stages))
    chain = LocalChain(stages, decoder)  # type: ignore[arg-type]  # toys, the last one decodes
    chain.prepare(toy_inputs(session, seed))
    return [v for work in toy_works(session, num_chunks, seed, side) for v in chain.submit(work)]


def same(made: list[VideoChunk], expected: list[VideoChunk]) -> bool:
    """Whether two runs are the same pictures at the same times."""
    pairs = zip(made, expected, strict=True)
    return all(
        np.array_equal(a.frames_THWC, b.frames_THWC)
        and (a.pts, a.time_base) == (b.pts, b.time_base)
        for a, b in pairs
    )
