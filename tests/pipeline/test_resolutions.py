"""Plans of several resolutions and short routes: one result wherever they run, counted as planned.

Shape legend: C = channels, T = frames, H, W = latent grid.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from unittest import mock

import pytest
import torch

from pipeline.chain import Chain, LocalChain, Schedule
from pipeline.cuts import cut_at
from pipeline.denoise_stage import DenoiseStage
from pipeline.plan import Plan, StageSpec, Step
from pipeline.route import ShortRoute
from pipeline.sampler import pure_noise
from pipeline.stage import ChunkWork
from pipeline.staged_chain import ChainSettings, StagedChain
from pipeline.step_cost import BatchProfile
from pipeline.thread_host import ThreadHost
from tests.support.small_chain import (
    CUTS,
    FRAMES,
    PlainCodec,
    SmallRecipe,
    denoiser,
    levels_apart,
    run,
    small_inputs,
    small_works,
)
from tests.support.toy_stages import same
from video.chunk import VideoChunk
from video.hinge import level_before, resized
from video.rope import LatentGrid, RopeKind, RopeScaling

pytestmark = pytest.mark.stream

NUM_CHUNKS = 6
SIZE = (8, 12)
INPUTS = small_inputs("a", 5, SIZE)


def plan_of(*steps: Step, rope: RopeKind = "ntk", short: ShortRoute | None = None) -> Plan:
    return Plan(name="p", stages=(StageSpec(name="all", steps=steps),), rope=rope, short=short)


EULER = (
    Step(sigma_in=1.0, sigma_out=0.88, resolution=0.5),
    Step(sigma_in=0.88, sigma_out=level_before(0.8, 2), resolution=0.5),
    Step(sigma_in=0.8, sigma_out=0.5),
    Step(sigma_in=0.5, sigma_out=0.0),
)
RENOISE = (
    Step(sigma_in=1.0, sigma_out=0.9, rule="renoise", resolution=0.5),
    Step(sigma_in=0.9, sigma_out=0.8, rule="renoise", resolution=0.5),
    Step(sigma_in=0.8, sigma_out=0.5, rule="renoise"),
    Step(sigma_in=0.5, sigma_out=0.0),
)
HIGH_LOW_HIGH = (
    Step(sigma_in=1.0, sigma_out=0.9),
    Step(sigma_in=level_before(0.9, 2), sigma_out=0.6, resolution=0.5),
    Step(sigma_in=0.75, sigma_out=0.3),
    Step(sigma_in=0.3, sigma_out=0.0),
)
PLANS = {
    "euler": plan_of(*EULER),
    "renoise": plan_of(*RENOISE, rope="positions"),
    "high-low-high": plan_of(*HIGH_LOW_HIGH, rope="native"),
    "short": plan_of(*EULER, short=ShortRoute(steps=(0, 2))),
    "short-late": plan_of(*RENOISE, short=ShortRoute(steps=(0, 2, 3), from_chunk=3)),
}
FAR = plan_of(*EULER, short=ShortRoute(steps=(0, 3), from_chunk=2))


def works_of(plan: Plan, num_chunks: int = NUM_CHUNKS) -> list[ChunkWork]:
    resolution = plan.steps[0].resolution
    return [
        replace(
            work,
            latent=pure_noise(
                INPUTS.seed,
                work.latent.index,
                work.latent.start_frame,
                resized(work.cond_CTHW, resolution),
            ),
        )
        for work in small_works(INPUTS, num_chunks)
    ]


def local(plan: Plan, num_stages: int, schedule: Schedule) -> LocalChain:
    cut = cut_at(plan, CUTS[num_stages])
    return LocalChain.from_plan(cut, denoiser(), PlainCodec(), schedule=schedule)  # type: ignore[arg-type]  # its state is its own kind


@contextmanager
def opened(plan: Plan, kind: str, folder: Path) -> Iterator[Chain]:
    """A chain by its kind and number of stages, such as pipelined2."""
    schedule, num_stages = kind[:-1], int(kind[-1])
    if schedule != "staged":
        schedules: dict[str, Schedule] = {"pipelined": "pipelined", "lanes": "lanes"}
        yield local(plan, num_stages, schedules.get(schedule, "sequential"))
        return
    cut = cut_at(plan, CUTS[num_stages])
    recipes = [SmallRecipe(plan=cut, index=index) for index in range(num_stages + 1)]
    folder.mkdir(parents=True, exist_ok=True)
    settings = ChainSettings(pictures_per_chunk=4 * FRAMES, transport="queue", checkpoint_chunks=2)
    chain = StagedChain(ThreadHost(), recipes, folder / kind, settings)
    try:
        yield chain
    finally:
        chain.close()


@cache
def expected(name: str) -> list[VideoChunk]:
    return run(local(PLANS[name], 1, "sequential"), INPUTS, works_of(PLANS[name]))


def agree(kind: str, made: list[VideoChunk], wanted: list[VideoChunk]) -> bool:
    return levels_apart(made, wanted) <= 1 if "lanes" in kind else same(made, wanted)


KINDS = ("sequential3", "pipelined1", "pipelined2", "pipelined4", "lanes1", "lanes4")
STAGED = [("staged2", "euler"), ("staged4", "short-late")]  # threads are not cheap: two will do


@pytest.mark.parametrize(("kind", "name"), [*((k, n) for k in KINDS for n in PLANS), *STAGED])
def test_every_placement_makes_the_same_pictures(kind: str, name: str, tmp_path: Path) -> None:
    with opened(PLANS[name], kind, tmp_path) as chain:
        made = run(chain, INPUTS, works_of(PLANS[name]))
    assert agree(kind, made, expected(name))


def test_every_plan_makes_pictures_of_its_own() -> None:
    frames = [expected(name)[-1].frames_THWC.tobytes() for name in PLANS]
    assert len(set(frames)) == len(PLANS)
    assert all(expected(name)[0].frames_THWC.shape[1:3] == SIZE for name in PLANS)


@pytest.mark.parametrize("at", [1, 4])
@pytest.mark.parametrize("name", ["euler", "short-late"])
@pytest.mark.parametrize(
    ("source", "target"),
    [("pipelined4", "sequential1"), ("lanes1", "pipelined2"), ("pipelined2", "lanes4")],
)
def test_a_session_moves_between_cuts_on_its_way(
    source: str, target: str, name: str, at: int, tmp_path: Path
) -> None:
    plan, works = PLANS[name], works_of(PLANS[name])
    with opened(plan, source, tmp_path) as first, opened(plan, target, tmp_path) as second:
        first.prepare(INPUTS)
        made = [video for work in works[:at] for video in first.submit(work)]
        second.prepare(INPUTS)
        second.import_state("a", first.export_state("a"))
        made += [video for work in works[at:] for video in second.submit(work)]
        made += second.drain("a")
    assert agree(source + target, made, expected(name))


@pytest.mark.parametrize("name", ["euler", "short", "far"])
def test_a_wave_of_lanes_holds_latents_of_two_grids(name: str) -> None:
    """Products of a wave round differently: latents agree to five digits.

    Chunks that leave steps out do not overtake those before them.
    """
    plan = FAR if name == "far" else PLANS[name]
    batch = BatchProfile(ratios=(1.0, 1.1, 1.2, 1.3))
    alone, together = (DenoiseStage(denoiser(), plan, 0, batch=batch) for _ in range(2))
    shapes: set[torch.Size] = set()
    network = denoiser().network
    stream = network.stream_lanes

    def note(x_BCTHW: torch.Tensor, *args: object, **options: object) -> torch.Tensor:
        shapes.add(x_BCTHW.shape)
        return stream(x_BCTHW, *args, **options)  # type: ignore[arg-type]  # as they came

    for stage in (alone, together):
        stage.prepare(INPUTS)
    wanted = [alone.process(work) for work in works_of(plan)]
    with mock.patch.object(network, "stream_lanes", note):
        made = together.process_many(works_of(plan))
    assert {(shape[0], shape[-2]) for shape in shapes} >= {(1, 4), (1, 8)}
    assert name != "euler" or {(shape[0], shape[-2]) for shape in shapes} >= {(2, 4), (2, 8)}
    for work, want in zip(made, wanted, strict=True):
        assert isinstance(work, ChunkWork)
        got, expect = work.latent.latents_CTHW, want.latent.latents_CTHW
        assert got.shape[-2:] == SIZE
        torch.testing.assert_close(got, expect, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["sequential1", "pipelined4", "lanes1"])
@pytest.mark.parametrize("name", PLANS)
def test_the_network_runs_as_often_as_the_plan_says(name: str, kind: str, tmp_path: Path) -> None:
    """The first chunk takes all steps, later ones the short route, from the very chunk on."""
    plan, network, ran = PLANS[name], denoiser().network, set[tuple[int, float]]()
    stream = network.stream_lanes

    def note(
        x_BCTHW: torch.Tensor,
        t_BF: torch.Tensor,
        heard: object,
        places: list[object],
        **rest: object,
    ) -> torch.Tensor:
        for t_F, place in zip(t_BF, places, strict=True):
            chunk = place.start_frame // FRAMES  # type: ignore[attr-defined]  # a lane's place
            assert (chunk, round(float(t_F[0]), 3)) not in ran, "no step runs twice"
            ran.add((chunk, round(float(t_F[0]), 3)))
        return stream(x_BCTHW, t_BF, heard, places, **rest)  # type: ignore[arg-type]  # as they came

    with opened(plan, kind, tmp_path) as chain, mock.patch.object(network, "stream_lanes", note):
        run(chain, INPUTS, works_of(plan))
        assert isinstance(chain, LocalChain)
        num = chain.num_evaluations("a")
    planned = {
        (chunk, round(1000 * leg.step.sigma_in, 3))
        for chunk in range(NUM_CHUNKS)
        for leg in plan.legs(chunk)
    }
    assert ran == planned
    assert num == len(planned)


COUNTS = {"euler": 24, "renoise": 24, "high-low-high": 24, "short": 4 + 5 * 2, "short-late": 12 + 9}


def test_counts_in_numbers() -> None:
    assert {n: sum(len(p.legs(c)) for c in range(NUM_CHUNKS)) for n, p in PLANS.items()} == COUNTS


def test_each_resolution_has_its_sink_and_each_step_its_ring() -> None:
    chain = local(PLANS["euler"], 2, "sequential")
    run(chain, INPUTS, works_of(PLANS["euler"], 5))
    stages = [stage for stage in chain._denoise_stages if isinstance(stage, DenoiseStage)]
    lanes = [lane for stage in stages for lane in stage._sessions["a"].lanes]
    grids = [lane.sink.sink.grid for lane in lanes]
    low = LatentGrid(height=4, width=6, scaling=RopeScaling(kind="ntk", stretch=2.0))
    assert grids == [low, low, LatentGrid(height=8, width=12), LatentGrid(height=8, width=12)]
    assert lanes[0].sink is lanes[1].sink
    assert lanes[2].sink is lanes[3].sink
    rows = [lane.cache.ring_keys(0).shape[1] for lane in lanes]
    assert rows == [12 * 6, 12 * 6, 12 * 24, 12 * 24]


@pytest.mark.parametrize("name", ["euler", "renoise"])
def test_a_chunk_lies_at_its_number_modulo_the_ring_and_may_come_twice(name: str) -> None:
    """In every step, at both resolutions; the ring holds four chunks."""
    stage, twin = (DenoiseStage(denoiser(), PLANS[name], 0) for _ in range(2))
    for each in (stage, twin):
        each.prepare(INPUTS)
    for work in works_of(PLANS[name]):
        now, once = work, work
        while not stage.is_through(now):
            (first,), (now,) = stage.advance([now]), stage.advance([now])
            (once,) = twin.advance([once])
            assert torch.equal(now.latent.latents_CTHW, first.latent.latents_CTHW)
            assert torch.equal(now.latent.latents_CTHW, once.latent.latents_CTHW)
        for lane in stage._sessions["a"].lanes:
            index = lane.cache.index
            assert index.slot(work.latent.start_frame) == work.latent.index % 4 * FRAMES
            assert index.latest_start == work.latent.start_frame
    ours, theirs = stage.export_state("a").tensors, twin.export_state("a").tensors
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())


def test_a_low_ring_under_another_scaling_is_refused() -> None:
    """A ring holds turned keys: they are of no use to a plan that turns them otherwise."""
    works = works_of(PLANS["euler"], 3)
    first = local(PLANS["euler"], 1, "sequential")
    first.prepare(INPUTS)
    for work in works[:2]:
        first.submit(work)
    other = local(replace(PLANS["euler"], rope="positions"), 1, "sequential")
    other.prepare(INPUTS)
    other.import_state("a", first.export_state("a"))
    with pytest.raises(ValueError, match="filled under"):
        other.submit(works[2])


def test_a_portrait_whose_latents_have_no_half_is_refused() -> None:
    chain = local(PLANS["euler"], 1, "sequential")
    with pytest.raises(ValueError, match="no blocks of 2"):
        chain.prepare(small_inputs("odd", 5, (8, 9)))
