"""A painter learns from what the rest of its codec hands it; nothing else of the codec moves."""

from pathlib import Path

import numpy as np
import pytest
import torch

from training.codec import choose_learners
from training.painter import Seen, collect, draw_frames, painter_loss
from video.motion_codec import MotionCodec, MotionCodecConfig
from video.motion_nets import MOUTH_BOX

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard of two clips of noise with the shapes of `data make`."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("clips") / "clips_00000.npz"
    hidden = np.zeros((2, 16, 128, 128), np.uint8)
    hidden[:, 8:, 75:95, 50:78] = 255  # the mouth is open in the last groups
    np.savez(
        path,
        ref_rgb=rng.integers(0, 256, (2, 256, 256, 3), dtype=np.uint8),
        ref_depth=np.full((2, 64, 64), 8, np.float16),
        ref_headness=np.ones((2, 64, 64), np.float16),
        flow64=rng.normal(0, 0.5, (2, 48, 2, 64, 64)).astype(np.float16),
        occl64=np.zeros((2, 48, 64, 64), np.uint8),
        rgb=rng.integers(0, 256, (2, 16, 256, 256, 3), dtype=np.uint8),
        flow128=np.zeros((2, 16, 2, 128, 128), np.float16),
        occl128=hidden,
        group_start=np.tile(np.array([0, 8, 16, 24], np.int32), (2, 1)),
    )
    return path.parent


@pytest.fixture(scope="module")
def codec() -> MotionCodec:
    torch.manual_seed(0)
    codec = MotionCodec(MotionCodecConfig())
    choose_learners(codec, ["mouth"])
    return codec


@pytest.fixture(scope="module")
def seen(codec: MotionCodec, folder: Path) -> Seen:
    return collect(codec, folder, MOUTH_BOX, passes=1, seed=0)


def test_every_frame_of_the_clips_is_looked_at_once_a_pass(seen: Seen) -> None:
    assert len(seen.owner_N) == len(seen.picture_N3hw) == len(seen.portrait_P3HW) * 16
    assert seen.picture_N3hw.shape[1:] == (3, MOUTH_BOX[3], MOUTH_BOX[2])


def test_open_mouths_come_more_often(seen: Seen) -> None:
    rng = np.random.default_rng(0)
    frames = torch.cat([draw_frames(seen, rng, 2) for _ in range(40)])
    assert float((seen.hidden_N[frames] > 0).float().mean()) > 0.7


def test_a_step_moves_the_mouth_alone(codec: MotionCodec, seen: Seen) -> None:
    frames = draw_frames(seen, np.random.default_rng(1), 2)
    loss, parts = painter_loss(codec, codec.mouth, seen, frames)
    torch.autograd.backward(loss)
    assert set(parts) == {"picture", "inside", "cover", "flow"}
    assert all(p.grad is None for n, p in codec.named_parameters() if not n.startswith("mouth."))
    moved = [n for n, p in codec.mouth.named_parameters() if p.grad is not None]
    assert {"draw.weight", "refine.weight", "place", "position"} <= set(moved)


def test_a_few_steps_lower_the_loss_of_the_same_frames(codec: MotionCodec, seen: Seen) -> None:
    frames = draw_frames(seen, np.random.default_rng(1), 2)
    weights = [p for p in codec.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=3e-3)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss, _ = painter_loss(codec, codec.mouth, seen, frames)
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
