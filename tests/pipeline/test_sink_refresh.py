"""Where the sink lies and what it shows: by the plan alone, however a session is run."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from audio.chunk import AudioChunk
from audio.source import ArraySource
from pipeline.chain import Chain, LocalChain
from pipeline.cuts import cut_at
from pipeline.decode_stage import DecodeStage
from pipeline.denoise_stage import DenoiseStage
from pipeline.generator import AvatarGenerator
from pipeline.model import Model, load_model
from pipeline.plan import Plan
from pipeline.plan_parse import load_plan
from pipeline.sink_rules import SinkDistance, SinkRefresh, distance_at
from pipeline.stage import ChunkWork, Stage
from pipeline.staged_chain import ChainSettings, StagedChain
from pipeline.thread_host import ThreadHost
from tests.support.small_chain import (
    PLAN,
    denoiser,
    local_chain,
    run,
    small_inputs,
    small_works,
)
from tests.support.tiny_model import SIZE_PX, build_tiny_model
from tests.support.toy_stages import same
from video.chunk import VideoChunk
from video.codec import renewed_reference

pytestmark = pytest.mark.stream

NUM_CHUNKS = 6
LAG = 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(str(build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")))


@pytest.fixture(scope="module")
def portrait() -> torch.Tensor:
    return torch.rand(1, 3, SIZE_PX, SIZE_PX, generator=torch.Generator().manual_seed(1)) * 2 - 1


def speech(num_chunks: int) -> list[AudioChunk]:
    rng = np.random.default_rng(2)
    samples_T = (0.1 * rng.standard_normal(num_chunks * 7680)).astype(np.float32)
    return list(ArraySource(samples_T, 16000).chunks())


def plan_of(refresh: SinkRefresh | None) -> Plan:
    return replace(load_plan("pocket"), sink_refresh=refresh)


FIRST = plan_of(SinkRefresh(lag=LAG))
CUTS: dict[int, list[int]] = {1: [], 2: [2], 4: [1, 2, 3]}


class Recipe:
    """A stage of the tiny model for a chain of threads; after the last comes the decoder."""

    def __init__(self, model: Model, plan: Plan, index: int) -> None:
        self._model, self._plan, self._index = model, plan, index
        self.name = f"tiny{index}"
        is_last = index == len(plan.stages)
        self.steps_done = 0 if is_last else plan.first_step(index + 1)

    def build(self) -> Stage[ChunkWork] | Stage[VideoChunk]:
        if self._index == len(self._plan.stages):
            return DecodeStage(self._model.codec)
        return DenoiseStage(self._model.denoiser(self._plan), self._plan, self._index)


@contextmanager
def opened(model: Model, plan: Plan, kind: str, folder: Path) -> Iterator[Chain]:
    schedule, num_stages = kind[:-1], int(kind[-1])
    cut = cut_at(plan, CUTS[num_stages])
    if schedule == "staged":
        settings = ChainSettings(pictures_per_chunk=12, transport="queue", checkpoint_chunks=2)
        recipes = [Recipe(model, cut, index) for index in range(num_stages + 1)]
        chain = StagedChain(ThreadHost(), recipes, folder / kind, settings)
        try:
            yield chain
        finally:
            chain.close()
    else:
        assert schedule in ("sequential", "pipelined", "lanes")
        yield model.local_chain(cut, schedule=schedule)  # type: ignore[arg-type]  # one of the three


def made_by(
    model: Model, plan: Plan, portrait: torch.Tensor, chain: Chain | None = None, seed: int = 0
) -> list[np.ndarray]:
    session = AvatarGenerator(
        model, plan, portrait, sample_rate=16000, seed=seed, chain=chain, session="a"
    )
    return [video.frames_THWC for video, _ in session.run(speech(NUM_CHUNKS))]


def apart(one: list[np.ndarray], other: list[np.ndarray]) -> int:
    pairs = zip(one, other, strict=True)
    return max(int(np.abs(a.astype(int) - b.astype(int)).max()) for a, b in pairs)


@pytest.mark.parametrize("kind", ["pipelined4", "lanes1", "staged2"])
def test_the_first_latent_is_shown_from_the_same_chunk_on_wherever_stages_run(
    model: Model, portrait: torch.Tensor, kind: str, tmp_path: Path
) -> None:
    """A lag of 3 is less than some chains have under way: they empty first, and nothing changes."""
    wanted = made_by(model, FIRST, portrait)
    with opened(model, FIRST, kind, tmp_path) as chain:
        made = made_by(model, FIRST, portrait, chain)
    assert apart(made, wanted) <= ("lanes" in kind)


def test_it_shows_from_its_chunk_on_and_not_before(model: Model, portrait: torch.Tensor) -> None:
    plain, refreshed = (made_by(model, plan, portrait) for plan in (plan_of(None), FIRST))
    changed = [bool((a != b).any()) for a, b in zip(plain, refreshed, strict=True)]
    assert changed == [index >= LAG for index in range(NUM_CHUNKS)]


def test_the_reference_is_the_first_latent_of_the_chunk(
    model: Model, portrait: torch.Tensor
) -> None:
    """Every second chunk is shown two chunks later; all others bring nothing."""
    plan = plan_of(SinkRefresh(every=2, lag=2))
    latents: list[torch.Tensor] = []
    brought: list[torch.Tensor | None] = []
    decode, process = DecodeStage.process, DenoiseStage.process

    def note_clean(stage: DecodeStage, work: ChunkWork) -> VideoChunk:
        latents.append(work.latent.latents_CTHW)
        return decode(stage, work)

    def note_brought(stage: DenoiseStage, work: ChunkWork) -> ChunkWork:
        brought.append(work.reference_BCTHW)
        return process(stage, work)

    with (
        mock.patch.object(DecodeStage, "process", note_clean),
        mock.patch.object(DenoiseStage, "process", note_brought),
    ):
        made_by(model, plan, portrait)
    for index, reference in enumerate(brought):
        if index < 2 or index % 2:
            assert reference is None
        else:
            assert reference is not None
            assert torch.equal(reference[0], latents[index - 2][:, :1])


@pytest.mark.parametrize("kind", ["lanes1", "staged4"])
def test_with_the_default_lag_no_chain_ever_waits(
    model: Model, portrait: torch.Tensor, kind: str, tmp_path: Path
) -> None:
    plan = plan_of(SinkRefresh())
    assert plan.sink_refresh is not None
    assert plan.sink_refresh.lag_of(len(plan.steps)) == NUM_CHUNKS + 2
    sound = speech(NUM_CHUNKS + 3)
    with opened(model, plan, kind, tmp_path) as chain:
        session = AvatarGenerator(model, plan, portrait, sample_rate=16000, chain=chain)
        with mock.patch.object(chain, "drain", side_effect=AssertionError("it emptied")):
            for chunk in sound:
                for _ in session.push(chunk):
                    pass
        session.close()


@pytest.mark.parametrize("at", [2, 4])
def test_a_session_moves_with_the_latents_that_wait_for_their_chunk(
    model: Model, portrait: torch.Tensor, at: int, tmp_path: Path
) -> None:
    plan = plan_of(SinkRefresh(every=2, lag=4))
    sound, wanted = speech(NUM_CHUNKS), made_by(model, plan, portrait)
    with (
        opened(model, plan, "pipelined2", tmp_path) as first,
        opened(model, plan, "sequential4", tmp_path) as second,
    ):
        old, new = (
            AvatarGenerator(model, plan, portrait, sample_rate=16000, chain=chain)
            for chain in (first, second)
        )
        cut = at * len(sound) // NUM_CHUNKS
        made = [video.frames_THWC for chunk in sound[:cut] for video, _ in old.push(chunk)]
        new.import_state(old.export_state())
        made += [video.frames_THWC for video, _ in new.run(sound[cut:])]
    assert apart(made, wanted) == 0


def test_a_codec_whose_references_are_no_latents_reads_its_picture() -> None:
    class Reads:
        def reference_of(self, image_BCHW: torch.Tensor) -> torch.Tensor:
            return 2 * image_BCHW[:, :, None]

    latents, frames = torch.rand(1, 4, 3, 2, 2), torch.rand(1, 3, 12, 8, 8)
    assert torch.equal(renewed_reference(object(), latents, frames), latents[:, :, :1])  # type: ignore[arg-type]  # any codec
    read = renewed_reference(Reads(), latents, frames)  # type: ignore[arg-type]  # what is asked of it
    assert torch.equal(read, 2 * frames[:, :, :1])


def test_rules_in_numbers() -> None:
    once, often = SinkRefresh(), SinkRefresh(every=3, lag=2)
    assert [c for c in range(30) if once.is_source(c)] == [0]
    assert [c for c in range(30) if once.source_of(c, 4) is not None] == [8]
    assert {c: often.source_of(c, 4) for c in range(10) if often.source_of(c, 4) is not None} == {
        2: 0, 5: 3, 8: 6,
    }  # fmt: skip
    for wrong in ({"every": 0}, {"lag": 0}, {"lag": -1}):
        with pytest.raises(ValueError, match="sink_refresh"):
            SinkRefresh(**wrong)


@pytest.mark.parametrize("distance", [(5, 4), (-1, 4), (0, 5000), -1])
def test_a_distance_that_is_none_is_refused(distance: SinkDistance) -> None:
    with pytest.raises(ValueError, match="sink_distance"):
        replace(PLAN, sink_distance=distance)


def test_a_range_of_distances_is_drawn_evenly_and_only_by_the_place_in_the_session() -> None:
    drawn = [distance_at((4, 30), 7, chunk, step) for chunk in range(675) for step in range(4)]
    counts = np.bincount(np.array(drawn), minlength=31)
    assert counts[:4].tolist() == [0, 0, 0, 0]
    assert counts[4:].min() > 60
    assert counts[4:].max() < 145  # a hundred of each, by chance
    assert drawn == [
        distance_at((4, 30), 7, chunk, step) for chunk in range(675) for step in range(4)
    ]
    assert drawn != [
        distance_at((4, 30), 8, chunk, step) for chunk in range(675) for step in range(4)
    ]
    assert distance_at(15, 7, 3, 2) == 15
    assert distance_at(None, 7, 3, 2) is None
    assert distance_at((9, 9), 7, 3, 2) == 9


def random_chain(num_stages: int, schedule: str) -> LocalChain:
    """The small chain with distances drawn for each step of each chunk."""
    random = replace(denoiser(), sink_distance=(4, 30))
    with mock.patch("tests.support.small_chain.denoiser", return_value=random):
        return local_chain(num_stages, schedule)  # type: ignore[arg-type]  # a schedule


@pytest.mark.parametrize("kind", ["pipelined2", "pipelined4", "lanes1"])
def test_drawn_distances_are_the_same_in_every_schedule(kind: str) -> None:
    inputs = small_inputs("a", 5)
    works = small_works(inputs, 12)
    wanted = run(random_chain(1, "sequential"), inputs, works)
    made = run(random_chain(int(kind[-1]), kind[:-1]), inputs, works)
    fixed = run(local_chain(1, "sequential"), inputs, works)
    # With the reference at 30 until a chunk comes near, the drawn ones differ once one does.
    assert not same(wanted, fixed)
    if kind.startswith("lanes"):
        frames = [[video.frames_THWC for video in videos] for videos in (made, wanted)]
        assert apart(*frames) <= 1
    else:
        assert same(made, wanted)
