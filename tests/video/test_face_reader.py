"""The reader sees what the decoder shows, at the portrait's own pose."""

import pytest
import torch

from video.face_reader import FaceReader
from video.head_pose import POSE_CHANNELS
from video.motion_codec import MotionCodec, MotionCodecConfig
from video.motion_nets import EYES_BOX, MOUTH_BOX, crop
from video.warp import resize

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def codec() -> MotionCodec:
    torch.manual_seed(3)
    codec = MotionCodec(MotionCodecConfig()).eval()
    for buffer in codec.motion.buffers():
        buffer.normal_(0.0, 0.3)
    for painter in (codec.eyes, codec.mouth):
        for layer in (painter.out, painter.draw):
            torch.nn.init.normal_(layer.weight, std=0.1)
    return codec.requires_grad_(False)


@pytest.fixture(scope="module")
def picture() -> torch.Tensor:
    cells = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return resize(cells, 256, 256)


def _latents(codec: MotionCodec, *, turned: bool = False) -> torch.Tensor:
    latents = torch.randn(
        1, codec.latent_channels, 2, 8, 8, generator=torch.Generator().manual_seed(2)
    )
    if not turned:
        latents[:, :POSE_CHANNELS] = 0.0
    return latents


def test_a_head_that_does_not_turn_is_seen_as_decoded(
    codec: MotionCodec, picture: torch.Tensor
) -> None:
    latents = _latents(codec)
    frames = FaceReader(codec, picture).frames(latents)
    decoded = codec.decode(latents, codec.start(picture))[0].transpose(0, 1)
    torch.testing.assert_close(frames.pictures_N3HW, decoded, atol=1e-4, rtol=0)
    assert float((decoded - picture).abs().mean()) > 0.02


def test_a_turned_head_is_read_like_a_still_one(codec: MotionCodec, picture: torch.Tensor) -> None:
    reader = FaceReader(codec, picture)
    still, turned = (reader.read(_latents(codec, turned=turned)) for turned in (False, True))
    assert torch.equal(still.opening_px_N, turned.opening_px_N)
    assert torch.equal(still.darkness_N, turned.darkness_N)


def test_flow_and_paint_have_the_size_of_pictures(
    codec: MotionCodec, picture: torch.Tensor
) -> None:
    reader = FaceReader(codec, picture)
    frames = reader.frames(_latents(codec))
    local, still = _latents(codec)[:, POSE_CHANNELS:], codec.still_field(picture)
    motion, _ = codec.streamed_motion(local, picture, reader.reading, still)
    assert frames.flow_N2HW.shape == (8, 2, 256, 256)
    torch.testing.assert_close(
        torch.nn.functional.avg_pool2d(frames.flow_N2HW, 2)[..., 8:-8, 8:-8],
        motion.flow_N2FF[..., 8:-8, 8:-8],
        atol=1.0,
        rtol=0.1,
    )
    inside = torch.zeros(256, 256, dtype=torch.bool)
    for box, paint in ((EYES_BOX, motion.eyes), (MOUTH_BOX, motion.mouth)):
        crop(inside, box)[:] = True
        cover = crop(frames.opacity_N1HW, box)
        torch.testing.assert_close(cover, paint.cover_N1HW, atol=1e-4, rtol=0)
    assert not frames.opacity_N1HW[..., ~inside].any()
    assert frames.opacity_N1HW.max() > 0.3
