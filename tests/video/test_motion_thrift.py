"""Cheaper pictures of the motion codec: those that are made are right, the stream keeps its place.

Shape legend: B = batch, C = channels, T = latent frames, H, W = picture.
"""

import pytest
import torch

from video.motion_codec import MotionCodec, MotionCodecConfig, MotionDecoderState
from video.motion_thrift import decode_thriftily

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def codec() -> MotionCodec:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        made = MotionCodec(MotionCodecConfig(painter_blocks=1, refiner_blocks=1))
        made.motion.scale_GGK.fill_(0.5)
        torch.nn.init.normal_(made.motion.basis_GGKD, std=0.1)
    return made.eval().requires_grad_(False)


def started(codec: MotionCodec, side: int = 256) -> MotionDecoderState:
    generator = torch.Generator().manual_seed(1)
    return codec.start(torch.rand(1, 3, side, side, generator=generator) * 2 - 1)


def latents(num: int) -> torch.Tensor:
    return 0.3 * torch.randn(1, 32, num, 8, 8, generator=torch.Generator().manual_seed(2))


def test_every_second_picture_is_that_of_a_whole_decode(codec: MotionCodec) -> None:
    whole, thrifty = started(codec), started(codec)
    expected = codec.decode(latents(2), whole)
    made = decode_thriftily(codec, latents(2), thrifty, halves_rate=True, halves_size=False)
    assert made.shape == expected.shape
    # Fewer pictures in a call round otherwise.
    assert torch.allclose(made[:, :, 1::2], expected[:, :, 1::2], atol=1e-4)
    assert not torch.equal(expected[:, :, 1], expected[:, :, 3])
    between = (made[:, :, 1:-1:2] + made[:, :, 3::2]) / 2
    assert torch.equal(made[:, :, 2::2], between)
    assert torch.equal(made[:, :, 0], made[:, :, 1])
    for name, tensor in whole.export_state().items():
        assert torch.equal(tensor, thrifty.export_state()[name])


def test_the_first_picture_is_mixed_with_the_one_before(codec: MotionCodec) -> None:
    last = torch.ones(1, 3, 256, 256)
    made = decode_thriftily(
        codec,
        latents(1),
        started(codec),
        halves_rate=True,
        halves_size=False,
        last_B3HW=last,
    )
    assert torch.equal(made[:, :, 0], (last + made[:, :, 1]) / 2)


@pytest.mark.parametrize("halves_rate", [False, True])
def test_pictures_of_half_the_sides_are_enlarged_to_the_whole(
    codec: MotionCodec, halves_rate: bool
) -> None:
    whole, thrifty = started(codec, 258), started(codec, 258)
    expected = codec.decode(latents(1), whole)
    made = decode_thriftily(codec, latents(1), thrifty, halves_rate=halves_rate, halves_size=True)
    assert made.shape == expected.shape
    smooth, blurred = (torch.nn.functional.avg_pool2d(x[0, :, 1], 16) for x in (expected, made))
    assert (smooth - blurred).abs().max() < 0.25
    for name, tensor in whole.export_state().items():
        assert torch.equal(tensor, thrifty.export_state()[name])
