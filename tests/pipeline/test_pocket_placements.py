"""The shipped model talks alike wherever its steps run: schedules, lanes, and nodes on threads."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from audio.source import ArraySource
from pipeline.chain import Chain
from pipeline.cuts import cut_evenly
from pipeline.generator import AvatarGenerator
from pipeline.model import Model, load_model
from pipeline.plan import Plan
from pipeline.plan_parse import load_plan
from pipeline.recipe import DecodeRecipe, DenoiseRecipe, Recipe
from pipeline.staged_chain import ChainSettings, StagedChain
from pipeline.thread_host import ThreadHost

pytestmark = pytest.mark.stream

SECONDS = 1.5  # four chunks, as many as there are steps
SIDE_PX = 64


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("pocket")


def frames_of(model: Model, chain: Chain, plan: Plan) -> np.ndarray:
    rng = np.random.default_rng(4)
    noise_T = rng.standard_normal(round(SECONDS * 16000))
    loud_T = 0.5 + 0.5 * np.sin(np.arange(len(noise_T)) / 900)
    sound = list(ArraySource((0.1 * noise_T * loud_T).astype(np.float32), 16000).chunks())
    portrait_BCHW = torch.rand(1, 3, SIDE_PX, SIDE_PX, generator=torch.Generator().manual_seed(2))
    generator = AvatarGenerator(
        model, plan, portrait_BCHW * 2 - 1, sample_rate=16000, seed=8, chain=chain
    )
    return np.concatenate([video.frames_THWC for video, _ in generator.run(sound)])


def test_the_pocket_model_makes_the_same_pictures_in_every_placement(
    model: Model, tmp_path: Path
) -> None:
    plan = load_plan("pocket")
    wanted = frames_of(model, model.local_chain(plan), plan)
    assert np.ptp(wanted.astype(int), axis=0).max() > 10  # the face moves
    pipelined = model.local_chain(cut_evenly(plan, 4), schedule="pipelined")
    assert np.array_equal(frames_of(model, pipelined, plan), wanted)
    lanes = frames_of(model, model.local_chain(plan, schedule="lanes"), plan)
    assert np.abs(lanes.astype(int) - wanted.astype(int)).max() <= 1
    assert np.array_equal(frames_on_threads(model, plan, tmp_path), wanted)


@pytest.mark.parametrize(
    "name", ["live", "live-hinge", "live-short", "bottleneck", "render", "render-fast"]
)
def test_every_shipped_plan_makes_the_same_pictures_on_nodes(
    model: Model, tmp_path: Path, name: str
) -> None:
    plan = load_plan(name)
    wanted = frames_of(model, model.local_chain(plan), plan)
    assert len(wanted) == 38
    assert np.ptp(wanted.astype(int), axis=0).max() > 10
    assert np.array_equal(frames_on_threads(model, plan, tmp_path), wanted)


def frames_on_threads(model: Model, plan: Plan, folder: Path) -> np.ndarray:
    """The pictures of a chain of nodes: two halves of the steps, and the decoder."""
    halves, folder = cut_evenly(plan, 2), folder / "chain"
    folder.mkdir()
    recipe = DenoiseRecipe(model=str(model.folder), plan=halves, index=0)
    decoder = DecodeRecipe(model=str(model.folder))
    recipes: list[Recipe] = [recipe, replace(recipe, index=1), decoder]
    settings = ChainSettings(pictures_per_chunk=4 * plan.frames_per_chunk, transport="queue")
    chain = StagedChain(ThreadHost(), recipes, folder, settings)
    try:
        return frames_of(model, chain, plan)
    finally:
        chain.close()
