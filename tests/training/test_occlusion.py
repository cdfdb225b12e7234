"""Shadows fall where geometry hides the light, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("moderngl", reason="the renderer needs moderngl (extra: train)")

from training.occlusion import Occlusion, sphere_directions
from training.renderer import RendererError, open_context

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def occlusion() -> Occlusion:
    try:
        return Occlusion(open_context())
    except RendererError as error:
        pytest.skip(str(error))


def test_a_plate_shades_what_lies_behind_it_and_not_beside_or_before(occlusion: Occlusion) -> None:
    plate = np.array([[-3, -3, 5], [3, -3, 5], [-3, 3, 5], [3, 3, 5]], np.float32)
    faces = np.array([[0, 1, 2], [1, 3, 2]], np.int32)
    points = np.array([[0, 0, 0], [6, 0, 0], [0, 0, 8]], np.float32)
    with occlusion.casting(plate, faces) as caster:
        front = occlusion.seen(points, np.array([0.0, 0.0, 1.0]), [caster], 0.3)
        slant = occlusion.seen(points, np.array([-1.0, 0.0, 1.0]), [caster], 0.3)
        edge = occlusion.seen(np.array([[3.0, 0, 0]]), np.array([0.0, 0.0, 1.0]), [caster], 1.0)
    np.testing.assert_array_equal(front, [0, 1, 1])
    np.testing.assert_array_equal(slant, [1, 0, 1])
    assert 0.2 < edge[0] < 0.8


def test_directions_cover_the_sphere_evenly() -> None:
    directions = sphere_directions(72)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    assert np.abs(directions.mean(axis=0)).max() < 0.02
    nearest = np.sort(directions @ directions.T, axis=1)[:, -2]
    assert nearest.max() < 0.97
