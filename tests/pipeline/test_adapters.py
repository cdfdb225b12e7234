"""Adapters in a chain: each at its own steps, the same numbers merged or beside, however cut."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch

from pipeline.adapters import MERGED_BYTES, AdaptedNetwork, find_adapters
from pipeline.chain import LocalChain, Schedule
from pipeline.cuts import cut_at
from pipeline.decode_stage import DecodeStage
from pipeline.denoise_stage import DenoiseStage
from pipeline.errors import PlanError
from pipeline.model import load_model
from pipeline.plan import Plan
from pipeline.recipe import DenoiseRecipe
from pipeline.sampler import Denoiser
from pipeline.segments import Segments
from pipeline.sink_store import Conditions, SinkStore
from pipeline.stage import ChunkWork
from pipeline.staged_chain import ChainSettings, StagedChain
from pipeline.thread_host import ThreadHost
from tests.support.small_chain import (
    CUTS,
    FRAMES,
    PLAN,
    PlainCodec,
    decode_stage,
    denoiser,
    run,
    small_inputs,
    small_works,
    with_reference,
)
from tests.support.tiny_model import build_tiny_model
from tests.support.toy_stages import same
from video.chunk import VideoChunk
from video.errors import WeightsError
from video.lora import adapter_targets
from video.lora_file import LoraFile, random_factors, read_lora, write_lora

pytestmark = pytest.mark.stream

NAMES = ("motion", "fidelity")
SEGMENTED = replace(PLAN, segments=Segments(t_mid=0.5, above="motion", below="fidelity"))
INPUTS = small_inputs("a", 5)
NUM_CHUNKS = 6
LIMIT = 1e-5


def write_adapters(folder: Path, network: torch.nn.Module) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(NAMES):
        factors = random_factors(network, adapter_targets(network), rank=3, seed=seed, size=0.3)
        write_lora(folder / f"{name}.safetensors", factors, alpha=3.0)
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LoraFile]:
    folder = write_adapters(tmp_path_factory.mktemp("adapters"), denoiser().network)
    return {name: read_lora(folder / f"{name}.safetensors") for name in NAMES}


def adapted(files: dict[str, LoraFile], mode: str) -> Denoiser:
    limit = MERGED_BYTES if mode == "merged" else 0
    network = denoiser().network
    return replace(denoiser(), adapters=AdaptedNetwork(network, files, merged_bytes=limit))


def chain_of(plan: Plan, made_by: Denoiser, schedule: Schedule = "sequential") -> LocalChain:
    return LocalChain.from_plan(plan, made_by, PlainCodec(), schedule=schedule)  # type: ignore[arg-type]  # see small_chain


def works_of() -> list[ChunkWork]:
    """The reference changes on the way: sinks are filled anew, each with its adapter at work."""
    return with_reference(small_works(INPUTS, NUM_CHUNKS), 3, 17)


def latents(plan: Plan, made_by: Denoiser) -> torch.Tensor:
    """What leaves the last step, chunk by chunk."""
    stage = DenoiseStage(made_by, cut_at(plan, []), 0)
    stage.prepare(INPUTS)
    return torch.stack([stage.process(work).latent.latents_CTHW for work in works_of()])


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def test_merged_and_beside_make_the_same_latents(files: dict[str, LoraFile]) -> None:
    merged, beside = (latents(SEGMENTED, adapted(files, mode)) for mode in ("merged", "beside"))
    assert apart(merged, beside) < LIMIT
    assert apart(merged, latents(PLAN, denoiser())) > 0.01


def test_each_segment_has_its_own_adapter(files: dict[str, LoraFile]) -> None:
    """A chain of one adapter is its network merged for good; the segments switch between them."""
    both = latents(SEGMENTED, adapted(files, "merged"))
    swapped = replace(PLAN, segments=Segments(t_mid=0.5, above="fidelity", below="motion"))
    assert apart(latents(swapped, adapted(files, "merged")), both) > 0.01
    for name in NAMES:
        alone = replace(PLAN, segments=Segments(t_mid=0.001, above=name))
        assert apart(latents(alone, adapted(files, "beside")), both) > 0.01


def test_a_network_that_has_adapters_is_bit_for_bit_the_bare_one_without(
    files: dict[str, LoraFile],
) -> None:
    wanted = latents(PLAN, denoiser())
    for mode in ("merged", "beside"):
        made_by = adapted(files, mode)
        latents(SEGMENTED, made_by)
        assert torch.equal(latents(PLAN, made_by), wanted)


@pytest.mark.parametrize("mode", ["merged", "beside"])
def test_every_cut_and_schedule_makes_the_same_pictures(
    files: dict[str, LoraFile], mode: str
) -> None:
    made_by = adapted(files, mode)
    wanted = run(chain_of(SEGMENTED, made_by), INPUTS, works_of())
    placements: list[tuple[int, Schedule]] = [
        (1, "pipelined"), (2, "sequential"), (3, "pipelined"), (4, "pipelined"),
    ]  # fmt: skip
    for num_stages, schedule in placements:
        plan = cut_at(SEGMENTED, CUTS[num_stages])
        made = run(chain_of(plan, made_by, schedule), INPUTS, works_of())
        assert same(made, wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptedRecipe:
    """A stage that builds its own denoiser, as a process of its own would."""

    plan: Plan
    index: int
    make: Callable[[], Denoiser]

    @property
    def name(self) -> str:
        return f"adapted{self.index}"

    @property
    def steps_done(self) -> int:
        return 0 if self.index == len(self.plan.stages) else self.plan.first_step(self.index + 1)

    def build(self) -> DenoiseStage | DecodeStage:
        if self.index == len(self.plan.stages):
            return decode_stage()
        return DenoiseStage(self.make(), self.plan, self.index)


@pytest.mark.parametrize("mode", ["merged", "beside"])
def test_stages_on_threads_make_the_same_pictures(
    files: dict[str, LoraFile], mode: str, tmp_path: Path
) -> None:
    """All threads have one network: what one wears, the others do not."""
    wanted = run(chain_of(SEGMENTED, adapted(files, mode)), INPUTS, works_of())
    plan, made_by = cut_at(SEGMENTED, CUTS[3]), adapted(files, mode)
    recipes = [AdaptedRecipe(plan=plan, index=k, make=lambda: made_by) for k in range(4)]
    settings = ChainSettings(pictures_per_chunk=4 * FRAMES, transport="queue")
    chain = StagedChain(ThreadHost(), recipes, tmp_path, settings)
    try:
        assert same(run(chain, INPUTS, works_of()), wanted)
    finally:
        chain.close()


def test_lanes_of_two_adapters_are_two_passes(files: dict[str, LoraFile]) -> None:
    wanted = run(chain_of(SEGMENTED, adapted(files, "beside")), INPUTS, works_of())
    made = run(chain_of(SEGMENTED, adapted(files, "beside"), "lanes"), INPUTS, works_of())
    assert all(close(a, b) for a, b in zip(made, wanted, strict=True))


def close(a: VideoChunk, b: VideoChunk) -> bool:
    """Equal but for one level of rounding."""
    return int(abs(a.frames_THWC.astype(int) - b.frames_THWC.astype(int)).max()) <= 1


def test_sinks_are_filled_with_their_adapter_at_work(files: dict[str, LoraFile]) -> None:
    made_by = adapted(files, "merged")
    store = SinkStore(made_by.network, made_by.adapters)
    bare = Conditions(reference_BCTHW=INPUTS.reference_BCTHW)
    held = {name: store.hold(replace(bare, adapter=name)) for name in (None, *NAMES)}
    assert len(store) == 3
    assert store.hold(replace(bare, adapter="motion")) is held["motion"]
    keys = {name: sink.sink.keys[-1] for name, sink in held.items()}
    assert all(apart(keys[name], keys[None]) > 0.01 for name in NAMES)
    assert apart(keys["motion"], keys["fidelity"]) > 0.01


@cache
def tiny() -> Path:
    folder = build_tiny_model(Path(mkdtemp()) / "tiny")
    write_adapters(folder / "adapters", load_model(str(folder)).parts.dit)
    return folder


def test_a_process_of_one_segment_merges_into_its_own_network() -> None:
    plan = cut_at(SEGMENTED, [2, 3])
    bare = load_model(str(tiny())).parts.dit.blocks[0].get_parameter("ffn.0.weight")
    for index, name in enumerate(("motion", "fidelity", "fidelity")):
        stage = DenoiseRecipe(model=str(tiny()), plan=plan, index=index).build()
        made_by = stage._denoiser
        assert made_by.adapters is not None
        assert made_by.adapters.names == (name,)
        with made_by.wearing(name) as worn:
            assert worn.network is made_by.network
        assert not torch.equal(made_by.network.blocks[0].get_parameter("ffn.0.weight"), bare)


def test_a_process_of_both_segments_makes_what_those_of_one_make() -> None:
    model = load_model(str(tiny()))
    size = model.config.native_size
    portrait = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    inputs = model.session_inputs(portrait, session="a", seed=3, fps=model.fps)
    generator = torch.Generator().manual_seed(2)
    works = [
        replace(w, cond_CTHW=torch.randn(4, FRAMES, 8, 8, generator=generator))
        for w in works_of()[:2]
    ]
    works = [
        replace(
            w,
            latent=replace(
                w.latent, latents_CTHW=torch.randn(4, FRAMES, 8, 8, generator=generator)
            ),
            audio_LCT=torch.randn(1, 14, 4 * FRAMES, generator=generator),
        )
        for w in works
    ]
    made = []
    for cuts in ([], [2], [1, 2, 3]):
        plan = cut_at(SEGMENTED, cuts)
        stages = [
            DenoiseRecipe(model=str(tiny()), plan=plan, index=k).build()
            for k in range(len(plan.stages))
        ]
        out = works
        for stage in stages:
            stage.prepare(inputs)
            out = [stage.process(work) for work in out]
        made.append(torch.stack([work.latent.latents_CTHW for work in out]))
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])


def test_an_adapter_that_is_not_there_is_refused_by_what_is(tmp_path: Path) -> None:
    plan = replace(PLAN, segments=Segments(t_mid=0.5, above="lips"))
    with pytest.raises(PlanError, match="plan small: step 0: adapter 'lips' is not there") as no:
        load_model(str(tiny())).local_chain(plan)
    assert "has fidelity, motion; put it there" in str(no.value)
    with pytest.raises(PlanError, match="adapters has none"):
        find_adapters(tmp_path, plan)
    path = replace(PLAN, segments=Segments(t_mid=0.5, above=str(tmp_path / "x.safetensors")))
    with pytest.raises(PlanError, match=r"x\.safetensors' is not there"):
        find_adapters(tmp_path, path)


def test_an_adapter_of_another_network_is_refused_before_it_runs(
    files: dict[str, LoraFile],
) -> None:
    plan = replace(PLAN, segments=Segments(t_mid=0.5, above=str(files["motion"].path)))
    small = build_tiny_model(Path(mkdtemp()) / "other", **{"dit": other_dit()})
    with pytest.raises(WeightsError, match=r"motion\.safetensors does not fit SpeechToVideoDiT"):
        load_model(str(small)).local_chain(plan)


def other_dit() -> dict[str, object]:
    config = json.loads((tiny() / "config.json").read_text())["dit"]
    return {**config, "dim": 48}


def test_a_chain_refuses_a_network_without_the_adapter() -> None:
    with pytest.raises(PlanError, match="step 0: adapter 'motion' is not loaded with this network"):
        chain_of(SEGMENTED, denoiser())


def test_folders_as_peft_writes_them_have_names_too(
    files: dict[str, LoraFile], tmp_path: Path
) -> None:
    folder = tmp_path / "adapters" / "motion"
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(files["motion"].path.read_bytes())
    found = find_adapters(tmp_path, replace(PLAN, segments=Segments(t_mid=0.5, above="motion")))
    assert sorted(found["motion"].layers) == sorted(files["motion"].layers)
