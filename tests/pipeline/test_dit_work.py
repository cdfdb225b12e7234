"""What a network computes and remembers, against the network itself and the published figures."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline.catalog import configs_folder
from pipeline.dit_work import sink_flops, step_works
from pipeline.model import ModelConfig
from pipeline.model_work import chain_work
from pipeline.plan import Plan, StageSpec, Step
from pipeline.plan_parse import load_plan, parse_plan
from pipeline.route import ShortRoute
from video.dit import SpeechToVideoDiT
from video.dit_config import DiTConfig
from video.kv_cache import Sink

pytestmark = pytest.mark.unit

ROWS, COLUMNS = 8, 12
CONFIG = DiTConfig(
    dim=48, ffn_dim=80, num_heads=4, num_layers=3, in_dim=4, out_dim=4, cond_dim=4, text_dim=24,
    text_len=16, freq_dim=16, audio_dim=10, num_audio_layers=1, audio_inject_layers=(0, 2),
    enable_framepack=True, audio_context="reset",
)  # fmt: skip
PLAN = Plan(
    name="two",
    stages=(
        StageSpec(
            name="all",
            steps=(
                Step(sigma_in=1.0, sigma_out=0.5, resolution=0.5, rule="renoise"),
                Step(sigma_in=0.5, sigma_out=0.0),
            ),
        ),
    ),
)


def filled() -> tuple[SpeechToVideoDiT, Sink]:
    """A network without memory, and its sink."""
    with torch.device("meta"):
        network = SpeechToVideoDiT(CONFIG)
        latents = torch.zeros(1, 4, 19, ROWS, COLUMNS)
        sink = network.prefill_sink(latents[:, :, :1], latents, torch.zeros(1, 16, 24))
    return network, sink


def test_operations_and_memory_of_a_step_are_those_of_the_network() -> None:
    network, sink = filled()
    work = step_works(CONFIG, PLAN, ROWS, COLUMNS)[1]
    cache = network.new_cache()
    with torch.device("meta"):
        x = torch.zeros(1, 4, 3, ROWS, COLUMNS)
        heard = network.encode_audio(torch.zeros(1, 1, 10, 12), start_frame=0)
        t = torch.zeros(1, 3)
        for chunk in range(4):
            counter = FlopCounterMode(display=False)
            with counter:
                network.stream(
                    x, t, heard, start_frame=3 * chunk, cache=cache, sink=sink, sink_distance=None,
                    cond_BCTHW=x,
                )  # fmt: skip
    # The formula leaves out time vectors, which cost the same however large the picture.
    assert work.flops == pytest.approx(counter.get_total_flops(), rel=0.02)
    ring = cache.export_state()
    sink_rows = 2 * CONFIG.num_layers * sink.num_tokens * CONFIG.dim
    assert work.lane_values == ring["keys"].numel() + ring["values"].numel() + sink_rows
    held = (*sink.keys, *sink.values, *sink.text_keys, *sink.text_values)
    assert work.sink_values == sum(tensor.numel() for tensor in held)


def test_a_smaller_step_costs_less_and_a_change_of_resolution_is_a_hinge() -> None:
    low, high = step_works(CONFIG, PLAN, ROWS, COLUMNS)
    assert (low.hinge, high.hinge) == (False, True)
    assert low.flops < high.flops / 3
    assert low.lane_values * 3 < high.lane_values


def test_steps_that_later_chunks_leave_out_cost_nothing_but_their_lanes() -> None:
    steps = replace(PLAN.steps[0], resolution=1.0), PLAN.steps[1]
    plan = Plan(name="all", stages=(StageSpec(name="all", steps=steps),))
    first, second = step_works(CONFIG, replace(plan, short=ShortRoute(steps=(0,))), ROWS, COLUMNS)
    assert (first.runs, second.runs) == ("full", "first")
    assert (second.flops, second.num_layers) == (0.0, 0)
    assert second.lane_values == first.lane_values


def test_forecasts_cost_nothing_and_what_a_first_chunk_decides_counts_as_computed() -> None:
    text = "{name: p, mode: render, schedule: {steps: 12, forecast: true}, plugins: [{name: %s}]}"
    fixed = step_works(CONFIG, parse_plan(text % "forecast", source="x"), ROWS, COLUMNS)
    runs = [work.runs for work in fixed]
    assert (runs[0], runs[-1]) == ("full", "full")
    assert {work.flops for work in fixed if work.runs == "forecast"} == {0.0}
    assert 2 < runs.count("full") < 12
    decided = step_works(CONFIG, parse_plan(text % "adaptive", source="x"), ROWS, COLUMNS)
    assert {work.runs for work in decided} == {"full", "open"}
    assert len({work.flops for work in decided}) == 1


def test_a_window_is_computed_whole_for_each_stride() -> None:
    """Overlaps are computed twice; of a causal window, half is seen on average."""
    text = (
        "{name: p, mode: render, frames_per_chunk: %d, schedule: {steps: 2}, "
        "windows: {length: 12, overlap: %d}}"
    )
    (wide, _), (apart, _) = (
        step_works(CONFIG, parse_plan(text % (12 - overlap, overlap), source="x"), ROWS, COLUMNS)
        for overlap in (6, 0)
    )
    assert wide.flops == apart.flops  # for half as many frames
    ring = step_works(CONFIG, PLAN, ROWS, COLUMNS)[1]
    assert 3 * ring.flops < apart.flops < 4 * ring.flops
    assert apart.lane_values < ring.lane_values / 5


def test_guidance_runs_the_network_twice_with_lanes_of_its_own() -> None:
    steps = (Step(sigma_in=1.0, sigma_out=0.0, guidance=3.0),)
    guided = Plan(name="guided", stages=(StageSpec(name="all", steps=steps),))
    (twice,) = step_works(CONFIG, guided, ROWS, COLUMNS)
    once = step_works(CONFIG, PLAN, ROWS, COLUMNS)[1]
    assert twice.flops == 2 * once.flops
    assert twice.lane_values == 2 * once.lane_values


def test_the_large_model_costs_what_was_published_for_it() -> None:
    path = configs_folder() / "models" / "live-avatar-14b.json"
    config = ModelConfig.model_validate(json.loads(path.read_text()))
    work = chain_work(config, load_plan("live-avatar"), folder=Path())
    # 123.04 less the prompt's keys and values (2.15), which are made once a session here.
    assert work.steps[0].flops == pytest.approx((123.04 - 2.15) * 1e12, rel=1e-3)
    assert work.sink_flops == pytest.approx(72.14e12, rel=1e-3)
    assert work.decode.flops == pytest.approx(27.48e12, rel=1e-3)
    assert work.network_values == pytest.approx(16_295_755_609, abs=10)
    assert work.decode.state_values == pytest.approx(639.2e6, rel=1e-3)
    sink = 2 * 40 * 2640 * 5120
    assert 2 * (work.steps[0].lane_values - sink) == pytest.approx(10.4e9, rel=0.01)
    assert 2 * (work.steps[0].sink_values - 2 * 40 * 512 * 5120) == pytest.approx(2.16e9, rel=0.01)
    assert work.pictures == 12


def test_filling_the_sink_costs_what_the_network_says() -> None:
    with torch.device("meta"):
        network = SpeechToVideoDiT(CONFIG)
        latents = torch.zeros(1, 4, 19, ROWS, COLUMNS)
        with FlopCounterMode(display=False) as counter:
            sink = network.prefill_sink(latents[:, :, :1], latents, torch.zeros(1, 16, 24))
    assert sink_flops(CONFIG, sink.num_tokens) == pytest.approx(counter.get_total_flops(), rel=0.05)
