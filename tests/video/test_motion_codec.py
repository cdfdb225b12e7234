"""The motion codec as a `VideoCodec`: streaming equals whole, state travels, size is free."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from video.codec import VideoCodec
from video.errors import WeightsError
from video.face_motion import CANONICAL
from video.head_pose import POSE_CHANNELS
from video.motion_codec import MotionCodec, MotionCodecConfig
from video.motion_field import fit_motion_field
from video.motion_nets import EYES_BOX, MOUTH_BOX

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
    torch.testing.assert_close(torch.cat(parts, dim=2), whole, atol=1e-4, rtol=0)
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


def _paint(codec: MotionCodec) -> None:
    """Give the painters something to say: fresh ones only mix colours."""
    generator = torch.Generator().manual_seed(4)
    for painter in (codec.eyes, codec.mouth):
        for layer in (painter.out, painter.draw):
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * 0.1)


def test_paint_follows_a_moved_head_wherever_it_goes(
    codec: MotionCodec, portrait: torch.Tensor
) -> None:
    _paint(codec)
    state = codec.start(portrait)
    local = _latents(1)[:, POSE_CHANNELS:]
    motion = codec.face_motion(local, state.canonical_BCHW, state.reading)
    head = torch.full((4, 2, 64, 64), 13.0)
    near = codec.render(motion, portrait, head)
    head[:, :, 0, 0] = 300.0  # now paint may be anywhere
    far = codec.render(motion, portrait, head)
    torch.testing.assert_close(near[..., 16:, 16:], far[..., 16:, 16:], atol=1e-5, rtol=0)
    bare = torch.zeros_like(motion.mouth.cover_N1HW)
    unpainted = replace(motion, mouth=replace(motion.mouth, cover_N1HW=bare))
    assert float((codec.render(unpainted, portrait, head) - far).abs().max()) > 0.05


def test_a_head_displacement_moves_flow_and_paint_alike(codec: MotionCodec) -> None:
    _paint(codec)
    picture = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(5)) * 2 - 1
    state = codec.start(picture)
    motion = codec.face_motion(
        _latents(1)[:, POSE_CHANNELS:] * 0.1, state.canonical_BCHW, state.reading
    )
    still = codec.render(motion, picture, torch.zeros(4, 2, 64, 64))
    moved = codec.render(motion, picture, torch.full((4, 2, 64, 64), 8.0))
    inner = (..., slice(40, 200), slice(40, 200))
    shifted = still.roll((-8, -8), (-2, -1))
    torch.testing.assert_close(moved[inner], shifted[inner], atol=2e-3, rtol=0)


def test_several_portraits_and_groups_at_once_are_the_same_as_one_by_one(
    codec: MotionCodec,
) -> None:
    _paint(codec)
    generator = torch.Generator().manual_seed(6)
    pictures = torch.rand(2, 3, 256, 256, generator=generator) * 2 - 1
    local = torch.randn(2, 4, 2, 8, 8, generator=generator)
    together = codec.face_motion(local, pictures, codec.read(pictures))
    for clip in range(2):
        picture = pictures[clip : clip + 1]
        alone = codec.face_motion(local[clip : clip + 1, :, 1:], picture, codec.read(picture))
        rows = slice(8 * clip + 4, 8 * clip + 8)
        torch.testing.assert_close(together.flow_N2FF[rows], alone.flow_N2FF, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(
            together.mouth.colour_N3HW[rows], alone.mouth.colour_N3HW, atol=1e-4, rtol=1e-4
        )


def test_painted_regions_do_not_overlap_and_are_symmetric() -> None:
    (eyes_x, eyes_y, eyes_w, eyes_h), (mouth_x, mouth_y, mouth_w, _) = EYES_BOX, MOUTH_BOX
    assert eyes_y + eyes_h <= mouth_y
    assert 2 * eyes_x + eyes_w == 2 * mouth_x + mouth_w == CANONICAL
    assert all(side % 8 == 0 for side in EYES_BOX + MOUTH_BOX)


def test_shapes_alone_can_be_decoded_so_that_work_can_be_counted() -> None:
    with torch.device("meta"), torch.inference_mode():
        codec = MotionCodec(MotionCodecConfig())
        state = codec.start(torch.zeros(1, 3, 96, 64))
        frames = codec.decode(torch.zeros(1, codec.latent_channels, 2, 8, 8), state)
    assert frames.shape == (1, 3, 8, 96, 64)
