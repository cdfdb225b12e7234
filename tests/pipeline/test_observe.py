"""An observed session makes the latents of a render, with or without pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch

from audio.chunk import AudioChunk
from pipeline.generator import AvatarGenerator
from pipeline.model import load_model
from pipeline.observe import open_observed
from pipeline.plan_parse import load_plan
from tests.support.tiny_model import SIZE_PX, build_tiny_model

pytestmark = pytest.mark.stream
RATE = 16_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def test_leaving_out_pictures_changes_no_latent(folder: Path) -> None:
    model, plan = load_model(str(folder)), load_plan("pocket")
    portrait = (
        torch.rand(1, 3, SIZE_PX, SIZE_PX, generator=torch.Generator().manual_seed(0)) * 2 - 1
    )
    samples = 0.1 * np.random.default_rng(1).standard_normal(RATE).astype(np.float32)
    sound = [AudioChunk(samples_T=samples, sample_rate=RATE, pts=0)]
    seen: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    shown = {}
    for pictures in (True, False):
        session = open_observed(
            model,
            plan,
            portrait,
            sample_rate=RATE,
            seed=3,
            on_latents=seen[pictures].append,
            pictures=pictures,
        )
        shown[pictures] = [video.frames_THWC for video, _ in session.run(sound)]
    assert len(seen[True]) == 3
    for with_pictures, without in zip(seen[True], seen[False], strict=True):
        assert torch.equal(with_pictures, without)
    assert sum(map(len, shown[False])) == sum(map(len, shown[True])) == 25
    assert not np.concatenate(shown[False]).any()
    rendered = AvatarGenerator(model, plan, portrait, sample_rate=RATE, seed=3).run(sound)
    expected = np.concatenate([video.frames_THWC for video, _ in rendered])
    assert np.array_equal(np.concatenate(shown[True]), expected)
