"""A model folder as the parts a generator needs.

A folder holds `config.json` (`ModelConfig`), `dit.safetensors`, `codec.safetensors`,
`speech.safetensors` (or the folder `speech/` of a published wav2vec2), for a model with a prior
`prior.safetensors`, for a network with text `context.safetensors` (the encoded prompt, one tensor
`context_SD`), maybe `adapters/` (`pipeline/adapters.py`), and `CARD.md`.

Shape legend: B = batch (1), C = channels, T = frames, H, W = rows and columns, S = text tokens,
D = their width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from torch import nn

from audio.encoder import SpeechEncoder
from audio.mel_encoder import MelEncoder, MelEncoderConfig, MelEncoderNet
from audio.wav2vec import Wav2Vec2Encoder, load_wav2vec2_folder
from pipeline.adapters import adapt_network
from pipeline.behaviour import BEHAVIOUR_CHANNELS
from pipeline.catalog import is_bare_name, model_path, shipped_models
from pipeline.chain import LocalChain, Schedule
from pipeline.conditioner import Conditioner
from pipeline.errors import ModelError
from pipeline.guidance import silence_for
from pipeline.plan import Plan
from pipeline.plugins.registry import make_plugins
from pipeline.sampler import Denoiser
from pipeline.stage import SessionInputs
from video.codec import VideoCodec
from video.dit import SpeechToVideoDiT
from video.dit_config import DiTConfig
from video.errors import ImageError, WeightsError
from video.motion_codec import MotionCodec, MotionCodecConfig
from video.noise import PredictionKind
from video.prior import MotionPrior, MotionPriorConfig
from video.vae import VAEConfig, WanVAE
from video.weights import load_into, read_checkpoint, read_tensors

MAX_CONFIG_BYTES = 1 << 20
# The frame packer looks at this many latents of history (spec section 1.8).
NUM_MOTION_LATENTS = 19


def _parse_fps(value: Any) -> Any:
    """Frame rates are written as 25 or "30000/1001"; floats would not be exact."""
    if isinstance(value, bool | float):
        raise ValueError('write the frame rate as an integer or a fraction such as "30000/1001"')
    return value


class ModelConfig(BaseModel):
    """What `config.json` says; sections are parsed by the parts they describe.

    `native_size` is width and height in pixels; `plan` the plan used unless another is named.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    fps: Annotated[Fraction, BeforeValidator(_parse_fps), Field(ge=1, le=60)]
    native_size: tuple[Annotated[int, Field(ge=16, le=8192)], Annotated[int, Field(ge=16, le=8192)]]
    prediction: PredictionKind
    dit: dict[str, Any]
    codec: dict[str, Any]
    speech: dict[str, Any]
    prior: dict[str, Any] | None = None
    plan: str = "pocket"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelParts:
    """The networks of a model, as built from its config.

    `prior` is None in a model without one, `speech` None where wav2vec2 lies beside the config.
    """

    dit: SpeechToVideoDiT
    codec: MotionCodec | WanVAE
    speech: MelEncoderNet | None
    prior: MotionPrior | None

    def named(self) -> dict[str, nn.Module]:
        """The parts by the stem of their weights file."""
        parts = {"dit": self.dit, "codec": self.codec, "speech": self.speech, "prior": self.prior}
        return {name: part for name, part in parts.items() if part is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Networks with their weights, shared by all sessions; holds nothing of any session."""

    folder: Path
    config: ModelConfig
    parts: ModelParts
    make_encoder: Callable[[], SpeechEncoder]
    context_BSD: torch.Tensor | None = None

    @property
    def name(self) -> str:
        """The model's name."""
        return self.config.name

    @property
    def fps(self) -> Fraction:
        """Pictures per second that the model was made for."""
        return self.config.fps

    @property
    def codec(self) -> VideoCodec:
        """The codec between pictures and latents."""
        return self.parts.codec

    def speech_encoder(self) -> SpeechEncoder:
        """A fresh encoder for one stream of sound."""
        return self.make_encoder()

    def denoiser(self, plan: Plan, *, stage: int | None = None) -> Denoiser:
        """The network as the plan uses it, or as one stage of it does that has the model alone.

        Such a stage may change the model's own weights: make one denoiser of it.

        Raises:
            PlanError: a plug-in or an adapter is not there, or not of use in this plan.
            WeightsError: an adapter cannot be used with this network.
        """
        return Denoiser(
            network=self.parts.dit,
            prediction=self.config.prediction,
            sink_distance=plan.sink_distance,
            plugins=make_plugins(plan),
            adapters=adapt_network(self.parts.dit, self.folder, plan, stage=stage),
            silence_LC=silence_for(plan, self.make_encoder),
        )

    def local_chain(self, plan: Plan, *, schedule: Schedule = "sequential") -> LocalChain:
        """A chain of the plan's stages in this process."""
        return LocalChain.from_plan(plan, self.denoiser(plan), self.codec, schedule=schedule)

    @torch.inference_mode()
    def session_inputs(
        self, portrait_BCHW: torch.Tensor, *, session: str, seed: int, fps: Fraction
    ) -> SessionInputs:
        """Everything the stages must know of a session that shows this portrait.

        Raises:
            ImageError: the codec cannot make pictures of that size.
        """
        codec = self.parts.codec
        self._require_size(*portrait_BCHW.shape[-2:])
        image_BCHW = portrait_BCHW.to(next(codec.parameters()))
        motion_BCTHW = None
        if self.parts.dit.config.enable_framepack and isinstance(codec, WanVAE):
            motion_BCTHW = codec.encode_static(image_BCHW, NUM_MOTION_LATENTS)
        return SessionInputs(
            session=session,
            seed=seed,
            fps=fps,
            image_BCHW=image_BCHW,
            reference_BCTHW=codec.encode_reference(image_BCHW),
            motion_BCTHW=motion_BCTHW,
            context_BSD=self.context_BSD,
        )

    def _require_size(self, height_px: int, width_px: int) -> None:
        """Refuse pictures whose latents do not fall into whole patches of the network."""
        rows, columns = self.codec.latent_size(height_px, width_px)
        _, patch_rows, patch_columns = self.parts.dit.config.patch_size
        if rows % patch_rows or columns % patch_columns:
            steps = width_px // columns * patch_columns, height_px // rows * patch_rows
            raise ImageError(
                f"model {self.name} cannot make pictures of {width_px}x{height_px}: choose a size "
                f"in steps of {steps[0]}x{steps[1]}"
            )

    def conditioner(self, inputs: SessionInputs) -> Conditioner:
        """The prior of one session."""
        return Conditioner(
            self.parts.prior,
            inputs.reference_BCTHW,
            frames_per_latent=self.codec.frames_per_latent,
            seed=inputs.seed,
            fps=inputs.fps,
        )


def load_model(
    name: str,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    denoises: bool = True,
) -> Model:
    """The shipped model of that name, or the one in the folder of that path.

    `dtype` is what the large networks compute in; the speech encoder, the prior and the motion
    codec stay float32.
    Without `denoises` the denoising network has no weights: other processes run it.

    Raises:
        ModelError: nothing is found there, or the folder does not describe a model.
        WeightsError: a weights file is missing, damaged or does not fit the config.
    """
    folder, config = read_config(name)
    parts = build_parts(config, folder, on_meta=True)
    for stem, part in parts.named().items():
        if stem == "dit" and not denoises:
            continue
        is_large = stem == "dit" or isinstance(part, WanVAE)
        part_dtype = dtype if is_large else torch.float32
        load_into(part, folder / f"{stem}.safetensors", dtype=part_dtype, device=device)
        part.to(device).eval().requires_grad_(False)
    model = Model(
        folder=folder,
        config=config,
        parts=parts,
        make_encoder=_encoder_maker(parts, folder, device),
        context_BSD=_read_context(folder, device),
    )
    _require_agreement(model)
    return model


def read_config(name: str) -> tuple[Path, ModelConfig]:
    """The folder and config of a model by name or path.

    Raises:
        ModelError: names the folder, the field and the remedy in one line.
    """
    folder = model_path(name)
    path = folder / "config.json"
    try:
        if not path.is_file():
            known = ", ".join(shipped_models()) or "none"
            what = "unknown model" if is_bare_name(name) else "no config.json in the model folder"
            raise ModelError(f"{what} {name!r}: use one of {known}, or the path of a model folder")
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ModelError(f"{path} is larger than {MAX_CONFIG_BYTES} bytes: not a model config")
        return folder, ModelConfig.model_validate_json(path.read_bytes())
    except OSError as error:
        reason = error.strerror or error
        raise ModelError(f"{path} cannot be read ({reason}): check its permissions") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ModelError(f"{path}: {field}: {' '.join(first['msg'].split())}: fix it") from error


def build_parts(config: ModelConfig, folder: Path, *, on_meta: bool = False) -> ModelParts:
    """The networks that a config describes, with fresh weights.

    `on_meta` builds those that may be large without memory, to be given weights at once.

    Raises:
        ModelError: a section names an unknown kind or field, or contradicts itself.
    """
    device = torch.device("meta" if on_meta else "cpu")
    try:
        with device:
            dit = SpeechToVideoDiT(DiTConfig.from_dict(config.dit))
        return ModelParts(
            dit=dit,
            codec=_build_codec(dict(config.codec), device),
            speech=_build_speech(dict(config.speech)),
            prior=None
            if config.prior is None
            else MotionPrior(MotionPriorConfig.from_dict(config.prior)),
        )
    except (ValueError, TypeError, RuntimeError, MemoryError, OverflowError) as error:
        # The last three are torch's and Python's words for dimensions that no machine can hold.
        reason = " ".join(str(error).split())
        raise ModelError(f"{folder / 'config.json'}: {reason}: fix that section") from error


def _build_codec(section: dict[str, Any], device: torch.device) -> MotionCodec | WanVAE:
    """The codec of a section by its kind; the small one is never built without memory."""
    kind = section.pop("kind", None)
    if kind == "motion":
        return MotionCodec(MotionCodecConfig.from_dict(section))
    if kind == "wan":
        with device:
            return WanVAE(VAEConfig.from_dict(section))
    raise ValueError(f"codec.kind {kind!r} is unknown, use motion or wan")


def _build_speech(section: dict[str, Any]) -> MelEncoderNet | None:
    """The speech encoder of a section by its kind; None where it brings its own config."""
    kind = section.pop("kind", None)
    if kind == "mel":
        return MelEncoderNet(MelEncoderConfig.from_dict(section))
    if kind == "wav2vec2" and not section:
        return None
    raise ValueError(f"speech.kind {kind!r} with {sorted(section)} is unknown: use mel or wav2vec2")


def _encoder_maker(
    parts: ModelParts, folder: Path, device: torch.device | str
) -> Callable[[], SpeechEncoder]:
    """What makes a fresh encoder around the model's one network."""
    if parts.speech is not None:
        return partial(MelEncoder, parts.speech)
    return partial(Wav2Vec2Encoder, load_wav2vec2_folder(folder / "speech").to(device))


def _require_agreement(model: Model) -> None:
    """Refuse parts that would not understand each other, before the first chunk."""
    dit, codec, prior = model.parts.dit.config, model.codec, model.parts.prior
    encoder = model.speech_encoder()
    pairs = {
        "dit.in_dim": (dit.in_dim, codec.latent_channels, "the codec's latent channels"),
        "dit.out_dim": (dit.out_dim, codec.latent_channels, "the codec's latent channels"),
    }
    if dit.audio_inject_layers:
        pairs["dit.audio_dim"] = (dit.audio_dim, encoder.channels, "the speech channels")
        layers = (dit.num_audio_layers, encoder.num_layers, "the speech layers")
        pairs["dit.num_audio_layers"] = layers
    if prior is not None:
        audio = (prior.config.audio_channels, encoder.channels, "the speech channels")
        latents = (prior.config.latent_channels, codec.latent_channels, "the latent channels")
        pairs |= {"prior.audio_channels": audio, "prior.latent_channels": latents}
        if tracks := prior.config.behaviour_channels:
            drawn = (tracks, BEHAVIOUR_CHANNELS, "the tracks of behaviour that sessions draw")
            pairs["prior.behaviour_channels"] = drawn
    for name, (value, wanted, what) in pairs.items():
        if value != wanted:
            raise ModelError(
                f"{model.folder / 'config.json'}: {name} {value} does not equal {what} {wanted}: "
                "use parts that were trained together"
            )


def _read_context(folder: Path, device: torch.device | str) -> torch.Tensor | None:
    """The encoded prompt that a model folder carries, if any."""
    path = folder / "context.safetensors"
    if not path.is_file():
        return None
    stored = read_checkpoint(path)
    if "context_SD" not in stored:
        raise WeightsError(f"{path} holds no tensor 'context_SD': save the encoded prompt as that")
    ((_, context_SD),) = read_tensors([stored["context_SD"]], device)
    return context_SD[None]
