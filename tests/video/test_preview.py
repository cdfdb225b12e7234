"""Previews: small, in step with the codec's pictures, the same however a stream is cut."""

import pytest
import torch

from video.motion_codec import MotionCodec, MotionCodecConfig
from video.preview import (
    LinearPreview,
    MotionPreview,
    fit_colours,
    preview_of,
    preview_size,
    shrunk,
)

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def codec() -> MotionCodec:
    """A motion codec of random weights whose components of motion are none of them zero."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        codec = MotionCodec(MotionCodecConfig()).eval().requires_grad_(False)
        codec.motion.basis_GGKD.normal_(std=0.1)
    return codec


def picture(height: int = 256, width: int = 256, details: int = 16) -> torch.Tensor:
    noise = torch.rand(1, 3, details, details, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return torch.nn.functional.interpolate(noise, size=(height, width), mode="bilinear")


def latents(frames: int, strength: float = 1.0) -> torch.Tensor:
    return strength * torch.randn(1, 32, frames, 8, 8, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    ("whole", "small"),
    [
        ((256, 256), (128, 128)),
        ((64, 64), (64, 64)),
        ((720, 400), (144, 80)),
        ((162, 90), (80, 44)),
    ],
)
def test_previews_are_small_and_even(whole: tuple[int, int], small: tuple[int, int]) -> None:
    assert preview_size(*whole) == small


@torch.inference_mode()
def test_latents_of_no_motion_show_the_portrait(codec: MotionCodec) -> None:
    preview, image = MotionPreview(codec), picture()
    frames = preview.decode(torch.zeros(1, 32, 2, 8, 8), preview.start(image))
    assert frames.shape == (1, 3, 8, 128, 128)
    wanted = shrunk(image, 128, 128)[:, :, None].expand_as(frames)
    torch.testing.assert_close(frames, wanted, atol=1e-3, rtol=0)


@torch.inference_mode()
def test_a_stream_may_be_cut_anywhere_and_goes_on_from_an_export(codec: MotionCodec) -> None:
    preview, moving = MotionPreview(codec), latents(6)
    whole = preview.decode(moving, preview.start(picture()))
    state = preview.start(picture())
    first = preview.decode(moving[:, :, :2], state)
    twin = preview.start(picture())
    twin.import_state(state.export_state())
    rest = preview.decode(moving[:, :, 2:], twin)
    torch.testing.assert_close(torch.cat([first, rest], dim=2), whole, atol=1e-5, rtol=0)
    assert float((whole[:, :, 0] - whole[:, :, -1]).abs().max()) > 0.05, "nothing moved"


@torch.inference_mode()
def test_what_the_portrait_hides_is_dark_in_the_mouth_alone(codec: MotionCodec) -> None:
    preview = MotionPreview(codec)
    codec.motion.mean_GGD.zero_()
    codec.motion.mean_GGD.view(8, 8, 4, 3, 64)[:, :, :, 2] = 60.0  # all is hidden
    try:
        state = preview.start(torch.ones(1, 3, 256, 256))
        frames = preview.decode(torch.zeros(1, 32, 3, 8, 8), state)
    finally:
        codec.motion.mean_GGD.zero_()
    assert float(frames[0, :, -1, 88, 64].max()) < 0.0
    assert float(frames[0, :, -1, 20, 64].min()) > 0.99


def test_a_foreign_state_is_refused(codec: MotionCodec) -> None:
    preview = MotionPreview(codec)
    with pytest.raises(TypeError, match="the one that start"):
        preview.decode(latents(1), codec.start(picture()))
    with pytest.raises(ValueError, match="not one of a preview"):
        preview.start(picture()).import_state({"pose": torch.zeros(1)})


class BlockCodec:
    """Latents are the means of 8 x 8 pixels, mixed by a matrix that can be undone."""

    latent_channels, frames_per_latent = 4, 4

    def latent_size(self, height_px: int, width_px: int) -> tuple[int, int]:
        return height_px // 8, width_px // 8

    def encode_reference(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        small = shrunk(image_BCHW, *self.latent_size(*image_BCHW.shape[-2:]))
        mix = torch.randn(4, 3, generator=torch.Generator().manual_seed(9))
        return (torch.einsum("kc,bchw->bkhw", mix, small) + 0.3)[:, :, None]


def test_the_linear_map_finds_the_colours_of_another_picture() -> None:
    codec = BlockCodec()
    preview = preview_of(codec)  # type: ignore[arg-type]  # no codec that decodes
    assert isinstance(preview, LinearPreview)
    state = preview.start(picture(64, 96, details=4))
    other = picture(64, 96, details=4).flip(-1)
    frames = preview.decode(codec.encode_reference(other).repeat(1, 1, 2, 1, 1), state)
    assert frames.shape == (1, 3, 8, 64, 96)
    made, wanted = shrunk(frames[:, :, 0], 8, 12), shrunk(other, 8, 12)
    assert float((made - wanted).abs().mean()) < 0.2 * float(wanted.abs().mean())


def test_colours_of_a_constant_picture_do_not_explode() -> None:
    map_KC = fit_colours(torch.zeros(4, 3, 5), torch.full((3, 3, 5), 0.5))
    assert float(map_KC.abs().max()) < 1.0
