"""What the stages of a placement are told to run, and in which numbers."""

from fractions import Fraction
from pathlib import Path

import pytest
import torch

from pipeline.device import parse_devices
from pipeline.planner import PlacementRequest, place
from pipeline.recipe import DecodeRecipe, DenoiseRecipe
from pipeline.stage import ChunkWork, SessionInputs
from pipeline.step_cost import modelled_costs
from tests.support.planning import plan_of, work_of
from tests.support.tiny_model import SIZE_PX, build_tiny_model
from video.chunk import LatentChunk

pytest.importorskip("ray")

from pipeline.placed_chain import placed_recipes

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("devices", "device", "dtype"),
    [("cuda:80GiB x5", "cuda:0", torch.bfloat16), ("cpu:5:99GiB", "cpu", torch.float32)],
)
def test_stages_get_their_steps_and_the_numbers_they_were_planned_in(
    devices: str, device: str, dtype: torch.dtype
) -> None:
    work = work_of(4)
    placement = place(
        PlacementRequest(
            plan=plan_of(4),
            work=work,
            costs=modelled_costs(work),
            cluster=parse_devices(devices),
        )
    )
    recipes = placed_recipes("pocket", placement)
    assert [recipe.steps_done for recipe in recipes] == [1, 2, 3, 4, 0]
    for recipe in recipes:
        assert isinstance(recipe, DenoiseRecipe | DecodeRecipe)
        assert (recipe.device, recipe.dtype) == (device, dtype)


def test_a_decoder_takes_what_comes_from_another_process_in_its_own_numbers(
    tmp_path: Path,
) -> None:
    model = build_tiny_model(tmp_path / "tiny")
    stage = DecodeRecipe(model=str(model), dtype=torch.bfloat16).build()
    image_BCHW = torch.rand(1, 3, SIZE_PX, SIZE_PX)
    stage.prepare(
        SessionInputs(
            session="a",
            seed=1,
            fps=Fraction(25),
            image_BCHW=image_BCHW,
            reference_BCTHW=torch.zeros(1, 4, 1, 8, 8),
        )
    )
    latent = LatentChunk(latents_CTHW=torch.randn(4, 3, 8, 8), index=0, start_frame=0, sigma=0.0)
    audio_LCT, cond_CTHW = torch.zeros(1, 1, 12), torch.zeros(4, 3, 8, 8)
    work = ChunkWork(session="a", latent=latent, audio_LCT=audio_LCT, cond_CTHW=cond_CTHW)
    assert stage.process(work).frames_THWC.shape == (12, SIZE_PX, SIZE_PX, 3)
