"""Speech features become tokens the transformer attends to.

Shape legend: B = batch (times actors), Y = feature layers, C = feature channels, T = feature
frames (4 per latent frame), F = latent frames, H = token heads, D = model channels, S = tokens
of one latent frame.

The encoder is causal: latent frame k sees feature frames 4k - 5 to 4k + 3. At the start of what
it is given, missing history is the first frame repeated. Source: Wan2.2-S2V audio encoder.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, cast

import torch
import torch.nn.functional as F
from torch import nn

from video.attention import Attention, modulated
from video.dit_config import DiTConfig
from video.expression_norm import matched

FEATURES_PER_LATENT = 4
HISTORY_FRAMES = 5
"""True feature frames before a chunk that its first latent frame looks back on."""

_PREFIX_FRAMES = 9
_PREFIX_OUTPUTS = 3
_ADAIN_EPS = 1e-5
_ENCODER_EPS = 1e-6


@dataclass(frozen=True, slots=True)
class AudioTokens:
    """Audio of a run of latent frames: `global_BFD` steers the norm, `local_BFHD` is attended."""

    global_BFD: torch.Tensor
    local_BFHD: torch.Tensor


class AudioHistory:
    """Feature frames that came before a chunk, so that each chunk hears what preceded it.

    Keyed by the chunk's start frame: asking again for the same chunk gives the same history,
    so the denoising steps of a chunk, and a repeated delivery, all hear the same.
    """

    def __init__(self) -> None:
        """No history: the first chunk hears its own first frame repeated."""
        self._start_frame: int | None = None
        self._before_BYCT: torch.Tensor | None = None
        self._after_BYCT: torch.Tensor | None = None

    def reset(self) -> None:
        """Forget everything."""
        self._start_frame = self._before_BYCT = self._after_BYCT = None

    def advance(self, start_frame: int, audio_BYCT: torch.Tensor) -> torch.Tensor | None:
        """History of the chunk at `start_frame`, or None; remembers the chunk's own tail.

        Raises:
            ValueError: the chunk is older than the latest one.
        """
        if self._start_frame is not None and start_frame < self._start_frame:
            raise ValueError(
                f"audio of frame {start_frame} is older than that of frame {self._start_frame}: "
                "only the latest chunk can be delivered again"
            )
        if start_frame != self._start_frame:
            self._start_frame, self._before_BYCT = start_frame, self._after_BYCT
        joined = with_history(audio_BYCT, self._before_BYCT)
        self._after_BYCT = joined[..., -HISTORY_FRAMES:].clone()
        return self._before_BYCT

    def export_state(self) -> dict[str, torch.Tensor]:
        """The state as tensors (copies)."""
        if self._start_frame is None or self._after_BYCT is None:
            return {}
        state = {"start": torch.tensor([self._start_frame]), "after": self._after_BYCT.clone()}
        if self._before_BYCT is not None:
            state["before"] = self._before_BYCT.clone()
        return state

    def import_state(self, state: dict[str, torch.Tensor]) -> None:
        """Take over a state exported elsewhere."""
        self.reset()
        if state:
            self._start_frame = int(state["start"][0])
            self._after_BYCT = state["after"]
            self._before_BYCT = state.get("before")


def with_history(audio_BYCT: torch.Tensor, history_BYCT: torch.Tensor | None) -> torch.Tensor:
    """Put the history before the audio; without one, the first frame repeated."""
    if history_BYCT is None:
        history_BYCT = audio_BYCT[..., :1].expand(*audio_BYCT.shape[:-1], HISTORY_FRAMES)
    return torch.cat([history_BYCT, audio_BYCT], dim=-1)


class _CausalConv(nn.Module):
    """Conv1d of width 3 that looks back only; the first frame repeated stands for the past."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(in_channels, out_channels, 3, stride=stride)

    def forward(self, x_BCT: torch.Tensor) -> torch.Tensor:
        first = x_BCT[..., :1]
        out: torch.Tensor = self.conv(torch.cat([first, first, x_BCT], dim=-1))
        return out


def _norm_act(x_BCT: torch.Tensor) -> torch.Tensor:
    x_BTC = x_BCT.transpose(1, 2)
    x_BTC = F.silu(F.layer_norm(x_BTC, x_BTC.shape[-1:], eps=_ENCODER_EPS))
    return x_BTC.transpose(1, 2)


class _SpeechTokenizer(nn.Module):
    """Two branches over mixed features: per-head local tokens and one global vector."""

    def __init__(self, audio_dim: int, dim: int, num_tokens: int) -> None:
        super().__init__()
        self.num_tokens = num_tokens
        self.conv1_local = _CausalConv(audio_dim, dim // 4 * num_tokens)
        self.conv1_global = _CausalConv(audio_dim, dim // 4)
        self.conv2 = _CausalConv(dim // 4, dim // 2, stride=2)
        self.conv3 = _CausalConv(dim // 2, dim, stride=2)
        self.final_linear = nn.Linear(dim, dim)
        self.padding_tokens = nn.Parameter(torch.zeros(1, 1, 1, dim))

    def forward(self, x_BCT: torch.Tensor) -> AudioTokens:
        # Both branches share conv2 and conv3, so they run as one batch of H + 1 rows.
        local = torch.unflatten(self.conv1_local(x_BCT), 1, (self.num_tokens, -1))
        rows = torch.cat([local, self.conv1_global(x_BCT).unsqueeze(1)], dim=1).flatten(0, 1)
        rows = _norm_act(self.conv3(_norm_act(self.conv2(_norm_act(rows)))))
        tokens = torch.unflatten(rows, 0, (-1, self.num_tokens + 1)).permute(0, 3, 1, 2)
        padding = self.padding_tokens.expand(*tokens.shape[:2], 1, -1)
        local = torch.cat([tokens[:, :, :-1], padding], dim=2)
        return AudioTokens(self.final_linear(tokens[:, :, -1]), local)


class CausalAudioEncoder(nn.Module):
    """Features `[B, Y, C, T]` to tokens of `T / 4` latent frames."""

    def __init__(self, audio_dim: int, num_layers: int, num_tokens: int, dim: int) -> None:
        """`num_layers` feature layers are mixed by learned weights; `num_tokens` local tokens."""
        super().__init__()
        self.weights = nn.Parameter(torch.ones(1, num_layers, 1, 1))
        self.encoder = _SpeechTokenizer(audio_dim, dim, num_tokens)

    def forward(self, audio_BYCT: torch.Tensor) -> AudioTokens:
        """Encode as given: output k sees inputs 4k - 8 to 4k, the first frame standing before."""
        tokens: AudioTokens = self.encoder(self._mix(audio_BYCT.to(self.weights.dtype)))
        return tokens

    def encode_run(
        self, audio_BYCT: torch.Tensor, history_BYCT: torch.Tensor | None = None
    ) -> AudioTokens:
        """Tokens of a run of latent frames from exactly its own features, 4 per latent frame.

        `history_BYCT` holds the 5 true feature frames before the run; None repeats the first.

        Raises:
            ValueError: the number of feature frames is not a multiple of 4.
        """
        if audio_BYCT.shape[-1] % FEATURES_PER_LATENT:
            raise ValueError(
                f"audio has {audio_BYCT.shape[-1]} feature frames: give "
                f"{FEATURES_PER_LATENT} for every latent frame"
            )
        # The outputs of the prefix are dropped, so what stands before the true history is free.
        joined = with_history(audio_BYCT, history_BYCT)
        num_free = _PREFIX_FRAMES - HISTORY_FRAMES
        free = joined[..., :1].expand(*joined.shape[:-1], num_free)
        tokens = self(torch.cat([free, joined], dim=-1))
        kept = slice(_PREFIX_OUTPUTS, None)
        return AudioTokens(tokens.global_BFD[:, kept], tokens.local_BFHD[:, kept])

    def _mix(self, audio_BYCT: torch.Tensor) -> torch.Tensor:
        if audio_BYCT.shape[1] == 1:
            return audio_BYCT[:, 0]
        gains = F.silu(self.weights)
        mixed: torch.Tensor = (audio_BYCT * gains).sum(1) / gains.sum()
        return mixed


class _AdaLayerNorm(nn.Module):
    """Shift and scale of a layer norm, from the global audio vector."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, 2 * dim)

    def forward(self, global_BFD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate = F.silu(global_BFD.to(self.linear.weight.dtype))
        shift, scale = self.linear(gate).unsqueeze(-2).chunk(2, dim=-1)
        return shift, scale


@dataclass(frozen=True, slots=True)
class Heard:
    """Audio as one injector uses it: the norm's shift and scale, keys and values per frame."""

    shift: torch.Tensor
    scale: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor


def join_heard(lanes: Sequence[tuple[Heard, ...]]) -> tuple[Heard, ...]:
    """The audio of several lanes as one batch, lane after lane."""
    if len(lanes) == 1:
        return lanes[0]
    return tuple(
        Heard(
            shift=torch.cat([audio.shift for audio in injector]),
            scale=torch.cat([audio.scale for audio in injector]),
            keys=torch.cat([audio.keys for audio in injector]),
            values=torch.cat([audio.values for audio in injector]),
        )
        for injector in zip(*lanes, strict=True)
    )


class AudioInjector(nn.Module):
    """Cross-attention from each latent frame's picture tokens to that frame's audio tokens.

    Injector j belongs to the j-th entry of the sorted inject list, matched by exact layer id.
    Published names: injector.{j}.*, injector_adain_layers.{j}.linear.*.
    """

    def __init__(
        self, dim: int, num_heads: int, layers: tuple[int, ...], eps: float, *, scale: float = 1.0
    ) -> None:
        """One injector for each transformer layer in `layers`; `scale` is for normalised speech."""
        super().__init__()
        self._scale = scale
        self.slot_of_layer = {layer: j for j, layer in enumerate(sorted(layers))}
        self.injector = nn.ModuleList(Attention(dim, num_heads, eps) for _ in layers)
        self.injector_adain_layers = nn.ModuleList(_AdaLayerNorm(dim) for _ in layers)

    @classmethod
    def of(cls, config: DiTConfig) -> Self | None:
        """The injectors of a network, None if it hears nothing."""
        layers = config.audio_inject_layers
        if not layers:
            return None
        return cls(config.dim, config.num_heads, layers, config.eps, scale=config.audio_scale)

    def prepare(self, tokens: AudioTokens) -> tuple[Heard, ...]:
        """What every injector needs of these tokens; does not depend on the picture."""
        heard = []
        for module, norm in zip(self.injector, self.injector_adain_layers, strict=True):
            attention = cast(Attention, module)
            local = tokens.local_BFHD.to(attention.k.weight.dtype).flatten(0, 1)
            shift, scale = norm(tokens.global_BFD)
            keys, values = attention.keys_values(local)
            heard.append(Heard(shift, scale, keys, values))
        return tuple(heard)

    def forward(
        self,
        layer: int,
        x_BFSD: torch.Tensor,
        heard: tuple[Heard, ...],
        actor_mask_AFS: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """What to add to `x_BFSD` after transformer layer `layer`.

        With `actor_mask_AFS` the audio holds A actors for each sample (actor is the fast axis
        of its batch); each actor's result counts where its mask says.
        """
        slot = self.slot_of_layer[layer]
        num_actors = 1 if actor_mask_AFS is None else actor_mask_AFS.shape[0]
        x_BFSD = x_BFSD.repeat_interleave(num_actors, dim=0) if num_actors > 1 else x_BFSD
        attention = cast(Attention, self.injector[slot])
        audio = heard[slot]
        hidden = modulated(x_BFSD, audio.shift, audio.scale, _ADAIN_EPS)
        hidden = hidden.to(attention.q.weight.dtype).flatten(0, 1)
        out_BFSD = attention.cross(hidden, audio.keys, audio.values).view(x_BFSD.shape)
        if actor_mask_AFS is None:
            return out_BFSD
        masked = torch.unflatten(out_BFSD, 0, (-1, num_actors)) * actor_mask_AFS.unsqueeze(-1)
        return masked.sum(1)

    def into(
        self,
        layer: int,
        x_BGTD: torch.Tensor,
        heard: tuple[Heard, ...],
        frame_shape: tuple[int, int, int],
        actor_mask_AFS: torch.Tensor | None = None,
        base_BGTD: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Tokens after layer `layer` have heard: the first ones, which are noisy, the others not.

        `frame_shape`: chunks, frames of a chunk, places. With `base_BGTD` what is added gets the
        statistics that it has in the same tokens, chunk by chunk.
        """
        num_chunks, num_frames, num_places = frame_shape
        num_noisy = num_chunks * num_frames * num_places
        flat_BLD = x_BGTD.flatten(1, 2)
        noisy_BFSD = torch.unflatten(flat_BLD[:, :num_noisy], 1, (-1, num_places))
        added_BLD: torch.Tensor = self(layer, noisy_BFSD, heard, actor_mask_AFS).flatten(1, 2)
        if base_BGTD is not None:
            base_BLD = base_BGTD.flatten(1, 2)[:, :num_noisy]
            added_BLD = self._scale * matched(added_BLD, base_BLD, num_chunks)
        if num_noisy < flat_BLD.shape[1]:
            added_BLD = F.pad(added_BLD, (0, 0, 0, flat_BLD.shape[1] - num_noisy))
        return (flat_BLD + added_BLD).view(x_BGTD.shape)
