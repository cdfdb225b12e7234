"""The shipped drawings are what the program draws, in the place where models expect a face."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("moderngl", reason="the renderer needs moderngl (extra: train)")

from pipeline.cast import read_cast
from pipeline.catalog import model_path
from training.camera import Framing, eye_mouth_points
from training.drawn_renderer import DrawnRenderer
from training.portraits import CAST, LICENCES, CastMember, draw_portraits, smiling
from training.renderer import RendererError

pytestmark = pytest.mark.unit

SHIPPED = model_path("pocket")
DRAWN = [member for member in CAST if member.domain == "drawn"]


@pytest.fixture(scope="module")
def renderer() -> DrawnRenderer:
    try:
        return DrawnRenderer()
    except RendererError as error:
        pytest.skip(str(error))


def test_the_shipped_list_is_the_table() -> None:
    shipped = [(m.name, m.title, m.domain, m.licence) for m in read_cast(SHIPPED)]
    assert shipped == [(m.name, m.title, m.domain, LICENCES[m.domain]) for m in CAST]
    assert len(shipped) == 11


def test_drawing_needs_no_face_kit_and_gives_the_shipped_picture(tmp_path: Path) -> None:
    (tmp_path / "portraits").mkdir()
    try:
        draw_portraits(tmp_path / "no-kit", tmp_path / "portraits", DRAWN[:1])
    except RendererError as error:
        pytest.skip(str(error))
    (drawn,) = read_cast(tmp_path)
    assert drawn.name == DRAWN[0].name
    shipped = SHIPPED / "portraits" / drawn.path.name
    one, other = (np.asarray(Image.open(path)).astype(int) for path in (drawn.path, shipped))
    assert np.abs(one - other).mean() < 1.0, "drawn anew by another OpenGL at most"


@pytest.mark.parametrize("member", DRAWN, ids=lambda member: member.name)
def test_the_drawn_faces_are_where_models_expect_them(
    renderer: DrawnRenderer, member: CastMember
) -> None:
    person = renderer.sample(np.random.default_rng(member.seed))
    scene = renderer.begin(person, Framing(), smiling(renderer.kit, member.smile))
    right, left, mouth = eye_mouth_points(scene.landmarks_px)
    scene.close()
    assert (right + left) / 2 == pytest.approx((128, 108), abs=8)
    assert mouth == pytest.approx((128, 164), abs=10)
