"""A miniature of the pocket recipe end to end: made-up clips in, a model folder that loads out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from audio.mel_encoder import MelEncoderConfig, MelEncoderNet
from pipeline.model import load_model
from training import assemble, codec
from training.codec import NAMES, group_batch
from training.commands import dispatch
from training.errors import InputError
from training.loop import export
from training.shards import fields_of, mirror_fields, read_shard
from video.motion_codec import MotionCodec, MotionCodecConfig
from video.warp import resize, warp

pytestmark = pytest.mark.train

CLIPS = 2
NAMED = {"prior": "prior", "base": "dit"}


def _smooth(rng: np.random.Generator, *shape: int, cells: int = 4, size: int) -> np.ndarray:
    coarse = torch.from_numpy(rng.standard_normal((int(np.prod(shape)), 1, cells, cells)))
    fine = torch.nn.functional.interpolate(coarse.float(), size=(size, size), mode="bicubic")
    return fine.reshape(*shape, size, size).numpy()


def _write_shard(path: Path) -> None:
    rng = np.random.default_rng(5)
    flow128 = (_smooth(rng, CLIPS, 16, 2, size=128) * 8).astype(np.float16)
    groups = np.tile(np.array([0, 8, 16, 44], np.int32), (CLIPS, 1))
    rgb = (_smooth(rng, CLIPS, 3, size=256) * 40 + 128).clip(0, 255).astype(np.uint8)
    ref = torch.from_numpy(rgb).float()
    moved = [
        warp(
            ref,
            resize(torch.from_numpy(flow128[:, f].astype(np.float32)), 256, 256),
        )
        for f in range(16)
    ]
    frames = torch.stack(moved, dim=1).permute(0, 1, 3, 4, 2).round().to(torch.uint8)
    flow64 = _smooth(rng, CLIPS, 48, 2, size=64)
    np.savez(
        path,
        ref_rgb=rgb.transpose(0, 2, 3, 1),
        ref_depth=np.full((CLIPS, 64, 64), 5, np.float16),
        ref_headness=np.ones((CLIPS, 64, 64), np.float16),
        flow64=flow64.astype(np.float16),
        occl64=rng.integers(0, 30, (CLIPS, 48, 64, 64), dtype=np.uint8),
        group_start=groups,
        rgb=frames.numpy(),
        flow128=flow128,
        occl128=rng.integers(0, 30, (CLIPS, 16, 128, 128), dtype=np.uint8),
        samples=rng.integers(-9000, 9000, (CLIPS, 41920), dtype=np.int16),
        pose=rng.normal(0, 0.03, (CLIPS, 48, 6)).astype(np.float32),
        blink=np.zeros((CLIPS, 48), np.float16),
        gaze=rng.normal(0, 0.05, (CLIPS, 48, 2)).astype(np.float16),
        openness=rng.uniform(0, 9, (CLIPS, 48)).astype(np.float32),
        ref_openness=np.zeros(CLIPS, np.float32),
        visemes=rng.random((CLIPS, 48, 6)).astype(np.float16),
    )


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    _write_shard(folder / "clips_00000.npz")
    return folder


def _train(command: str, **options: object) -> None:
    arguments = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    dispatch("train", [command, *arguments])


def test_mirroring_a_field_mirrors_the_motion(clips: Path) -> None:
    shard = read_shard(clips / "clips_00000.npz", ("flow64", "occl64"))
    flow = torch.from_numpy(shard["flow64"].astype(np.float32))
    hidden = torch.from_numpy(shard["occl64"].astype(np.float32))
    field = fields_of(flow, hidden)
    mirrored = mirror_fields(field)
    assert torch.equal(mirror_fields(mirrored), field)
    picture = torch.rand(1, 3, 64, 64)
    warped = warp(picture, field[0, 0, :1, :2])
    twin = warp(picture.flip(-1), mirrored[0, 0, :1, :2])
    torch.testing.assert_close(twin.flip(-1), warped, atol=1e-4, rtol=1e-4)


def test_a_batch_holds_what_belongs_together(clips: Path) -> None:
    shard = read_shard(clips / "clips_00000.npz", NAMES)
    batch = group_batch(shard, np.random.default_rng(0), 2)
    portrait = batch.portrait_B3HW.repeat_interleave(4, dim=0)
    exact = warp(portrait, resize(batch.flow_N2SS, 256, 256))
    error = float((exact - batch.frames_N3HW).abs().mean())
    assert error < 0.25 * float((portrait - batch.frames_N3HW).abs().mean())


def test_the_recipe_ends_in_a_model_folder_that_loads(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = tmp_path / "parts"
    speech = MelEncoderNet(MelEncoderConfig())
    export(speech.state_dict(), "", parts / "speech.safetensors")
    run = tmp_path / "codec"
    painter = tmp_path / "painter.safetensors"
    _train("codec", clips=clips, run=run, out=painter, steps=2, batch=1)
    core = run / "core.safetensors"
    clip_latents = tmp_path / "latents.safetensors"
    encoder = parts / "speech.safetensors"
    _train("latents", clips=clips, codec=core, speech=encoder, out=clip_latents)
    common = {"latents": clip_latents, "held-out": clip_latents, "steps": 2, "batch": 2}
    _train("prior", **common, codec=core, run=tmp_path / "prior", out=parts)
    assert "own_corr" in (tmp_path / "prior" / "held_out.jsonl").read_text()
    out = parts / "dit.safetensors"
    _train("base", **common, parts=parts, run=tmp_path / "base", out=out)
    assert (tmp_path / "base" / "curves.png").stat().st_size > 1000
    _train("assemble", parts=parts, painter=painter, out=tmp_path / "model")
    model = load_model(str(tmp_path / "model"))
    assert model.name == "pocket"
    for part in ("prior", "base"):  # fine-tuning for no step changes nothing
        begun, ended = parts / f"{NAMED[part]}.safetensors", tmp_path / "tuned" / part
        beside = {"codec": core} if part == "prior" else {"parts": parts}
        where = {"run": tmp_path / f"tune {part}", "out": ended, "init": begun, "steps": 0}
        _train(part, latents=clip_latents, **beside, **where)
        tuned = ended / "prior.safetensors" if part == "prior" else ended
        assert tuned.read_bytes() == begun.read_bytes()
    weights = tmp_path / "model" / "codec.safetensors"
    _train("measure", clips=clips, codec=weights, batches=1)
    assert "psnr_db" in capsys.readouterr().out


def test_parts_of_different_cores_are_refused() -> None:
    one, other = ({"motion.mean_GGD": torch.full((1,), value)} for value in (0.0, 1.0))
    with pytest.raises(ValueError, match="same linear core"):
        assemble.join_codec(one, other)


def test_the_loss_falls_within_a_few_steps(clips: Path) -> None:
    torch.manual_seed(0)
    network = MotionCodec(MotionCodecConfig())
    codec.fit_core(network, clips, 1)
    batch = group_batch(read_shard(clips / "clips_00000.npz", NAMES), np.random.default_rng(1), 1)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    noise, losses = torch.zeros(1, network.config.local_channels, 1, 8, 8), []
    for _ in range(8):
        loss, _ = codec.codec_loss(network, batch, noise)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.93 * losses[0]


def test_bytes_are_recoloured_as_pictures_are() -> None:
    pictures = torch.randint(0, 256, (2, 3, 8, 8, 3), dtype=torch.uint8)
    quick, again = codec.recolour_bytes(pictures, pictures, np.random.default_rng(5))
    plain = pictures.permute(0, 1, 4, 2, 3).float() / 127.5 - 1
    torch.testing.assert_close(quick, codec.recolour(plain, np.random.default_rng(5)))
    assert torch.equal(quick, again)


def test_a_codec_begins_from_what_fits_of_an_earlier_one(tmp_path: Path) -> None:
    network, path = MotionCodec(MotionCodecConfig()), tmp_path / "earlier.safetensors"
    earlier = {name: torch.full_like(p, 0.5) for name, p in network.named_parameters()}
    earlier["refiner.emit.bias"] = torch.zeros(1)
    earlier["gone"] = torch.zeros(1)
    save_file(earlier, path)
    assert codec.begin_from(network, path) == len(earlier) - 2
    assert float(network.portrait.stem.weight.detach().min()) == 0.5
    save_file({"gone": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="nothing that fits"):
        codec.begin_from(network, path)


def test_a_named_core_is_kept(clips: Path, tmp_path: Path) -> None:
    network, path = MotionCodec(MotionCodecConfig()), tmp_path / "earlier.safetensors"
    for buffer in network.motion.buffers():
        buffer.normal_(generator=torch.Generator().manual_seed(2))
    export(network.state_dict(), "", path)
    run = {"clips": clips, "run": tmp_path / "run", "steps": 0, "core": path}
    _train("codec", **run, **{"begin-from": path}, out=tmp_path / "painter.safetensors")
    for made in (tmp_path / "painter.safetensors", tmp_path / "run" / "core.safetensors"):
        kept = load_file(made)
        for name, tensor in load_file(path).items():
            if not name.startswith("identity."):
                assert torch.equal(kept[name], tensor), name


def test_a_whole_codec_is_taken_over_or_its_parts_but_not_both(clips: Path, tmp_path: Path) -> None:
    path = tmp_path / "whole.safetensors"
    export(MotionCodec(MotionCodecConfig()).state_dict(), "", path)
    run = {"clips": clips, "run": tmp_path / "run", "steps": 0, "init": path}
    with pytest.raises(InputError, match="leave out --core"):
        _train("codec", **run, core=path)
    _train("codec", **run, out=tmp_path / "same.safetensors")
    assert (tmp_path / "same.safetensors").read_bytes() == path.read_bytes()


def test_weights_of_an_earlier_shape_are_refused_in_one_line(clips: Path, tmp_path: Path) -> None:
    path = tmp_path / "earlier.safetensors"
    weights = MotionCodec(MotionCodecConfig()).state_dict()
    weights["refiner.enter.weight"] = torch.zeros(40, 84, 3, 3)
    export(weights, "", path)
    with pytest.raises(InputError, match=r"refiner\.enter\.weight") as refusal:
        _train("measure", clips=clips, codec=path)
    assert "\n" not in str(refusal.value)
