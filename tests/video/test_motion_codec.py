"""The motion codec as a `VideoCodec`: streaming equals whole, state travels, size is free."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from video.codec import VideoCodec
from video.errors import WeightsError
from video.head_pose import POSE_CHANNELS
from video.motion_codec import MotionCodec, MotionCodecConfig
from video.motion_field import fit_motion_field

pytestmark = pytest.mark.stream


@pytest.fixture(scope="module")
def codec() -> MotionCodec:
    torch.manual_seed(0)
    codec = MotionCodec(MotionCodecConfig(local_channels=4)).eval().requires_grad_(False)
    fit_motion_field(codec.motion, torch.randn(32, 4, 3, 64, 64))
    return codec


@pytest.fixture(scope="module")
def portrait() -> torch.Tensor:
    smooth = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return torch.nn.functional.interpolate(smooth, size=(96, 64), mode="bicubic").clamp(-1, 1)


def _latents(num_latents: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(1, POSE_CHANNELS + 4, num_latents, 8, 8, generator=generator)


@settings(max_examples=5, deadline=None)
@given(cut=st.integers(1, 4))
def test_any_cut_gives_the_frames_of_the_whole(
    codec: MotionCodec, portrait: torch.Tensor, cut: int
) -> None:
    latents = _latents(5)
    whole = codec.decode(latents, codec.start(portrait))
    state = codec.start(portrait)
    parts = [codec.decode(latents[:, :, :cut], state), codec.decode(latents[:, :, cut:], state)]
    assert torch.equal(torch.cat(parts, dim=2), whole)
    assert whole.shape == (1, 3, 20, 96, 64)


def test_an_exported_state_continues_bit_for_bit(
    codec: MotionCodec, portrait: torch.Tensor
) -> None:
    latents, state = _latents(2), codec.start(portrait)
    codec.decode(latents[:, :, :1], state)
    twin = codec.start(portrait)
    twin.import_state(state.export_state())
    expected = codec.decode(latents[:, :, 1:], state)
    assert torch.equal(codec.decode(latents[:, :, 1:], twin), expected)


def test_no_motion_shows_the_portrait(codec: MotionCodec, portrait: torch.Tensor) -> None:
    with torch.no_grad():
        codec.motion.mean_GGD.zero_()
    still = codec.decode(torch.zeros(1, POSE_CHANNELS + 4, 1, 8, 8), codec.start(portrait))
    corner = still[:, :, :, :4, :4] - portrait[:, :, None, :4, :4]
    assert float(corner.abs().max()) < 1e-3


def test_it_is_a_video_codec(codec: MotionCodec, portrait: torch.Tensor) -> None:
    as_codec: VideoCodec = codec
    assert as_codec.frames_per_latent == 4
    assert as_codec.latent_channels == POSE_CHANNELS + 4
    rows, columns = as_codec.latent_size(512, 512)
    expected = (1, as_codec.latent_channels, 1, rows, columns)
    assert as_codec.encode_reference(portrait).shape == expected


@pytest.mark.parametrize(
    "section",
    [
        {"gridd": 8},
        {"grid": 0},
        {"grid": -1},
        {"grid": 8.0},
        {"grid": True},
        {"grid": 10**9},
        {"grid": 16},
    ],
)
def test_config_fields_that_make_no_codec_are_named(section: dict[str, object]) -> None:
    with pytest.raises(WeightsError, match="grid"):
        MotionCodecConfig.from_dict(section)
