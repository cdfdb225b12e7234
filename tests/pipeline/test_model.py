"""Model folders: what loads, in which dtype, and what is refused."""

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from audio.source import ArraySource
from audio.wav2vec import Wav2Vec2Encoder
from pipeline.catalog import configs_folder, shipped_models
from pipeline.errors import ModelError
from pipeline.generator import AvatarGenerator
from pipeline.model import build_parts, load_model, read_config
from pipeline.plan_parse import load_plan
from tests.support.tiny_model import SIZE_PX, build_tiny_model, tiny_config
from tests.support.viva import ROOT
from video.errors import ImageError, WeightsError

pytestmark = pytest.mark.unit


def picture(side: int = SIZE_PX) -> torch.Tensor:
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def frames(folder: Path, seconds: float = 1.0, **options: Any) -> np.ndarray:
    """A whole render by the model of a folder."""
    model = load_model(str(folder), **options)
    samples_T = (0.1 * np.random.default_rng(1).standard_normal(int(16000 * seconds))).astype("f4")
    generator = AvatarGenerator(model, load_plan("pocket"), picture(), sample_rate=16000)
    pairs = generator.run(ArraySource(samples_T, 16000).chunks())
    return np.concatenate([video.frames_THWC for video, _ in pairs])


def test_every_shipped_model_has_a_config_that_parses() -> None:
    for name in shipped_models():
        folder, config = read_config(name)
        assert folder == configs_folder() / "models" / name
        assert config.name == name
        build_parts(config, folder, on_meta=True)


def test_all_weights_are_given_and_none_is_left_without_memory(tmp_path: Path) -> None:
    model = load_model(str(build_tiny_model(tmp_path / "m")))
    for part in model.parts.named().values():
        for tensor in (*part.parameters(), *part.buffers()):
            assert tensor.device.type == "cpu"
            assert not tensor.requires_grad
        assert not part.training
    assert model.fps == Fraction(25)


def test_loading_does_not_load_the_compiler(tmp_path: Path) -> None:
    """torch's compiler and sympy would take a second and a half of every start."""
    program = (
        "import sys\n"
        "from pipeline.model import load_model\n"
        "load_model(sys.argv[1])\n"
        "heavy = {'torch._dynamo', 'torch._inductor', 'sympy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    folder = build_tiny_model(tmp_path / "m")
    subprocess.run([sys.executable, "-c", program, folder], check=True, cwd=ROOT)


@pytest.mark.parametrize("name", ["n" * 300, "d" * 200 + "/" + "n" * 5000, "a\0b", "./a\0b"])
def test_names_that_no_folder_can_have_are_refused(name: str) -> None:
    with pytest.raises(ModelError, match=r"unknown model|no config\.json|cannot be read"):
        read_config(name)


def test_bfloat16_gives_nearly_the_same_pictures(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "m")
    exact, rough = frames(folder, 0.2), frames(folder, 0.2, dtype=torch.bfloat16)
    difference = np.abs(exact.astype(float) - rough).mean()
    assert 0 < difference < 4


MOTION = {
    "prediction": "residual",
    "dit": tiny_config()["dit"]
    | {"in_dim": 32, "out_dim": 32, "cond_dim": 32, "patch_size": [1, 1, 1]},
    "codec": {
        "kind": "motion",
        "portrait_channels": 4,
        "refiner_channels": 4,
        "frame_features": 4,
        "painter_channels": 4,
        "painter_blocks": 1,
    },
    "prior": {
        "audio_channels": 14,
        "latent_channels": 32,
        "hidden": 8,
        "audio_hidden": 8,
        "num_blocks": 1,
    },
}


def test_a_model_with_motion_codec_and_prior_runs(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "m", **MOTION)
    assert (folder / "prior.safetensors").is_file()
    assert frames(folder).shape == (25, SIZE_PX, SIZE_PX, 3)


def test_a_session_with_motion_codec_and_prior_moves_bit_for_bit(tmp_path: Path) -> None:
    model = load_model(str(build_tiny_model(tmp_path / "m", **MOTION)))
    samples_T = (0.1 * np.random.default_rng(1).standard_normal(32000)).astype("f4")
    sound = list(ArraySource(samples_T, 16000).chunks())

    def fresh() -> AvatarGenerator:
        return AvatarGenerator(model, load_plan("pocket"), picture(), sample_rate=16000)

    whole = [video.frames_THWC for video, _ in fresh().run(sound)]
    first, second = fresh(), fresh()
    made = [video.frames_THWC for chunk in sound[:17] for video, _ in first.push(chunk)]
    second.import_state(first.export_state())
    made += [video.frames_THWC for video, _ in second.run(sound[17:])]
    assert len(made) == len(whole)
    assert all(np.array_equal(a, b) for a, b in zip(made, whole, strict=True))


def test_a_model_that_hears_through_wav2vec2_runs(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the wav2vec extra is not installed")
    small = {
        "hidden_size": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "conv_dim": [8] * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 2,
        "apply_spec_augment": False,
    }
    dit = tiny_config()["dit"] | {"audio_dim": 12, "num_audio_layers": 3}
    folder = build_tiny_model(tmp_path / "m", speech={"kind": "wav2vec2"}, dit=dit)
    (folder / "speech").mkdir()
    (folder / "speech" / "config.json").write_text(json.dumps(small))
    network = transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**small))
    save_file(network.state_dict(), folder / "speech" / "model.safetensors")
    assert isinstance(load_model(str(folder)).speech_encoder(), Wav2Vec2Encoder)
    assert len(frames(folder)) == 25


def test_a_network_with_text_and_motion_frames_takes_its_prompt_from_the_folder(
    tmp_path: Path,
) -> None:
    dit = tiny_config()["dit"] | {"text_dim": 6, "text_len": 4, "enable_framepack": True}
    codec = tiny_config()["codec"] | {"z_dim": 16, "latent_mean": [0.0] * 16}
    codec |= {"latent_std": [1.0] * 16}
    dit |= {"in_dim": 16, "out_dim": 16, "cond_dim": 16}
    folder = build_tiny_model(tmp_path / "m", dit=dit, codec=codec)
    made = []
    for seed in (1, 2):
        prompt = torch.randn(3, 6, generator=torch.Generator().manual_seed(seed))
        save_file({"context_SD": prompt}, folder / "context.safetensors")
        made.append(frames(folder, 0.4))
    assert not np.array_equal(made[0], made[1])
    save_file({"prompt": prompt}, folder / "context.safetensors")
    with pytest.raises(WeightsError, match="context_SD"):
        load_model(str(folder))


@pytest.mark.parametrize(
    ("section", "change", "names"),
    [
        ("dit", {"in_dim": 5}, "dit.in_dim"),
        ("dit", {"out_dim": 5}, "dit.out_dim"),
        ("dit", {"audio_dim": 9}, "dit.audio_dim"),
        ("dit", {"num_audio_layers": 2}, "dit.num_audio_layers"),
        ("speech", {"out_channels": 4}, "dit.audio_dim"),
    ],
)
def test_parts_that_do_not_understand_each_other_are_refused(
    tmp_path: Path, section: str, change: dict[str, Any], names: str
) -> None:
    folder = build_tiny_model(tmp_path / "m", **{section: tiny_config()[section] | change})
    with pytest.raises(ModelError, match=f"config.json: {names}"):
        load_model(str(folder))


def test_a_size_that_is_no_whole_number_of_patches_is_refused(tmp_path: Path) -> None:
    model = load_model(str(build_tiny_model(tmp_path / "m")))
    with pytest.raises(ImageError, match=r"72x72.*steps of 16x16"):
        AvatarGenerator(model, load_plan("pocket"), picture(72), sample_rate=16000)


def test_exact_frame_rates_are_written_as_fractions(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "m", fps="30000/1001")
    assert read_config(str(folder))[1].fps == Fraction(30000, 1001)
