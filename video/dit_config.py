"""Every dimension of the causal speech-to-video transformer, checked at construction."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

AudioContext = Literal["reset", "carry"]
AudioNorm = Literal["none", "expression"]

# Beyond any network there is: building a mistyped number of layers would not end.
_MAX_LAYERS = 1000

_PUBLISHED_NAMES = {"frames_per_block": "frames_per_chunk"}
_PUBLISHED_FIXED: dict[str, tuple[Any, ...]] = {
    "model_type": ("s2v",),
    "enable_adain": (True,),
    "adain_mode": ("attn_norm",),
    "zero_timestep": (True,),
    "enable_motioner": (False,),
    "enable_tsm": (False,),
    "trainable_token_pos_emb": (False,),
    "add_last_motion": (True, 2),
    "framepack_drop_mode": ("padd",),
    "qk_norm": (True,),
    "cross_attn_norm": (True,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DiTConfig:
    """Dimensions of `SpeechToVideoDiT`; what is switched off here creates no parameters.

    `cond_dim` 0: no pose or prior latents. `text_dim` 0: no prompt. `enable_framepack` false:
    no motion history. `audio_inject_layers` empty: no audio. `window_frames` is the ring of past
    latent frames, `frames_per_chunk` what is made at once. `audio_context` says whether a chunk
    hears what preceded it ("carry") or starts afresh ("reset", as published). `zero_init`
    starts the head and the injectors' outputs at zero. `audio_norm` "expression" gives heard speech
    the strength of what else tokens read, times `audio_scale` (`video/expression_norm.py`).

    Raises:
        ValueError: a value is out of range or contradicts another.
    """

    dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int
    in_dim: int = 16
    out_dim: int = 16
    cond_dim: int = 0
    patch_size: tuple[int, int, int] = (1, 2, 2)
    text_dim: int = 0
    text_len: int = 512
    freq_dim: int = 256
    audio_dim: int = 1024
    num_audio_layers: int = 25
    num_audio_token: int = 4
    audio_inject_layers: tuple[int, ...] = ()
    enable_framepack: bool = False
    frames_per_chunk: int = 3
    window_frames: int = 12
    audio_context: AudioContext = "reset"
    zero_init: bool = False
    eps: float = 1e-6
    audio_norm: AudioNorm = "none"
    audio_scale: float = 1.0

    def __post_init__(self) -> None:
        """Check what one field alone, and two together, may hold."""
        object.__setattr__(self, "patch_size", tuple(self.patch_size))
        layers = tuple(sorted(self.audio_inject_layers))
        object.__setattr__(self, "audio_inject_layers", layers)
        for name in ("dim", "ffn_dim", "num_heads", "num_layers", "in_dim", "out_dim"):
            self._require(getattr(self, name) >= 1, name, "must be at least 1")
        self._require(self.num_layers <= _MAX_LAYERS, "num_layers", f"exceeds {_MAX_LAYERS}")
        self._require(0.0 < self.eps < 1.0, "eps", "must lie between 0 and 1")
        head_dim, remainder = divmod(self.dim, self.num_heads)
        self._require(not remainder, "dim", f"must be a multiple of num_heads {self.num_heads}")
        self._require(head_dim % 2 == 0 and head_dim >= 6, "dim", "needs even heads of 6 or more")
        self._require(self.dim % 4 == 0, "dim", "must be a multiple of 4")
        self._require(self.freq_dim % 2 == 0, "freq_dim", "must be even")
        valid_patch = len(self.patch_size) == 3 and self.patch_size[0] == 1 <= min(self.patch_size)
        self._require(valid_patch, "patch_size", "must be (1, rows, columns)")
        self._require(
            len(set(layers)) == len(layers) and all(0 <= j < self.num_layers for j in layers),
            "audio_inject_layers",
            f"must be different layers below num_layers {self.num_layers}",
        )
        fits = self.frames_per_chunk >= 1 and self.window_frames >= self.frames_per_chunk
        self._require(
            fits and self.window_frames % self.frames_per_chunk == 0,
            "window_frames",
            f"must be a multiple of frames_per_chunk {self.frames_per_chunk}",
        )
        known = self.audio_context in ("reset", "carry")
        self._require(known, "audio_context", "must be 'reset' or 'carry'")
        known = self.audio_norm in ("none", "expression")
        self._require(known, "audio_norm", "must be 'none' or 'expression'")
        self._require(0.0 <= self.audio_scale <= 100.0, "audio_scale", "must lie in 0..100")
        used = self.audio_norm == "expression" or self.audio_scale == 1.0
        self._require(used, "audio_scale", "is for audio_norm 'expression'")
        square = self.patch_size[1:] == (2, 2)
        self._require(square or not self.enable_framepack, "patch_size", "must be (1, 2, 2) here")

    def _require(self, holds: bool, name: str, rule: str) -> None:
        if not holds:
            raise ValueError(f"{name} {getattr(self, name)!r} {rule}")

    @property
    def head_dim(self) -> int:
        """Channels of one head."""
        return self.dim // self.num_heads

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from parsed JSON; lists stand for tuples.

        Raises:
            ValueError: a key is unknown, a required one is missing, or a value is out of range.
        """
        names = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(names))
        if unknown:
            raise ValueError(f"unknown DiT config keys {unknown}: known are {names}")
        missing = [n for n in ("dim", "ffn_dim", "num_heads", "num_layers") if n not in values]
        if missing:
            raise ValueError(f"DiT config lacks {missing}")
        arguments: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**arguments)

    @classmethod
    def from_published(cls, values: Mapping[str, Any]) -> Self:
        """Build from the config.json of a published Wan2.2-S2V checkpoint.

        Keys without a counterpart are ignored where they do not change the network.

        Raises:
            ValueError: the file asks for a variant of the network that is not built here.
        """
        for key, allowed in _PUBLISHED_FIXED.items():
            if key in values and values[key] not in allowed:
                raise ValueError(f"config has {key} {values[key]!r}: supported are {allowed}")
        renamed = {_PUBLISHED_NAMES.get(key, key): value for key, value in values.items()}
        names = {field.name for field in fields(cls)}
        known = {key: value for key, value in renamed.items() if key in names}
        defaults = {"cond_dim": 16, "text_dim": 4096, "enable_framepack": True}
        return cls.from_dict({**defaults, **known})
