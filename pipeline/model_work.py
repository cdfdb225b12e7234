"""The work of a model's networks as its config describes them; no weights are read, nothing runs.

Networks are built without memory and the decoder is counted by passing it shapes, so a model whose
weights are not here can be planned for.

Shape legend: B = batch (1), C = channels, T = frames, H, W = rows and columns.
"""

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.chain_work import ChainWork, DecodeWork
from pipeline.dit_work import sink_flops, step_works
from pipeline.errors import PlanError
from pipeline.model import ModelConfig, build_parts
from pipeline.plan import Plan
from video.dit_config import DiTConfig
from video.errors import ImageError
from video.motion_codec import MotionCodec
from video.rope import LatentGrid
from video.vae import WanVAE

# A decoder's state has all its tensors after two latents; a session is primed with more.
_PRIME_LATENTS = 2
# Activations at full resolution against the pictures of one latent: about a hundred channels wide.
_SCRATCH_PER_PICTURE_VALUE = 100


def chain_work(
    config: ModelConfig, plan: Plan, *, folder: Path, size: tuple[int, int] | None = None
) -> ChainWork:
    """What a chunk of the plan and a session take with this model; `size` is width and height.

    Raises:
        ModelError: the config describes no model.
        PlanError: pictures of that size cannot be made.
    """
    width_px, height_px = size or config.native_size
    parts = build_parts(config, folder, on_meta=True)
    try:
        rows, columns = parts.codec.latent_size(height_px, width_px)
        decode = _decode_work(parts.codec, plan.frames_per_chunk, (height_px, width_px))
    except (ImageError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise PlanError(f"--size {width_px}x{height_px}: {reason}: choose another size") from error
    dit = parts.dit.config
    return ChainWork(
        steps=step_works(dit, plan, rows, columns),
        decode=decode,
        network_values=_num_values(parts.dit),
        latent_values=parts.codec.latent_channels * plan.frames_per_chunk * rows * columns,
        sink_flops=sink_flops(dit, _sink_tokens(dit, rows, columns)),
        pictures=plan.frames_per_chunk * parts.codec.frames_per_latent,
    )


def _sink_tokens(config: DiTConfig, rows: int, columns: int) -> int:
    """Tokens of the reference and of the motion history."""
    _, patch_rows, patch_columns = config.patch_size
    if rows % patch_rows or columns % patch_columns:
        raise PlanError(
            f"latents of {rows}x{columns} are no whole patches of {patch_rows}x{patch_columns}: "
            "choose another size"
        )
    grid = LatentGrid(
        height=rows, width=columns, patch_height=patch_rows, patch_width=patch_columns
    )
    return grid.frame_tokens + (grid.motion_tokens if config.enable_framepack else 0)


@torch.inference_mode()
def _decode_work(
    codec: MotionCodec | WanVAE, num_latents: int, size_px: tuple[int, int]
) -> DecodeWork:
    """The decoder's work for a chunk, counted on shapes alone."""
    weights = _num_values(codec)
    if isinstance(codec, WanVAE):
        with torch.device("meta"):
            codec = WanVAE(replace(codec.config, num_prime_latents=_PRIME_LATENTS))
    codec = codec.to("meta").eval()
    with torch.device("meta"):
        state = codec.start(torch.zeros(1, 3, *size_px))
        latents_BCTHW = torch.zeros(1, codec.latent_channels, 1, *codec.latent_size(*size_px))
        with FlopCounterMode(display=False) as counter:
            frames_BCTHW = codec.decode(latents_BCTHW, state)
    return DecodeWork(
        flops=float(num_latents * counter.get_total_flops()),
        weight_values=weights,
        state_values=_held_values(state),
        scratch_values=frames_BCTHW.numel() * _SCRATCH_PER_PICTURE_VALUE,
    )


def _num_values(module: nn.Module) -> int:
    """Parameters and buffers of a network."""
    return sum(tensor.numel() for tensor in (*module.parameters(), *module.buffers()))


def _held_values(part: Any) -> int:
    """Values of all tensors that a state holds, however deep."""
    if isinstance(part, torch.Tensor):
        return part.numel()
    if isinstance(part, dict):
        return sum(_held_values(value) for value in part.values())
    if is_dataclass(part):
        return sum(_held_values(getattr(part, field.name)) for field in fields(part))
    return (
        sum(_held_values(value) for value in vars(part).values())
        if hasattr(part, "__dict__")
        else 0
    )
