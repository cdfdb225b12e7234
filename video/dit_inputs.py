"""Everything the transformer is given, turned into tokens of its width.

Shape legend: B = batch, C = latent channels, T = latent frames, H, W = latent height and width,
F = latent frames, P = tokens of a latent frame, L = tokens, D = model channels, S = prompt
tokens, Y = audio feature layers, G = token groups sharing one time.
"""

import torch
import torch.nn.functional as F
from torch import nn

from video.audio_tokens import (
    FEATURES_PER_LATENT,
    AudioHistory,
    AudioTokens,
    CausalAudioEncoder,
)
from video.dit_block import timestep_sinusoid
from video.dit_config import DiTConfig
from video.frame_packer import FramePacker
from video.rope import NATIVE, LatentGrid, RopeScaling

_NOISY_ROW, _REFERENCE_ROW, _MOTION_ROW = range(3)


class DiTInputs(nn.Module):
    """Input side of `SpeechToVideoDiT`, under the published top-level parameter names."""

    def __init__(self, config: DiTConfig) -> None:
        """Create only the parameters the config switches on."""
        super().__init__()
        self.config = config
        dim, patch = config.dim, config.patch_size
        self.patch_embedding = nn.Conv3d(config.in_dim, dim, patch, stride=patch)
        self.cond_encoder: nn.Conv3d | None = None
        if config.cond_dim:
            self.cond_encoder = nn.Conv3d(config.cond_dim, dim, patch, stride=patch)
        self.text_embedding: nn.Sequential | None = None
        if config.text_dim:
            self.text_embedding = nn.Sequential(
                nn.Linear(config.text_dim, dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim)
            )
        self.time_embedding = nn.Sequential(
            nn.Linear(config.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim)
        )
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, dim * 6))
        num_kinds = 3 if config.enable_framepack else 2
        # Left to `initialise` to fill: a draw on the meta device would load torch's compiler.
        self.trainable_cond_mask = nn.Embedding(num_kinds, dim, _weight=torch.empty(num_kinds, dim))
        self.casual_audio_encoder: CausalAudioEncoder | None = None
        if config.audio_inject_layers:
            self.casual_audio_encoder = CausalAudioEncoder(
                config.audio_dim, config.num_audio_layers, config.num_audio_token, dim
            )
        self.frame_packer: FramePacker | None = None
        if config.enable_framepack:
            self.frame_packer = FramePacker(config.in_dim, dim)

    @property
    def weight_dtype(self) -> torch.dtype:
        """Dtype the large matrix products run in."""
        return self.patch_embedding.weight.dtype

    @property
    def _stream_dtype(self) -> torch.dtype:
        """Dtype of the residual stream: at least float32."""
        return torch.promote_types(self.weight_dtype, torch.float32)

    def latent_grid(self, latents_BCTHW: torch.Tensor, scaling: RopeScaling = NATIVE) -> LatentGrid:
        """Grid of these latents, placed as `scaling` says.

        Raises:
            ValueError: channels or size do not fit the network.
        """
        shape = tuple(latents_BCTHW.shape)
        _, patch_height, patch_width = self.config.patch_size
        if len(shape) != 5 or shape[1] != self.config.in_dim:
            raise ValueError(
                f"latents have shape {shape}: expected [batch, {self.config.in_dim}, frames, "
                "height, width]"
            )
        if shape[3] % patch_height or shape[4] % patch_width or not shape[3] * shape[4]:
            raise ValueError(
                f"latents of {shape[3]} x {shape[4]} cannot be cut into patches of "
                f"{patch_height} x {patch_width}"
            )
        return LatentGrid(
            height=shape[3],
            width=shape[4],
            patch_height=patch_height,
            patch_width=patch_width,
            scaling=scaling,
        )

    def embed_noisy(self, x_BCTHW: torch.Tensor, cond_BCTHW: torch.Tensor | None) -> torch.Tensor:
        """Tokens `[B, F, P, D]` of noisy latents with the condition latents added.

        Raises:
            ValueError: condition latents for a network without them, or of another shape.
        """
        offset_D = self.trainable_cond_mask.weight[_NOISY_ROW]
        x_BFPD = self._patches(self.patch_embedding, x_BCTHW) + offset_D
        if self.cond_encoder is None:
            if cond_BCTHW is not None:
                raise ValueError("condition latents for a network without them (cond_dim 0)")
        elif cond_BCTHW is None:
            # Zeros would leave the bias, so absent latents leave it as well.
            x_BFPD = x_BFPD + self.cond_encoder.get_parameter("bias")
        elif cond_BCTHW.shape[2:] != x_BCTHW.shape[2:]:
            raise ValueError(
                f"condition latents {tuple(cond_BCTHW.shape)} do not match the latents "
                f"{tuple(x_BCTHW.shape)}"
            )
        else:
            x_BFPD = x_BFPD + self._patches(self.cond_encoder, cond_BCTHW)
        return x_BFPD.to(self._stream_dtype)

    def embed_condition(
        self, reference_BCTHW: torch.Tensor, motion_BCTHW: torch.Tensor | None
    ) -> torch.Tensor:
        """Tokens `[B, L, D]` of the reference, followed by those of the motion history.

        Raises:
            ValueError: not exactly one reference frame; motion missing or superfluous.
        """
        if reference_BCTHW.shape[2] != 1:
            raise ValueError(
                f"reference has {reference_BCTHW.shape[2]} latent frames: give exactly one"
            )
        if (motion_BCTHW is None) != (self.frame_packer is None):
            need = "needs" if self.frame_packer is not None else "has no place for"
            raise ValueError(f"this network {need} motion latents (enable_framepack)")
        rows = self.trainable_cond_mask.weight
        tokens = self._patches(self.patch_embedding, reference_BCTHW)[:, 0] + rows[_REFERENCE_ROW]
        if self.frame_packer is not None:
            motion = self.frame_packer(motion_BCTHW) + rows[_MOTION_ROW]
            tokens = torch.cat([tokens, motion], dim=1)
        return tokens.to(self._stream_dtype)

    def embed_text(self, context_BSD: torch.Tensor | None) -> torch.Tensor | None:
        """Prompt tokens `[B, text_len, D]`; all of them are attended, padding included.

        Raises:
            ValueError: a prompt is missing, superfluous, too long or not `[B, S, text_dim]`.
        """
        if self.text_embedding is None:
            if context_BSD is not None:
                raise ValueError("a prompt for a network without text (text_dim 0)")
            return None
        if context_BSD is None:
            raise ValueError("this network needs a prompt: give context [batch, tokens, text_dim]")
        missing = self.config.text_len - context_BSD.shape[1]
        if missing < 0 or context_BSD.shape[2] != self.config.text_dim:
            raise ValueError(
                f"prompt states {tuple(context_BSD.shape)} do not fit [batch, up to "
                f"{self.config.text_len}, {self.config.text_dim}]"
            )
        padded = F.pad(context_BSD, (0, 0, 0, missing)).to(self.weight_dtype)
        tokens: torch.Tensor = self.text_embedding(padded)
        return tokens

    def embed_times(self, t_BG: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Time vectors `[B, G, D]` for the head and `[B, G, 6, D]` for the layers."""
        sinusoid = timestep_sinusoid(t_BG, self.config.freq_dim)
        weight = self.time_embedding.get_submodule("0").get_parameter("weight")
        time_BGD = self.time_embedding(sinusoid.to(weight.dtype))
        return time_BGD, torch.unflatten(self.time_projection(time_BGD), -1, (6, -1))

    def chunk_audio(
        self, audio_BYCT: torch.Tensor, start_frame: int, history: AudioHistory | None
    ) -> AudioTokens:
        """Audio tokens of one streamed chunk.

        Raises:
            ValueError: shape, or a missing history under `audio_context` "carry".
        """
        encoder = self._checked_encoder(audio_BYCT)
        if self.config.audio_context == "reset":
            return encoder.encode_run(audio_BYCT)
        if history is None:
            raise ValueError("audio_context 'carry' needs audio_state: keep one per session")
        return encoder.encode_run(audio_BYCT, history.advance(start_frame, audio_BYCT))

    def clip_audio(
        self,
        audio_BYCT: torch.Tensor,
        per_chunk: bool | None,
        history_BYCT: torch.Tensor | None,
    ) -> AudioTokens:
        """Audio tokens of a whole clip, each chunk alone or all at once.

        `per_chunk` None follows the config: alone under "reset".

        Raises:
            ValueError: shape, or a history for chunks that are encoded alone.
        """
        encoder = self._checked_encoder(audio_BYCT)
        alone = self.config.audio_context == "reset" if per_chunk is None else per_chunk
        if not alone:
            return encoder.encode_run(audio_BYCT, history_BYCT)
        if history_BYCT is not None:
            raise ValueError("audio_history has no use when every chunk is encoded alone")
        batch, size = audio_BYCT.shape[0], self.config.frames_per_chunk * FEATURES_PER_LATENT
        if audio_BYCT.shape[-1] % size:
            raise ValueError(
                f"audio has {audio_BYCT.shape[-1]} feature frames: give a multiple of {size}"
            )
        chunks = torch.unflatten(audio_BYCT, -1, (-1, size)).movedim(3, 1).flatten(0, 1)
        tokens = encoder.encode_run(chunks)
        return AudioTokens(
            torch.unflatten(tokens.global_BFD, 0, (batch, -1)).flatten(1, 2),
            torch.unflatten(tokens.local_BFHD, 0, (batch, -1)).flatten(1, 2),
        )

    def _checked_encoder(self, audio_BYCT: torch.Tensor) -> CausalAudioEncoder:
        if self.casual_audio_encoder is None:
            raise ValueError("audio for a network that does not hear (no audio_inject_layers)")
        expected = (self.config.num_audio_layers, self.config.audio_dim)
        if audio_BYCT.dim() != 4 or tuple(audio_BYCT.shape[1:3]) != expected:
            raise ValueError(
                f"audio features have shape {tuple(audio_BYCT.shape)}: expected [batch, "
                f"{expected[0]} layers, {expected[1]} channels, frames]"
            )
        return self.casual_audio_encoder

    def _patches(self, embedding: nn.Conv3d, x_BCTHW: torch.Tensor) -> torch.Tensor:
        """The convolution, whose stride is its kernel, as one matrix product: `[B, F, P, D]`."""
        _, height, width = self.config.patch_size
        x = x_BCTHW.to(embedding.weight.dtype)
        x = torch.unflatten(torch.unflatten(x, 4, (-1, width)), 3, (-1, height))
        values = x.permute(0, 2, 3, 5, 1, 4, 6).flatten(4, 6).flatten(2, 3)
        return F.linear(values, embedding.weight.flatten(1), embedding.bias)
