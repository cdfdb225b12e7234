"""Train the motion codec on rendered clips: `viva train codec`.

First the linear core is found in closed form from all displacement fields; then the portrait
encoder, the refiner and the region painters learn together, each step on a few groups of four
frames at the portrait's own head pose, with latents blurred by noise as generated ones are.

Shape legend: B = clips in the batch, F = 4 frames, N = B*F frames, H, W = 256.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from training.loop import Trainer, export, run_until, seed_step, step_generator
from training.shards import (
    fields_of,
    iterate_shards,
    mirror_fields,
    motion_fields,
    read_shard,
    shard_paths,
)
from training.stored import load_weights
from video.motion_codec import MotionCodec, MotionCodecConfig
from video.motion_field import fit_motion_field
from video.motion_nets import EYES_BOX, MOUTH_BOX, crop
from video.warp import resize, warp

NAMES = (
    "ref_rgb", "ref_depth", "ref_headness", "flow64", "occl64", "group_start", "rgb", "flow128",
    "occl128",
)  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Batch:
    """Groups of four frames with their portraits; pictures in [-1, 1]."""

    portrait_B3HW: torch.Tensor
    depth_B1SS: torch.Tensor
    headness_B1SS: torch.Tensor
    field_BFQSS: torch.Tensor
    frames_N3HW: torch.Tensor
    flow_N2SS: torch.Tensor
    hidden_N1SS: torch.Tensor


def group_batch(shard: dict[str, np.ndarray], rng: np.random.Generator, size: int) -> Batch:
    """Draw `size` groups from a shard, half of them mirrored, with a common colour change each."""
    clips = rng.integers(0, len(shard["ref_rgb"]), size)
    groups = rng.integers(0, shard["group_start"].shape[1], size)
    first = shard["group_start"][clips, groups]
    index_NF = first[:, None] + np.arange(4)
    rows_NF = groups[:, None] * 4 + np.arange(4)
    pick = clips[:, None]
    pictures = torch.from_numpy(
        np.concatenate((shard["ref_rgb"][clips][:, None], shard["rgb"][pick, rows_NF]), axis=1)
    )
    pictures = pictures.permute(0, 1, 4, 2, 3).float() / 127.5 - 1.0
    flow = torch.from_numpy(shard["flow64"][pick, index_NF].astype(np.float32))
    hidden = torch.from_numpy(shard["occl64"][pick, index_NF].astype(np.float32) / 255.0)
    field = fields_of(flow, hidden)[:, 0]
    fine = torch.from_numpy(shard["flow128"][pick, rows_NF].astype(np.float32))
    fine_hidden = torch.from_numpy(shard["occl128"][pick, rows_NF].astype(np.float32) / 255.0)
    depth = torch.from_numpy(shard["ref_depth"][clips].astype(np.float32))[:, None]
    headness = torch.from_numpy(shard["ref_headness"][clips].astype(np.float32))[:, None]
    if rng.random() < 0.5:
        pictures, depth, headness = pictures.flip(-1), depth.flip(-1), headness.flip(-1)
        field, fine, fine_hidden = mirror_fields(field), fine.flip(-1), fine_hidden.flip(-1)
        fine = torch.stack((-fine[:, :, 0], fine[:, :, 1]), dim=2)
    pictures = recolour(pictures, rng)
    return Batch(
        portrait_B3HW=pictures[:, 0],
        depth_B1SS=depth,
        headness_B1SS=headness,
        field_BFQSS=field,
        frames_N3HW=pictures[:, 1:].flatten(0, 1),
        flow_N2SS=fine.flatten(0, 1),
        hidden_N1SS=fine_hidden.flatten(0, 1)[:, None],
    )


def recolour(pictures_BF3HW: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Change gain, offset and gamma of each clip's pictures alike, as cameras do."""
    size = len(pictures_BF3HW)
    gain = torch.from_numpy(rng.uniform(0.75, 1.25, (size, 1, 3, 1, 1)).astype(np.float32))
    gain = 0.6 * gain.mean(dim=2, keepdim=True) + 0.4 * gain
    gamma = torch.from_numpy(rng.uniform(0.75, 1.35, (size, 1, 1, 1, 1)).astype(np.float32))
    return (((pictures_BF3HW + 1) * 0.5).clamp_min(1e-4) ** gamma * gain).clamp(0, 1) * 2 - 1


def codec_loss(
    codec: MotionCodec, batch: Batch, noise: torch.Tensor
) -> tuple[torch.Tensor, dict[str, float]]:
    """Return the loss and its named parts for one batch."""
    features = codec.portrait(batch.portrait_B3HW)
    latents = codec.motion.encode(batch.field_BFQSS[:, None])
    flow, paint, opacity = codec.face_motion(latents + noise, batch.portrait_B3HW, features)
    portrait = batch.portrait_B3HW.repeat_interleave(4, dim=0)
    result = warp(portrait, flow) * (1 - opacity) + paint
    target = batch.frames_N3HW
    hidden = resize(batch.hidden_N1SS, 256, 256)
    losses = {
        "picture": (result - target).abs().mean(),
        "mouth": region_loss(result, target, MOUTH_BOX) * 2.0,
        "eyes": region_loss(result, target, EYES_BOX),
        "inside": sum(hidden_error(result, target, hidden, box) for box in (MOUTH_BOX, EYES_BOX))
        * 0.25,
        "flow": ((resize(flow, 128, 128) - batch.flow_N2SS).abs() * (1 - batch.hidden_N1SS)).mean()
        * 0.05,
        "hidden": sum(cover_loss(opacity, hidden, box) for box in (MOUTH_BOX, EYES_BOX)) * 0.15,
        "depth": ((features.depth_B1HW - batch.depth_B1SS).abs() * batch.headness_B1SS).mean()
        * 0.02,
        "headness": F.binary_cross_entropy(
            features.headness_B1HW.clamp(1e-4, 1 - 1e-4), batch.headness_B1SS.clamp(0, 1)
        )
        * 0.05,
    }
    total = torch.stack([torch.as_tensor(value) for value in losses.values()]).sum()
    return total, {name: float(torch.as_tensor(v).detach()) for name, v in losses.items()}


def region_loss(
    result: torch.Tensor, target: torch.Tensor, box: tuple[int, int, int, int]
) -> torch.Tensor:
    """Return the mean absolute error of a region plus that of its edges."""
    a, b = crop(result, box), crop(target, box)
    down = (a.diff(dim=-2) - b.diff(dim=-2)).abs().mean()
    across = (a.diff(dim=-1) - b.diff(dim=-1)).abs().mean()
    return (a - b).abs().mean() + down + across


def hidden_error(
    result: torch.Tensor, target: torch.Tensor, hidden: torch.Tensor, box: tuple[int, int, int, int]
) -> torch.Tensor:
    """Return the mean error of those pixels of a region that the portrait does not show.

    They are a few percent of the region but what a viewer sees first: a dark mouth, closed lids.
    """
    error = (crop(result, box) - crop(target, box)).abs().mean(dim=1, keepdim=True)
    share = crop(hidden, box)
    return (error * share).sum() / (share.sum() + 200.0)


def cover_loss(
    opacity: torch.Tensor, hidden: torch.Tensor, box: tuple[int, int, int, int]
) -> torch.Tensor:
    """Return the cross entropy of painting where the portrait shows nothing, hidden pixels x4.

    Pixels the portrait does show cost little if painted: shading may call for it.
    """
    x, y, width, height = box
    inside = (x + 8, y + 8, width - 16, height - 16)
    probability = crop(opacity, inside).clamp(1e-4, 1 - 1e-4)
    truth = crop(hidden, inside)
    weight = 0.3 + 4.0 * truth
    return F.binary_cross_entropy(probability, truth, weight=weight)


def batches(
    folder: Path, seed: int, size: int, start: int = 0, per_shard: int = 24
) -> Iterator[Batch]:
    """Yield the batches of the steps from `start` on; each shard read gives `per_shard` of them."""
    shards = iterate_shards(shard_paths(folder), NAMES, seed, start // per_shard)
    for block, shard in enumerate(shards, start // per_shard):
        for step in range(max(start, block * per_shard), (block + 1) * per_shard):
            yield group_batch(shard, step_generator(seed, step), size)


def fit_core(codec: MotionCodec, folder: Path, max_shards: int) -> float:
    """Find the linear core from the fields of up to `max_shards` shards and their mirror images."""
    fields = [
        motion_fields(read_shard(path, ("flow64", "occl64"))).flatten(0, 1)
        for path in shard_paths(folder)[:max_shards]
    ]
    joined = torch.cat(fields)
    kept = fit_motion_field(codec.motion, torch.cat((joined, mirror_fields(joined))))
    for buffer in codec.motion.buffers():
        buffer.copy_(buffer.bfloat16())  # what is shipped is what later training sees
    return kept


def run(args: argparse.Namespace) -> None:
    """Run a slice of codec training and export the averaged weights."""
    torch.manual_seed(args.seed)
    codec = MotionCodec(MotionCodecConfig())
    codec.identity.requires_grad_(False)
    trainer = Trainer(
        folder=args.run,
        modules=nn.ModuleDict({"codec": codec}),
        total=args.steps,
        peak_rate=args.rate,
    )
    if trainer.step == 0 and args.init is not None:
        load_weights(codec, args.init)
        trainer.begin_average()
        export(codec.state_dict(), "", args.run / "core.safetensors")
    elif trainer.step == 0:
        kept = fit_core(codec, args.clips, args.core_shards)
        (args.run / "core.txt").write_text(f"energy kept by the linear core: {kept:.4f}\n")
        export(codec.state_dict(), "", args.run / "core.safetensors")
    stream = batches(args.clips, args.seed, args.batch, trainer.step)
    for step in run_until(trainer, args.minutes):
        batch = next(stream)
        seed_step(args.seed, step)
        noise = torch.randn(len(batch.field_BFQSS), codec.config.local_channels, 1, 8, 8) * 0.08
        loss, parts = codec_loss(codec, batch, noise)
        trainer.update(loss, parts)
    if args.out is not None:
        export(trainer.averaged(), "codec.", args.out)


if __name__ == "__main__":
    from training.commands import main

    main("train", "codec")
