"""Hours of streaming: what is skipped changes nothing, what grows or slows down is caught."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from audio.source import FileSource
from pipeline.catalog import model_path
from pipeline.gates import missed
from pipeline.model import Model, load_model
from pipeline.observe import ObservedSession, open_observed
from pipeline.plan_parse import load_plan
from services.eval_long import LongRequest, growth_figures
from services.eval_recording import EvalRequest
from services.long_report import long_report
from video.crop import Crop
from video.reference import load_portrait

pytestmark = pytest.mark.cli
CHUNK, SKIPPED = 12, 36  # pictures of a chunk, pictures at the start that nobody looks at


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("pocket")


def _run(
    model: Model, first_picture: int, *, sink: bool = True
) -> tuple[ObservedSession, list[np.ndarray], list[torch.Tensor]]:
    """Two and a half seconds of ada, decoded from a picture on."""
    folder, latents = model_path("pocket"), []  # type: Path, list[torch.Tensor]
    portrait = load_portrait(folder / "portraits" / "ada.png", size=(64, 64))
    source = FileSource(folder / "speech.flac")
    session = open_observed(
        model,
        load_plan(model.config.plan),
        portrait.image_CHW[None],
        sample_rate=source.sample_rate,
        seed=0,
        on_latents=latents.append,
        pictures=lambda picture: picture >= first_picture,
        sink=sink,
    )
    frames = [video.frames_THWC for video, _ in session.run(islice(source.chunks(), 25))]
    return session, frames, latents


def test_pictures_after_a_gap_are_those_of_a_whole_stream(model: Model) -> None:
    whole, whole_frames, whole_latents = _run(model, 0)
    _, frames, latents = _run(model, SKIPPED)
    assert all(torch.equal(a, b) for a, b in zip(whole_latents, latents, strict=True))
    assert all(f.shape[1:3] == (2, 2) for f in frames[: SKIPPED // CHUNK])
    for seen, expected in zip(frames[3:], whole_frames[3:], strict=True):
        assert np.abs(seen.astype(int) - expected).max() <= 1
    assert whole.num_evaluations == len(load_plan(model.config.plan).steps) * len(whole_latents)


def test_without_the_sink_the_network_says_something_else(model: Model) -> None:
    _, _, with_sink = _run(model, 10_000)
    _, _, without = _run(model, 10_000, sink=False)
    assert all(bool(torch.isfinite(x).all()) for x in without)
    assert not torch.allclose(with_sink[0], without[0], atol=1e-3)
    _, _, again = _run(model, 10_000)  # the shared network has its sink still
    assert torch.equal(with_sink[-1], again[-1])


def _minute(number: int, **changes: float) -> dict[str, float]:
    row = {
        "minute": float(number),
        "wall_s": 20.0,
        "cpu_s": 19.0,
        "resident_mb": 500.0,
        "identity_drift": 0.002,
        "face_colour_drift_levels": 1.0,
    }
    return row | changes


@pytest.mark.parametrize(
    ("changes", "fails"),
    [
        ({}, []),
        ({"wall_s": 22.0}, ["last_minute_speed"]),
        ({"resident_mb": 600.0}, ["memory_growth_mb"]),
        ({"identity_drift": 0.004}, ["identity_drift_growth"]),
        ({"face_colour_drift_levels": 1.6}, ["colour_drift_growth"]),
    ],
)
def test_what_grows_until_the_last_minute_fails(
    changes: dict[str, float], fails: list[str]
) -> None:
    rows = [_minute(1), _minute(2), {"minute": 3.0, "resident_mb": 510.0, "wall_s": 9.0}]
    rows.append(_minute(4, **changes))
    assert missed("hours", growth_figures(rows)) == fails
    assert growth_figures(rows[:2]) == {}


def test_few_minutes_are_looked_at_and_the_report_says_which() -> None:
    source = EvalRequest(portrait=Path("ada.png"), audio=Path("speech.flac"), crop=Crop())
    request = LongRequest(source=source, minutes=167, every=20, sink=False)
    looked = [minute for minute in range(1, 168) if request.looks_at(minute)]
    assert looked == [1, 2, 20, 40, 60, 80, 100, 120, 140, 160, 167]
    rows = [_minute(m, rest_db=38.0, background_drift_levels=0.1) for m in range(1, 4)]
    page = long_report(request, growth_figures(rows) | {"minutes_looked_at": 3.0}, rows)
    assert "WITHOUT the sink" in page
    assert "in 3 of the minutes" in page
    assert page.count("<svg") == 5
