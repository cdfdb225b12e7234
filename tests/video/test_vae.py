"""The video autoencoder: the reference's numbers, streaming equals whole, exportable sessions."""

from dataclasses import fields, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tests.support.goldens import GoldenSet
from video.codec import DecoderState, VideoCodec
from video.errors import ImageError
from video.vae import VAEConfig, WanVAE
from video.vae_blocks import FrameCache
from video.weights import load_into

pytestmark = pytest.mark.unit

LIMIT = 1e-4
TINY = VAEConfig(
    dim=2,
    z_dim=4,
    dim_mult=(1, 2, 2, 2),
    num_res_blocks=1,
    latent_mean=(0.1, -0.2, 0.3, 0.0),
    latent_std=(1.5, 2.0, 0.5, 1.0),
    num_prime_latents=2,
)


@cache
def tiny_vae() -> WanVAE:
    torch.manual_seed(3)
    return WanVAE(TINY).requires_grad_(False)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def golden_vae(golden_set: GoldenSet, **options: Any) -> WanVAE:
    golden = golden_set.tensors("vae")
    known = {field.name for field in fields(VAEConfig)} | {"temperal_downsample"}
    config = {k: v for k, v in golden_set.config("vae").items() if k in known}
    config["latent_mean"] = golden["latent_mean"].tolist()
    config["latent_std"] = golden["latent_std"].tolist()
    vae = WanVAE(VAEConfig.from_dict({**config, **options}))
    vae.load_state_dict(golden_set.weights("vae"))
    return vae.requires_grad_(False)


def assert_golden(found: torch.Tensor, golden: torch.Tensor) -> None:
    torch.testing.assert_close(found, golden, atol=LIMIT, rtol=0)


def chunks(golden: dict[str, torch.Tensor], prefix: str) -> list[torch.Tensor]:
    names = sorted(name for name in golden if name.startswith(prefix))
    assert names
    return [golden[name] for name in names]


@pytest.mark.golden
@pytest.mark.parametrize("kind", ["image", "video"])
def test_whole_encode_of_the_reference(golden_set: GoldenSet, kind: str) -> None:
    golden = golden_set.tensors("vae")
    assert_golden(golden_vae(golden_set).encode(golden[f"in.{kind}"]), golden[f"enc.{kind}"])


@pytest.mark.golden
@pytest.mark.parametrize(
    ("rule", "name"),
    [("image1", "enc.image"), ("image5_latent1", "enc.image_rep5_latent1")],
)
def test_reference_latent_rules(golden_set: GoldenSet, rule: str, name: str) -> None:
    golden = golden_set.tensors("vae")
    vae = golden_vae(golden_set, reference=rule)
    assert_golden(vae.encode_reference(golden["in.image"][:, :, 0]), golden[name])


@pytest.mark.golden
def test_streaming_encode_of_the_reference(golden_set: GoldenSet) -> None:
    golden = golden_set.tensors("vae")
    vae = golden_vae(golden_set)
    frame_cache: FrameCache = {}
    begin = 0
    for wanted in chunks(golden, "enc.stream.chunk"):
        end = begin + vae.frames_per_latent * wanted.shape[2]
        end -= 0 if begin else vae.frames_per_latent - 1
        assert_golden(vae.encode(golden["in.video"][:, :, begin:end], frame_cache), wanted)
        begin = end
    assert begin == golden["in.video"].shape[2]


@pytest.mark.golden
def test_streaming_and_whole_decode_of_the_reference(golden_set: GoldenSet) -> None:
    golden = golden_set.tensors("vae")
    vae = golden_vae(golden_set)
    frame_cache: FrameCache = {}
    begin = 0
    wanted = chunks(golden, "dec.stream.chunk")
    for frames in wanted:
        end = begin + -(-frames.shape[2] // vae.frames_per_latent)
        assert_golden(vae.decode_frames(golden["in.z"][:, :, begin:end], frame_cache), frames)
        begin = end
    assert_golden(vae.decode_frames(golden["in.z"]), torch.cat(wanted, dim=2))


@pytest.mark.golden
def test_static_latents_of_the_reference(golden_set: GoldenSet) -> None:
    golden = golden_set.tensors("vae")
    wanted = golden["la.prime_latents"]
    vae = golden_vae(golden_set)
    assert_golden(vae.encode_static(golden["in.image"][:, :, 0], wanted.shape[2]), wanted)


@pytest.mark.golden
@pytest.mark.parametrize("prime", ["given", "from the portrait"])
def test_session_of_live_avatar(golden_set: GoldenSet, prime: str) -> None:
    golden = golden_set.tensors("vae")
    wanted = chunks(golden, "la.block")
    latents = golden["la.prime_latents"]
    drop = wanted[1].shape[2] - wanted[0].shape[2]
    vae = golden_vae(golden_set, first_chunk_drop=drop, num_prime_latents=latents.shape[2])
    image = golden["in.image"][:, :, 0]
    state = vae.start_from(latents) if prime == "given" else vae.start(image)
    step = wanted[1].shape[2] // vae.frames_per_latent
    for index, frames in enumerate(wanted):
        chunk = golden["in.z"][:, :, index * step : (index + 1) * step]
        assert_golden(vae.decode(chunk, state), frames)


@pytest.mark.stream
@settings(deadline=None, max_examples=10)
@given(cuts=st.sets(st.integers(1, 6)), seed=st.integers(0, 3))
def test_decode_cut_anywhere_is_the_whole_decode(cuts: set[int], seed: int) -> None:
    vae = tiny_vae()
    latents = noise(2, 4, 7, 2, 3, seed=seed)
    frame_cache: FrameCache = {}
    edges = [0, *sorted(cuts), 7]
    parts = [
        vae.decode_frames(latents[:, :, begin:end], frame_cache) for begin, end in pairwise(edges)
    ]
    assert torch.equal(torch.cat(parts, dim=2), vae.decode_frames(latents))


@pytest.mark.stream
@settings(deadline=None, max_examples=10)
@given(cuts=st.sets(st.integers(1, 3)))
def test_encode_cut_anywhere_is_the_whole_encode(cuts: set[int]) -> None:
    vae = tiny_vae()
    frames = noise(1, 3, 17, 16, 24)
    frame_cache: FrameCache = {}
    edges = [0, *(1 + 4 * cut for cut in sorted(cuts)), 17]
    parts = [vae.encode(frames[:, :, begin:end], frame_cache) for begin, end in pairwise(edges)]
    torch.testing.assert_close(torch.cat(parts, dim=2), vae.encode(frames), atol=1e-6, rtol=0)


@pytest.mark.stream
def test_later_frames_never_change_earlier_latents() -> None:
    vae = tiny_vae()
    frames = noise(1, 3, 9, 16, 16)
    changed = frames.clone()
    changed[:, :, 5:] = 0.0
    first, second = vae.encode(frames), vae.encode(changed)
    torch.testing.assert_close(first[:, :, :2], second[:, :, :2], atol=1e-6, rtol=0)
    assert (first[:, :, 2] - second[:, :, 2]).abs().max() > 1e-3


@pytest.mark.stream
@pytest.mark.parametrize("num_before", [0, 1, 2])
def test_exported_session_continues_identically(num_before: int) -> None:
    vae = WanVAE(replace(TINY, first_chunk_drop=3)).requires_grad_(False)
    image, latents = noise(1, 3, 16, 24).tanh(), noise(1, 4, 6, 2, 3)
    state = vae.start(image)
    if num_before:
        vae.decode(latents[:, :, :num_before], state)
    exported = state.export_state()
    expected = vae.decode(latents[:, :, num_before:], state)
    other = vae.start(image.flip(3))
    other.import_state(exported)
    assert torch.equal(vae.decode(latents[:, :, num_before:], other), expected)
    moved = other.export_state()
    assert any(not torch.equal(exported[name], moved[name]) for name in moved)


@pytest.mark.stream
def test_sessions_do_not_touch_each_other() -> None:
    vae = tiny_vae()
    image, latents = noise(1, 3, 16, 16).tanh(), noise(1, 4, 4, 2, 2)
    alone = vae.decode(latents, vae.start(image))
    first, second = vae.start(image), vae.start(image.flip(2))
    parts = []
    for index in range(4):
        parts.append(vae.decode(latents[:, :, index : index + 1], first))
        vae.decode(latents[:, :, index : index + 1].neg(), second)
    assert torch.equal(torch.cat(parts, dim=2), alone)


def test_every_latent_of_a_session_gives_four_frames_in_range() -> None:
    vae = tiny_vae()
    state = vae.start(noise(1, 3, 16, 24).tanh())
    for num_latents in (1, 3, 2):
        frames = vae.decode(noise(1, 4, num_latents, 2, 3) * 100, state)
        assert frames.shape == (1, 3, 4 * num_latents, 16, 24)
        assert frames.dtype == torch.float32
        assert frames.abs().max() <= 1.0


def test_state_of_the_default_network_has_32_tensors() -> None:
    narrow = WanVAE(VAEConfig(dim=2))
    state = narrow.start(noise(1, 3, 8, 8).tanh())
    assert len(state.export_state()) == 32 + 1


def test_low_precision_weights_take_and_give_float32() -> None:
    vae = WanVAE(TINY).requires_grad_(False).to(torch.bfloat16)
    image = noise(1, 3, 16, 16).tanh()
    assert vae.encode_reference(image).dtype == torch.float32
    assert vae.decode(noise(1, 4, 1, 2, 2), vae.start(image)).dtype == torch.float32


def test_network_built_without_memory_decodes_once_loaded(tmp_path: Path) -> None:
    save_file(tiny_vae().state_dict(), tmp_path / "codec.safetensors")
    with torch.device("meta"):
        vae = WanVAE(TINY)
    load_into(vae, tmp_path / "codec.safetensors")
    image, latents = noise(1, 3, 16, 16).tanh(), noise(1, 4, 2, 2, 2)
    expected = tiny_vae().decode(latents, tiny_vae().start(image))
    assert torch.equal(vae.decode(latents, vae.start(image)), expected)


def test_is_a_video_codec() -> None:
    vae = tiny_vae()
    assert isinstance(vae, VideoCodec)
    assert isinstance(vae.start(noise(1, 3, 8, 8)), DecoderState)
    assert (vae.latent_channels, vae.frames_per_latent) == (4, 4)
    assert vae.latent_size(384, 704) == (48, 88)
    assert vae.encode_reference(noise(1, 3, 16, 8)).shape == (1, 4, 1, 2, 1)


def test_state_of_another_network_is_refused() -> None:
    state = tiny_vae().start(noise(1, 3, 8, 8))
    exported = state.export_state()
    exported.pop("decoder.conv1")
    with pytest.raises(ValueError, match=r"does not fit this VAE .*decoder\.conv1"):
        state.import_state(exported)
    with pytest.raises(ValueError, match="does not fit this VAE"):
        state.import_state({})
    narrow = tiny_vae().start(noise(1, 3, 8, 16))
    with pytest.raises(ValueError, match=r"portrait's size: \S+ is \[1, .*\], not \[1, "):
        state.import_state(narrow.export_state())


@pytest.mark.parametrize("size", [(15, 16), (16, 20), (0, 8)])
def test_picture_that_is_no_whole_number_of_cells_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=f"{size[1]}x{size[0]} px.*multiples of 8"):
        tiny_vae().latent_size(*size)


def test_number_of_frames_that_ends_inside_a_latent_is_refused() -> None:
    vae = tiny_vae()
    frame_cache: FrameCache = {}
    with pytest.raises(ImageError, match="cannot encode 4 frames here; give 1 \\+ a multiple of 4"):
        vae.encode(noise(1, 3, 4, 8, 8), frame_cache)
    vae.encode(noise(1, 3, 5, 8, 8), frame_cache)
    with pytest.raises(ImageError, match="cannot encode 5 frames here; give a multiple of 4"):
        vae.encode(noise(1, 3, 5, 8, 8), frame_cache)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dim_mult": [1, 2]}, "temporal_downsample has 3 entries; give one fewer than dim_mult"),
        ({"z_dim": 8}, "latent_mean must have z_dim = 8 entries"),
        ({"reference": "image2"}, "reference 'image2' is unknown"),
        ({"num_prime_latents": 0}, "num_prime_latents must be at least 1"),
        ({"first_chunk_drop": -1}, "first_chunk_drop must not be negative"),
        ({"dropout": 0.1}, "dropout must be empty or zero"),
        ({"depth": 4}, "unknown VAE fields \\['depth'\\]"),
    ],
)
def test_contradictory_configuration_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VAEConfig.from_dict(values)


def test_published_configuration_is_accepted() -> None:
    published = {"temperal_downsample": [False, True, True], "attn_scales": [], "dropout": 0.0}
    assert VAEConfig.from_dict(published) == VAEConfig()
