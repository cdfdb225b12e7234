"""The causal speech-to-video diffusion transformer.

Shape legend: B = batch, C = latent channels, T = latent frames, H, W = latent height and width,
F = latent frames of a pass, D = model channels, Y = audio feature layers, A = actors,
S = prompt tokens (or tokens of a latent frame), G = token groups sharing one time.

The published 14-billion-parameter network and the pocket network are configurations of this one
class. It predicts the flow velocity (noise minus data). Times `t` are 1000 * sigma, one for each
latent frame. Source: Wan2.2-S2V and Live Avatar.
"""

from collections.abc import Sequence
from functools import partial
from typing import Self, cast

import torch
from torch import nn

from video.attention_pass import CausalPass, JointPass, SinkDistances, StreamPass
from video.audio_tokens import AudioHistory, AudioInjector, AudioTokens, Heard
from video.block_cache import BlockRunner
from video.dit_block import Head, SelfAttend, TransformerBlock, unpatchify
from video.dit_config import DiTConfig
from video.dit_init import initialise
from video.dit_inputs import DiTInputs
from video.expression_norm import base_of
from video.kv_cache import KVCache, LanePlace, Sink, TextKV, joined_text, require_places
from video.rope import (
    NATIVE,
    REFERENCE_FRAME,
    LatentGrid,
    RopeScaling,
    condition_rotation,
    frames_rotation,
    reference_frame,
)

_FULL_PRECISION = {"time_embedding", "time_projection", "casual_audio_encoder", "head"}


class SpeechToVideoDiT(DiTInputs):
    """Makes velocity for chunks of latent frames from speech, a reference and a prompt.

    `prefill_sink` once per session (and when the reference changes), then `stream` for every
    chunk and denoising step; `forward_full` sees a whole clip at once and is differentiable.
    """

    def __init__(self, config: DiTConfig) -> None:
        """Parameters are freshly initialised; load a checkpoint with `load_state_dict`."""
        super().__init__(config)
        dim, patch, eps = config.dim, config.patch_size, config.eps
        self.blocks = nn.ModuleList(
            TransformerBlock(
                layer, dim, config.ffn_dim, config.num_heads, has_text=config.text_dim > 0, eps=eps
            )
            for layer in range(config.num_layers)
        )
        self.head = Head(dim, patch[1] * patch[2] * config.out_dim, eps)
        self.audio_injector = AudioInjector.of(config)
        initialise(self, zero_outputs=config.zero_init)

    def new_cache(self) -> KVCache:
        """An empty ring for one denoising step of one session."""
        config = self.config
        return KVCache(window_frames=config.window_frames, frames_per_chunk=config.frames_per_chunk)

    def lower_precision(self, dtype: torch.dtype) -> Self:
        """Run the large products in `dtype`; time, audio encoder and head stay float32.

        These few layers steer everything else and cost nothing. The residual stream and all
        norms are float32 in any case. Returns the network itself.
        """
        for name, module in self.named_children():
            module.to(torch.float32 if name in _FULL_PRECISION else dtype)
        return self

    @torch.no_grad()
    def prefill_sink(
        self,
        reference_BCTHW: torch.Tensor,
        motion_BCTHW: torch.Tensor | None = None,
        context_BSD: torch.Tensor | None = None,
        scaling: RopeScaling = NATIVE,
    ) -> Sink:
        """Keys and values of the reference, any motion history and the prompt, for all steps.

        Args:
            reference_BCTHW: one latent frame.
            motion_BCTHW: past latents, oldest first; only for a network with motion frames.
            context_BSD: text states, padded here to `text_len`; only for a network with text.
            scaling: where rows and columns lie; chunks that use the sink follow it.

        Raises:
            ValueError: an input is missing, superfluous or mis-shaped.
        """
        return self._sink(reference_BCTHW, motion_BCTHW, context_BSD, scaling)

    @torch.no_grad()
    def encode_audio(
        self, audio_BYCT: torch.Tensor, *, start_frame: int, history: AudioHistory | None = None
    ) -> tuple[Heard, ...]:
        """Audio of the chunk at `start_frame` as the layers use it, for all its denoising steps.

        Raises:
            ValueError: the config says "carry" and no history is given.
        """
        return self._hear(self.chunk_audio(audio_BYCT, start_frame, history))

    @torch.no_grad()
    def stream(  # noqa: PLR0913 - everything one call of the network depends on
        self,
        x_BCTHW: torch.Tensor,
        t_BF: torch.Tensor,
        audio_BYCT: torch.Tensor | tuple[Heard, ...] | None,
        *,
        start_frame: int,
        cache: KVCache,
        sink: Sink,
        sink_distance: int | None,
        cond_BCTHW: torch.Tensor | None = None,
        context: torch.Tensor | None = None,
        commit: bool = True,
        audio_state: AudioHistory | None = None,
        actor_mask_AFHW: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Velocity `[B, C, F, H, W]` of one chunk at one denoising step; not differentiable.

        Args:
            x_BCTHW: noisy latents of the chunk.
            t_BF: time of each latent frame, 0 to 1000.
            audio_BYCT: 4 feature frames per latent frame, or what `encode_audio` gave. With
                several actors the batch holds them as the fast axis.
            start_frame: absolute index of the chunk's first latent frame.
            cache: the ring of this session and step.
            sink: from `prefill_sink`; brings the prompt along.
            sink_distance: how far ahead the reference stays once it rolls; None never rolls.
            cond_BCTHW: latents added at the input; None counts as zeros.
            context: text states that replace the sink's prompt.
            commit: keep this chunk's keys and values in the ring.
            audio_state: what was heard before, for `audio_context` "carry".
            actor_mask_AFHW: share of each actor in each token, token rows and columns.

        Raises:
            ValueError: a shape, the order of chunks or a switched-off input does not fit.
        """
        place = LanePlace(start_frame=start_frame, cache=cache, sink=sink)
        require_places([place], x_BCTHW.shape[2], self.latent_grid(x_BCTHW))
        text = self._text(context) if context is not None else joined_text([sink])
        heard = audio_BYCT
        if isinstance(heard, torch.Tensor):
            heard = self._hear(self.chunk_audio(heard, start_frame, audio_state))
        x_BFSD = self.embed_noisy(x_BCTHW, cond_BCTHW)
        attention = StreamPass([place], sink_distance, x_BCTHW.shape[0], self.weight_dtype)
        with attention.kept(commit):
            return self._stream(x_BFSD, t_BF, attention, text, heard, actor_mask_AFHW)

    @torch.no_grad()
    def stream_lanes(
        self,
        x_BCTHW: torch.Tensor,
        t_BF: torch.Tensor,
        heard: tuple[Heard, ...] | None,
        places: Sequence[LanePlace],
        *,
        sink_distance: SinkDistances,
        cond_BCTHW: torch.Tensor | None = None,
        runner: BlockRunner | None = None,
    ) -> torch.Tensor:
        """Velocity of several chunks in one pass, each at its own step, place and session.

        Sample b of every input belongs to `places[b]`; all are of one size. The result is that of
        `stream` for each place, but for rounding: products are taken over the whole batch.

        Args:
            x_BCTHW: noisy latents of the chunks.
            t_BF: time of each latent frame, 0 to 1000.
            heard: what `encode_audio` gave for each chunk, joined by `join_heard`.
            places: one for each sample; no cache occurs twice.
            sink_distance: as in `stream`, or one for each place.
            cond_BCTHW: latents added at the input; None counts as zeros.
            runner: runs the blocks in its own way; for a single chunk.

        Raises:
            ValueError: a shape, the order of chunks or a switched-off input does not fit.
        """
        if len(places) != x_BCTHW.shape[0] or len({id(p.cache) for p in places}) != len(places):
            raise ValueError(
                f"{x_BCTHW.shape[0]} chunks in {len(places)} places: give each a cache of its own"
            )
        require_places(places, x_BCTHW.shape[2], self.latent_grid(x_BCTHW))
        x_BFSD = self.embed_noisy(x_BCTHW, cond_BCTHW)
        attention = StreamPass(places, sink_distance, 1, self.weight_dtype)
        text = joined_text([place.sink for place in places])
        return self._stream(x_BFSD, t_BF, attention, text, heard, runner=runner)

    def _stream(
        self,
        x_BFSD: torch.Tensor,
        t_BF: torch.Tensor,
        attention: StreamPass,
        text: TextKV,
        heard: tuple[Heard, ...] | None,
        actor_mask_AFHW: torch.Tensor | None = None,
        runner: BlockRunner | None = None,
    ) -> torch.Tensor:
        """Velocity of the chunks that `attention` has places for."""
        out = self._velocity(x_BFSD, t_BF, attention, text, heard, actor_mask_AFHW, runner)
        return unpatchify(out, attention.grid, self.config.out_dim)

    def forward_full(  # noqa: PLR0913 - everything one call of the network depends on
        self,
        x_BCTHW: torch.Tensor,
        t_BF: torch.Tensor,
        audio_BYCT: torch.Tensor | None,
        reference_BCTHW: torch.Tensor,
        *,
        motion: torch.Tensor | None = None,
        cond: torch.Tensor | None = None,
        context: torch.Tensor | None = None,
        causal: bool = True,
        audio_per_chunk: bool | None = None,
        audio_history: torch.Tensor | None = None,
        sink_distance: int | None = None,
        start_frame: int = 0,
        scaling: RopeScaling = NATIVE,
    ) -> torch.Tensor:
        """Velocity `[B, C, F, H, W]` of a whole clip at once; differentiable.

        Causal: what `stream` gives chunk by chunk with `x_BCTHW` as that step's inputs, the ring
        empty at `start_frame`. Not causal: every token sees every token (the stock network).

        Args:
            x_BCTHW: noisy latents; when causal, a whole number of chunks.
            t_BF: time of each latent frame, 0 to 1000, for each sample.
            audio_BYCT: 4 feature frames per latent frame.
            reference_BCTHW: one latent frame.
            motion: past latents, oldest first.
            cond: latents added at the input; None counts as zeros.
            context: text states.
            causal: each chunk sees the past only.
            audio_per_chunk: encode each chunk's audio alone; None: as `audio_context` says.
            audio_history: the 5 feature frames before the clip, if not encoded per chunk.
            sink_distance: as in `stream`; each chunk sees the reference where it would be then.
            start_frame: absolute index of the clip's first latent frame.
            scaling: where rows and columns lie.

        Raises:
            ValueError: a shape or a switched-off input does not fit.
        """
        num_frames, grid = x_BCTHW.shape[2], self.latent_grid(x_BCTHW, scaling)
        heard = None
        if audio_BYCT is not None:
            alone = audio_per_chunk if causal else False
            heard = self._hear(self.clip_audio(audio_BYCT, alone, audio_history))
        x_BFSD = self.embed_noisy(x_BCTHW, cond)
        if not causal:
            condition = self.embed_condition(reference_BCTHW, motion)
            text = self._text(context)
            out = self._joint(x_BFSD, t_BF, condition, grid, text, heard, start_frame)
            return unpatchify(out, grid, self.config.out_dim)
        per_chunk = self.config.frames_per_chunk
        if num_frames % per_chunk:
            raise ValueError(f"clip of {num_frames} frames is no whole number of {per_chunk}")
        sink = self._sink(reference_BCTHW, motion, context, scaling)
        starts = range(start_frame, start_frame + num_frames, per_chunk)
        attention = CausalPass(
            sink,
            start_frame=start_frame,
            num_frames=num_frames,
            frames_per_chunk=per_chunk,
            window_frames=self.config.window_frames,
            reference_frames=tuple(reference_frame(start, sink_distance) for start in starts),
        )
        text = (sink.text_keys, sink.text_values)
        num = num_frames // per_chunk
        out = self._velocity(x_BFSD, t_BF, attention, text, heard, num_chunks=num)
        return unpatchify(out, grid, self.config.out_dim)

    def _sink(
        self,
        reference_BCTHW: torch.Tensor,
        motion_BCTHW: torch.Tensor | None,
        context_BSD: torch.Tensor | None,
        scaling: RopeScaling,
    ) -> Sink:
        grid, motion = self.latent_grid(reference_BCTHW, scaling), motion_BCTHW is not None
        tokens_BLD = self.embed_condition(reference_BCTHW, motion_BCTHW)
        batch, device = tokens_BLD.shape[0], tokens_BLD.device
        attention = JointPass(self._condition_rotation(grid, motion, device))
        _, times = self.embed_times(torch.zeros(batch, 1, device=device))
        text = self._text(context_BSD)
        self._run(tokens_BLD.unsqueeze(1), times, attention, text, None, None, None)
        return Sink(
            keys=tuple(attention.keys),
            values=tuple(attention.values),
            grid=grid,
            motion=motion,
            text_keys=text[0],
            text_values=text[1],
        )

    def _hear(self, tokens: AudioTokens) -> tuple[Heard, ...]:
        return () if self.audio_injector is None else self.audio_injector.prepare(tokens)

    def _text(self, context_BSD: torch.Tensor | None) -> TextKV:
        """Keys and values of the prompt for every layer; empty without text."""
        tokens = self.embed_text(context_BSD)
        if tokens is None:
            return (), ()
        pairs = [cast(TransformerBlock, block).text_keys_values(tokens) for block in self.blocks]
        return tuple(k for k, _ in pairs), tuple(v for _, v in pairs)

    def _condition_rotation(
        self, grid: LatentGrid, motion: bool, device: torch.device
    ) -> torch.Tensor:
        return condition_rotation(
            REFERENCE_FRAME, grid, motion=motion, head_dim=self.config.head_dim, device=device
        )

    def _joint(
        self,
        x_BFSD: torch.Tensor,
        t_BF: torch.Tensor,
        cond_BLD: torch.Tensor,
        grid: LatentGrid,
        text: TextKV,
        heard: tuple[Heard, ...] | None,
        start_frame: int,
    ) -> torch.Tensor:
        """Patch values of the noisy tokens when all tokens see each other."""
        batch, num_frames, num_places, _ = x_BFSD.shape
        device = x_BFSD.device
        noisy_LR = frames_rotation(start_frame, num_frames, grid, self.config.head_dim, device)
        cond_LR = self._condition_rotation(grid, self.config.enable_framepack, device)
        time_BGD, times_BG6D = self.embed_times(torch.cat([t_BF, t_BF.new_zeros(batch, 1)], dim=1))
        # Tokens here differ in time one by one, so each is a group of its own.
        counts = torch.tensor([num_places] * num_frames + [cond_BLD.shape[1]], device=device)
        times_BL6D = times_BG6D.repeat_interleave(counts, dim=1)
        x_BLD = torch.cat([x_BFSD.flatten(1, 2), cond_BLD], dim=1).unsqueeze(2)
        attention = JointPass(torch.cat([noisy_LR, cond_LR]))
        shape = (1, num_frames, num_places)
        x_BLD = self._run(x_BLD, times_BL6D, attention, text, heard, None, shape)
        noisy = torch.unflatten(x_BLD[:, : num_frames * num_places, 0], 1, shape[1:])
        out: torch.Tensor = self.head(noisy, time_BGD[:, :-1])
        return out

    def _velocity(
        self,
        x_BFSD: torch.Tensor,
        t_BF: torch.Tensor,
        attention: SelfAttend,
        text: TextKV,
        heard: tuple[Heard, ...] | None,
        actor_mask_AFHW: torch.Tensor | None = None,
        runner: BlockRunner | None = None,
        num_chunks: int = 1,
    ) -> torch.Tensor:
        """Patch values of noisy frames, each at its own time."""
        if t_BF.shape != x_BFSD.shape[:2]:
            raise ValueError(
                f"t has shape {tuple(t_BF.shape)}: give one time per sample and latent frame, "
                f"{tuple(x_BFSD.shape[:2])}"
            )
        num_frames, num_places = x_BFSD.shape[1:3]
        shape = (num_chunks, num_frames // num_chunks, num_places)
        mask_AFS = None if actor_mask_AFHW is None else actor_mask_AFHW[:, :num_frames].flatten(2)
        time_BFD, times_BF6D = self.embed_times(t_BF)
        x_BFSD = self._run(x_BFSD, times_BF6D, attention, text, heard, mask_AFS, shape, runner)
        out: torch.Tensor = self.head(x_BFSD, time_BFD)
        return out

    def _run(
        self,
        x_BGTD: torch.Tensor,
        times_BG6D: torch.Tensor,
        attention: SelfAttend,
        text: TextKV,
        heard: tuple[Heard, ...] | None,
        mask_AFS: torch.Tensor | None,
        frame_shape: tuple[int, int, int] | None,
        runner: BlockRunner | None = None,
    ) -> torch.Tensor:
        """All layers; noisy tokens (`frame_shape`: chunks, frames, places) come first, and hear."""
        injected = self.audio_injector.slot_of_layer if self.audio_injector is not None else {}
        keys, values = text
        for layer, block in enumerate(self.blocks):
            text_kv = (keys[layer], values[layer]) if keys else None
            run_block = block if runner is None else partial(runner, cast(TransformerBlock, block))
            before_BGTD = x_BGTD
            x_BGTD = run_block(x_BGTD, times_BG6D, attention, text_kv)
            if self.audio_injector is None or frame_shape is None or layer not in injected:
                continue
            if heard is None:
                raise ValueError("this network hears speech: give audio features")
            base = None
            if self.config.audio_norm == "expression":
                base = base_of(block, before_BGTD, x_BGTD, text_kv)
            x_BGTD = self.audio_injector.into(layer, x_BGTD, heard, frame_shape, mask_AFS, base)
        return x_BGTD
