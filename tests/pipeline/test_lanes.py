"""Every placement of one plan makes the same pictures: lanes, cuts, sessions, moves, references."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.chain import Chain, LocalChain, Schedule
from pipeline.denoise_stage import DenoiseStage
from pipeline.session_state import SessionState
from pipeline.stage import ChunkWork
from pipeline.staged_chain import ChainSettings, StagedChain
from pipeline.step_cost import BatchProfile
from pipeline.thread_host import ThreadHost
from tests.support.small_chain import (
    FRAMES,
    PLAN,
    cut,
    decode_stage,
    denoise_stage,
    denoiser,
    levels_apart,
    local_chain,
    run,
    small_inputs,
    small_recipes,
    small_works,
    with_reference,
)
from tests.support.toy_stages import same
from video.chunk import VideoChunk
from video.dit import SpeechToVideoDiT

pytestmark = pytest.mark.stream

NUM_CHUNKS = 7  # the rings hold four
SWITCH = 3
LATENT_LIMIT = 1e-5
# A latent 1e-5 off can lie on the other side of a rounding edge of 8 bits.
LEVELS = 1
BATCH = BatchProfile(ratios=(1.0, 1.1, 1.2, 1.3))
INPUTS = small_inputs("a", 5)
OTHER = small_inputs("b", 6)


def works_of(num_chunks: int = NUM_CHUNKS) -> list[ChunkWork]:
    return with_reference(small_works(INPUTS, num_chunks), SWITCH, 17)


@cache
def expected() -> list[VideoChunk]:
    """One process, one chunk after the other; the reference changes at chunk 3."""
    return run(local_chain(1, "sequential"), INPUTS, works_of())


@contextmanager
def staged(
    folder: Path, num_stages: int, batch: BatchProfile | None = None
) -> Iterator[StagedChain]:
    folder.mkdir(parents=True)
    settings = ChainSettings(pictures_per_chunk=4 * FRAMES, transport="queue", checkpoint_chunks=2)
    chain = StagedChain(ThreadHost(), small_recipes(num_stages, batch), folder, settings)
    try:
        yield chain
    finally:
        chain.close()


@contextmanager
def opened(kind: str, folder: Path) -> Iterator[Chain]:
    """A chain by its kind and number of stages, such as pipelined2."""
    schedule, num_stages = kind[:-1], int(kind[-1])
    if schedule == "staged":
        with staged(folder / kind, num_stages) as chain:
            yield chain
        return
    schedules: dict[str, Schedule] = {
        "sequential": "sequential", "pipelined": "pipelined", "lanes": "lanes",
    }  # fmt: skip
    yield local_chain(num_stages, schedules[schedule])


def agree(kind: str, made: Sequence[VideoChunk], wanted: Sequence[VideoChunk]) -> bool:
    """Bit for bit where the arithmetic is the same, to a level where it is batched."""
    return levels_apart(made, wanted) <= LEVELS if "lanes" in kind else same([*made], [*wanted])


KINDS = ("pipelined1", "pipelined3", "lanes1", "lanes4", "staged1", "staged2", "staged4")


@pytest.mark.parametrize("kind", KINDS)
def test_every_placement_makes_the_same_pictures(kind: str, tmp_path: Path) -> None:
    """The reference is replaced on the way, in every step at the same chunk."""
    with opened(kind, tmp_path) as chain:
        assert agree(kind, run(chain, INPUTS, works_of()), expected())


def test_a_reference_shows_from_its_chunk_on_and_not_before() -> None:
    before = run(local_chain(1, "sequential"), INPUTS, small_works(INPUTS, NUM_CHUNKS))
    assert same(before[:SWITCH], expected()[:SWITCH])
    pairs = zip(before[SWITCH:], expected()[SWITCH:], strict=True)
    assert all((a.frames_THWC != b.frames_THWC).any() for a, b in pairs)


@pytest.mark.parametrize("schedule", ["sequential", "pipelined", "lanes"])
def test_every_step_changes_its_sink_at_the_chunk_that_brings_the_reference(
    schedule: Schedule,
) -> None:
    seen: dict[tuple[int, int], list[int]] = {}
    network = denoiser().network

    def note(*args: object, **options: object) -> torch.Tensor:
        _, t_BF, _, places = args
        for t_F, place in zip(t_BF, places, strict=True):  # type: ignore[call-overload]  # tensors
            step = [1000.0, 800.0, 500.0, 200.0].index(round(float(t_F[0]), 3))
            seen.setdefault((step, place.start_frame // FRAMES), []).append(id(place.sink))
        return stream(*args, **options)  # type: ignore[arg-type]  # as they came

    stream = network.stream_lanes
    with mock.patch.object(network, "stream_lanes", note):
        run(local_chain(4, schedule), INPUTS, works_of(6))
    sinks = {key: ids for key, ids in seen.items() if len(ids) == 1}
    assert set(sinks) == {(step, chunk) for step in range(4) for chunk in range(6)}
    old, new = sinks[0, SWITCH - 1], sinks[0, SWITCH]
    assert old != new
    assert all(ids == (old if chunk < SWITCH else new) for (_, chunk), ids in sinks.items())


def test_lanes_are_one_pass_for_each_chunk_however_the_plan_is_cut() -> None:
    network, sizes = denoiser().network, []
    stream = SpeechToVideoDiT.stream_lanes

    def count(x_BCTHW: torch.Tensor, *args: object, **options: object) -> torch.Tensor:
        sizes.append(len(x_BCTHW))
        return stream(network, x_BCTHW, *args, **options)  # type: ignore[arg-type]  # as they came

    chain = local_chain(4, "lanes")
    with mock.patch.object(network, "stream_lanes", count):
        chain.prepare(INPUTS)
        given = [len(chain.submit(work)) for work in works_of(6)]
        assert sizes == [1, 2, 3, 4, 4, 4]
        assert given == [0, 0, 0, 0, 1, 1]
        assert len(chain.drain("a")) == 4
    assert sizes[6:] == [3, 2, 1]


def test_latents_of_lanes_are_those_of_single_chunks_to_five_digits() -> None:
    """Two sessions of two sizes, three chunks of one: a wave of mixed steps."""
    for other in (OTHER, small_inputs("b", 6, (8, 4))):
        stages = {name: denoise_stage(PLAN, 0, BATCH) for name in ("alone", "together")}
        for stage in stages.values():
            stage.prepare(INPUTS)
            stage.prepare(other)
        pairs = zip(small_works(INPUTS, 4), small_works(other, 4), strict=True)
        order = [work for pair in pairs for work in pair]
        for batch in (order[:2], order[2:]):
            made = stages["together"].process_many(batch)
            wanted = [stages["alone"].process(work) for work in batch]
            for work, want in zip(made, wanted, strict=True):
                assert isinstance(work, ChunkWork)
                assert work.latent.sigma == 0.0
                torch.testing.assert_close(
                    work.latent.latents_CTHW, want.latent.latents_CTHW,
                    atol=LATENT_LIMIT, rtol=LATENT_LIMIT,
                )  # fmt: skip


def test_one_session_that_fails_in_a_batch_fails_alone() -> None:
    stage, twin = denoise_stage(PLAN, 0, BATCH), denoise_stage(PLAN, 0)
    works = {inputs.session: small_works(inputs, 3) for inputs in (INPUTS, OTHER)}
    for each in (stage, twin):
        each.prepare(INPUTS)
        each.prepare(OTHER)
        each.process(works["a"][0])
        each.process(works["b"][0])
    strange = replace(works["b"][1], audio_LCT=torch.zeros(1, 1, 12))
    made = stage.process_many([works["a"][1], strange, works["a"][2], works["b"][2]])
    assert [isinstance(one, ValueError) for one in made] == [False, True, False, True]
    for one, work in zip((made[0], made[2]), works["a"][1:], strict=True):
        want = twin.process(work).latent.latents_CTHW
        assert isinstance(one, ChunkWork)
        torch.testing.assert_close(one.latent.latents_CTHW, want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["pipelined4", "lanes1", "staged2", "batched2"])
def test_two_sessions_interleaved_equal_each_alone(kind: str, tmp_path: Path) -> None:
    alone = {
        inputs.session: run(local_chain(1, "sequential"), inputs, small_works(inputs, NUM_CHUNKS))
        for inputs in (INPUTS, OTHER)
    }
    made: dict[str, list[VideoChunk]] = {"a": [], "b": []}

    def feed(chain: Chain) -> None:
        for inputs in (INPUTS, OTHER):
            chain.prepare(inputs)
        queues = [small_works(inputs, NUM_CHUNKS) for inputs in (INPUTS, OTHER)]
        for pair in zip(*queues, strict=True):
            for work in pair:
                made[work.session] += chain.submit(work)
        for name in ("b", "a"):
            made[name] += chain.drain(name)

    if kind == "batched2":
        with staged(tmp_path / kind, 2, BATCH) as batched:
            feed(batched)
    else:
        with opened(kind, tmp_path) as chain:
            feed(chain)
    for name, wanted in alone.items():
        assert agree(kind.replace("batched", "lanes"), made[name], wanted)


MOVES = tuple(pairwise(
    ("sequential1", "pipelined3", "staged2", "lanes4", "pipelined4", "sequential2", "lanes1",
     "staged4", "staged1", "pipelined2", "sequential1")
))  # fmt: skip


@pytest.mark.parametrize(
    ("source", "target", "at"), [(*move, 1 if i % 3 == 1 else 5) for i, move in enumerate(MOVES)]
)
def test_a_session_goes_from_any_chain_to_any_of_other_cuts(
    source: str, target: str, at: int, tmp_path: Path
) -> None:
    """Before and after the reference changed; chunks under way go along."""
    works = works_of()
    with opened(source, tmp_path / "from") as first:
        first.prepare(INPUTS)
        made = [video for work in works[:at] for video in first.submit(work)]
        state = through_a_file(first.export_state("a"), tmp_path / "state.safetensors")
        first.submit(works[at])  # what happens here later must not reach the twin
        first.reset("a")
    with opened(target, tmp_path / "to") as second:
        second.prepare(INPUTS)
        second.import_state("a", state)
        made += [video for work in works[at:] for video in second.submit(work)]
        made += second.drain("a")
    assert agree(source + target, made, expected())


def through_a_file(state: SessionState, path: Path) -> SessionState:
    save_file(state.tensors, path)
    return SessionState(tensors=load_file(path), numbers=state.numbers)


def test_a_state_of_another_plan_or_of_no_chain_is_refused() -> None:
    chain = local_chain(1, "sequential")
    run(chain, INPUTS, works_of(4))
    state = chain.export_state("a")
    lacking = state.only({name.split("/")[0] for name in state.numbers} - {"step2"})
    with pytest.raises(ValueError, match="nothing of step 2"):
        chain.import_state("a", lacking)
    with pytest.raises(ValueError, match="not of a chain"):
        chain.import_state("a", state.part("step1"))
    with pytest.raises(ValueError, match="two parts"):
        SessionState.joined([state, state])


def test_a_stage_that_dies_after_the_reference_changed_knows_the_new_one(tmp_path: Path) -> None:
    works = works_of(12)
    wanted = run(local_chain(1, "sequential"), INPUTS, works)
    threads = threading.active_count()
    with staged(tmp_path / "chain", 2) as chain:
        chain.prepare(INPUTS)
        made = []
        for index, work in enumerate(works):
            if index in (SWITCH + 1, 8):
                chain.controller.kill(index % 2)
            made += chain.submit(work)
        made += chain.drain("a")
    assert same(made, wanted)
    assert threading.active_count() == threads


def stages_of(num_stages: int) -> tuple[LocalChain, list[DenoiseStage]]:
    chain = local_chain(num_stages, "pipelined")
    stages = [stage for stage in chain._denoise_stages if isinstance(stage, DenoiseStage)]
    return chain, stages


def test_a_sink_is_filled_once_and_stays_until_its_last_holder_leaves() -> None:
    network = denoiser().network
    chain, stages = stages_of(4)
    store = stages[0]._sinks
    twin = replace(OTHER, reference_BCTHW=INPUTS.reference_BCTHW.clone())  # the same portrait
    with mock.patch.object(network, "prefill_sink", wraps=network.prefill_sink) as prefill:
        chain.prepare(INPUTS)
        chain.prepare(twin)
        assert prefill.call_count == len(store) == 1
        stages[0].reset("a")
        stages[1].process(at_step(small_works(INPUTS, 1)[0], 1))  # still there
        chain.reset("a")
        assert len(store) == 1
        for index, work in enumerate(with_reference(small_works(twin, 6), 1, 9)):
            chain.submit(work)
            assert len(store) == (1 if index in (0, 4, 5) else 2)  # chunk 1 passes four steps
        assert prefill.call_count == 2
        chain.prepare(INPUTS)
        assert prefill.call_count == 3
        chain.close()
    assert len(store) == 0


def at_step(work: ChunkWork, step: int) -> ChunkWork:
    sigma = PLAN.steps[step].sigma_in
    return replace(work, latent=replace(work.latent, sigma=sigma, step=step))


def test_memory_is_that_of_rings_and_sinks_and_is_given_back() -> None:
    chain, stages = stages_of(2)
    assert chain.memory_bytes("a") == 0
    chain.prepare(INPUTS)
    sink = stages[0]._sessions["a"].lanes[0].sink.sink
    # Two layers of keys and values: 6 tokens of the reference, 24 channels of 4 bytes.
    assert sink.num_bytes == 2 * 2 * 6 * 24 * 4
    decoder = 4 * 4 * 6 * 4
    assert chain.memory_bytes("a") == sink.num_bytes + decoder
    for work in works_of(5):
        chain.submit(work)
    lane = 2 * 2 * (6 + 12 * 6) * 24 * 4
    chain.drain("a")
    assert sum(stage.memory_bytes("a") for stage in stages) == 4 * lane + sink.num_bytes
    chain.prepare(replace(OTHER, reference_BCTHW=works_of()[SWITCH].reference_BCTHW))  # type: ignore[arg-type]  # there is one
    assert sum(stage.memory_bytes("a") for stage in stages) == 4 * lane + sink.num_bytes // 2
    chain.reset("a")
    assert chain.memory_bytes("a") == 0


def test_the_pictures_of_an_odd_cut_on_the_stage_itself_are_those_of_the_whole() -> None:
    """A chunk that has steps behind it passes stages that only had those."""
    plan = cut(4)
    stages = [denoise_stage(plan, index) for index in range(4)]
    decode = decode_stage()
    decode.prepare(INPUTS)
    for stage in stages:
        stage.prepare(INPUTS)
    works = small_works(INPUTS, 3)
    for work in works:
        done = stages[0].process(work)
        assert stages[0].process(done) is done
        for stage in stages[1:]:
            done = stage.process(done)
        assert decode.process(done).pts == work.latent.start_frame * 4
    with pytest.raises(ValueError, match="in turn"):
        stages[0].advance([works[2], works[2]])
