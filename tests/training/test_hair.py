"""Grown hair stays off the face, follows its seed and covers what it should; shadows fall."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("moderngl", reason="the renderer needs moderngl (extra: train)")

from training.facekit import FaceKit, load_facekit
from training.hair_layer import ribbons
from training.hairstyle import CUTS
from training.paint import Paint, paint_head
from training.strands import Skull, Strands, grow_hair, thinned

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def kit(facekit_dir: Path) -> FaceKit:
    return load_facekit(facekit_dir)


@pytest.fixture(scope="module")
def paint(kit: FaceKit) -> Paint:
    return paint_head(kit)


def _grown(kit: FaceKit, paint: Paint, style: str, seed: int) -> Strands:
    return grow_hair(kit, paint.skin_V4[:, 3], kit.vertices_V3, style, seed)


@pytest.mark.parametrize("style", sorted(CUTS))
def test_no_style_hangs_over_the_eyes_or_grows_through_the_skull(
    kit: FaceKit, paint: Paint, style: str
) -> None:
    for seed in (1, 2):
        hair = _grown(kit, paint, style, seed)
        x, y, z = hair.points_RP3.reshape(-1, 3).T
        over_eyes = (np.abs(x) < 5) & (y < 4.5) & (y > -7) & (z > 6)
        assert over_eyes.mean() < 1e-3
        skull = Skull(kit.vertices_V3, np.zeros(3), with_ears=False)
        upper = hair.points_RP3[:, 1:].reshape(-1, 3)
        upper = upper[(upper[:, 1] > 3) & (np.abs(upper[:, 0]) < 7)]
        depth = skull.settle_and_measure(upper, np.full(len(upper), -9.0))[1]
        assert np.percentile(depth, 2) > -0.35


def test_the_seed_decides_the_hair(kit: FaceKit, paint: Paint) -> None:
    one, same, other = (_grown(kit, paint, "curls", seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.points_RP3, same.points_RP3)
    assert not np.array_equal(one.points_RP3, other.points_RP3)


def test_ribbons_have_the_strands_width_and_taper(kit: FaceKit, paint: Paint) -> None:
    hair = thinned(_grown(kit, paint, "long", 5), 50)
    table, faces = ribbons(hair, np.array([0.0, 0.0, 90.0]))
    count, length = hair.points_RP3.shape[:2]
    pairs = table.reshape(count, length, 2, 10)
    width = np.linalg.norm(pairs[:, :, 0, :3] - pairs[:, :, 1, :3], axis=2)
    assert faces.shape == (2 * count * (length - 1), 3)
    assert faces.max() == len(table) - 1
    grown = np.ptp(hair.points_RP3, axis=1).max(axis=1) > 1  # some were cut at the root
    assert grown.mean() > 0.9
    np.testing.assert_allclose(width[grown, 0], hair.width_R[grown], rtol=0.02)
    assert (width[grown, -1] < 0.3 * width[grown, 0]).all()
