"""Train the motion codec on rendered clips: `viva train codec`.

First the linear core is found in closed form from all displacement fields; then the portrait
encoder, the refiner and the region painters learn together, each step on one frame of a few groups
of four at the portrait's own head pose, with latents blurred by noise as generated ones are.

Shape legend: B = clips in the batch, T = groups of each, F = frames of each group, N = B*T*F,
S, H, W = sides.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from training.errors import InputError
from training.loop import Trainer, export, run_until, seed_step, step_generator
from training.shards import (
    fields_of,
    iterate_shards,
    mirror_fields,
    motion_fields,
    read_shard,
    shard_paths,
)
from training.stored import load_tensors, load_weights
from video.face_motion import joint_box
from video.motion_codec import MotionCodec, MotionCodecConfig, warp_frames
from video.motion_field import fit_motion_field
from video.motion_nets import EYES_BOX, MOUTH_BOX, Box, crop, crop_scaled
from video.motion_painter import RegionPaint
from video.warp import resize

NAMES = (
    "ref_rgb", "ref_depth", "ref_headness", "flow64", "occl64", "group_start", "rgb", "flow128",
    "occl128",
)  # fmt: skip


WHOLE: Box = (0, 0, 256, 256)


@dataclass(slots=True, kw_only=True)
class Batch:
    """Groups of four frames with their portraits; pictures in [-1, 1].

    T groups of four frames belong to each of B portraits. Of each group F frames are looked at,
    `looked_at` says which, so N = B*T*F. Of their pictures only `box` is kept.
    """

    portrait_B3HW: torch.Tensor
    depth_B1SS: torch.Tensor
    headness_B1SS: torch.Tensor
    field_BTFQSS: torch.Tensor
    box: Box
    looked_at: slice
    frames_N3HW: torch.Tensor
    flow_N2SS: torch.Tensor
    hidden_N1SS: torch.Tensor

    def truth(self, box: Box) -> "RegionTruth":
        """Return what is true of a region that lies in the kept box."""
        inside = (box[0] - self.box[0], box[1] - self.box[1], *box[2:])
        return RegionTruth(
            picture_N3HW=crop(self.frames_N3HW, inside),
            flow_N2HW=crop_scaled(self.flow_N2SS, box, 2),
            hidden_N1HW=crop_scaled(self.hidden_N1SS, box, 2),
        )


@dataclass(slots=True, kw_only=True)
class RegionTruth:
    """A region as it should be; flow and share of hidden have half the picture's size."""

    picture_N3HW: torch.Tensor
    flow_N2HW: torch.Tensor
    hidden_N1HW: torch.Tensor


def group_batch(
    shard: dict[str, np.ndarray],
    rng: np.random.Generator,
    size: int,
    groups_per_clip: int = 1,
    box: Box = WHOLE,
    *,
    looked_at: slice = slice(None),
) -> Batch:
    """Draw `size` clips of a shard and groups of each, with a common colour change each clip.

    Half of the batches are mirrored; `box` must be symmetric for that.
    """
    clips = rng.integers(0, len(shard["ref_rgb"]), size)
    groups_BT = draw_groups(shard["occl128"][clips], rng, groups_per_clip)
    first_BT = shard["group_start"][clips[:, None], groups_BT]
    index_BT = (first_BT[..., None] + np.arange(4)).reshape(size, -1)
    rows_BT = (groups_BT[..., None] * 4 + np.arange(4)[looked_at]).reshape(size, -1)
    pick = clips[:, None]
    portrait = torch.from_numpy(shard["ref_rgb"][clips])
    x, y, width, height = box
    frames = torch.from_numpy(shard["rgb"][pick, rows_BT, y : y + height, x : x + width])
    portrait, frames = recolour_bytes(portrait[:, None], frames, rng)
    coarse = torch.from_numpy(shard["flow64"][pick, index_BT].astype(np.float32))
    coarse_hidden = torch.from_numpy(shard["occl64"][pick, index_BT].astype(np.float32) / 255.0)
    field = fields_of(coarse, coarse_hidden)
    flow = torch.from_numpy(shard["flow128"][pick, rows_BT].astype(np.float32)).flatten(0, 1)
    hidden = torch.from_numpy(shard["occl128"][pick, rows_BT].astype(np.float32) / 255.0)
    depth = torch.from_numpy(shard["ref_depth"][clips].astype(np.float32))[:, None]
    headness = torch.from_numpy(shard["ref_headness"][clips].astype(np.float32))[:, None]
    if rng.random() < 0.5:
        portrait, frames, depth, headness = (
            v.flip(-1) for v in (portrait, frames, depth, headness)
        )
        field, hidden = mirror_fields(field), hidden.flip(-1)
        flow = flow.flip(-1) * torch.tensor([-1.0, 1.0])[:, None, None]
    return Batch(
        portrait_B3HW=portrait[:, 0],
        depth_B1SS=depth,
        headness_B1SS=headness,
        field_BTFQSS=field,
        box=box,
        looked_at=looked_at,
        frames_N3HW=frames.flatten(0, 1),
        flow_N2SS=flow,
        hidden_N1SS=hidden.flatten(0, 1)[:, None],
    )


def draw_groups(
    hidden_BNSS: npt.NDArray[np.uint8], rng: np.random.Generator, count: int
) -> npt.NDArray[np.int64]:
    """Draw `count` different groups of four frames of each clip [B, count].

    The more of the mouth's region a portrait does not show, the more often a group comes: open
    mouths are what is hard to paint.
    """
    x, y, width, height = (side // 2 for side in MOUTH_BOX)
    hidden = hidden_BNSS[:, :, y : y + height, x : x + width].mean(axis=(-2, -1), dtype=np.float64)
    hidden_BG = hidden.reshape(len(hidden), -1, 4).mean(axis=-1)
    weight_BG = 0.5 + hidden_BG / np.maximum(hidden_BG.mean(axis=1, keepdims=True), 1e-6)
    # The largest of u ** (1 / weight) are a weighted draw without replacement.
    order_BG = np.argsort(-(rng.random(weight_BG.shape) ** (1.0 / weight_BG)), axis=1)
    return order_BG[:, :count]


def colour_change(
    size: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Draw gamma [size, 1, 1] and gain [size, 3, 1] of clips: cameras differ so."""
    gain = rng.uniform(0.75, 1.25, (size, 3, 1)).astype(np.float32)
    gain = 0.6 * gain.mean(axis=1, keepdims=True) + 0.4 * gain
    return rng.uniform(0.75, 1.35, (size, 1, 1)).astype(np.float32), gain


def recolour(pictures_BF3HW: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Change gain and gamma of each clip's pictures in [-1, 1] alike."""
    changes = colour_change(len(pictures_BF3HW), rng)
    gamma, gain = (torch.from_numpy(change)[:, None, :, :, None] for change in changes)
    return (((pictures_BF3HW + 1) * 0.5).clamp_min(1e-4) ** gamma * gain).clamp(0, 1) * 2 - 1


def recolour_bytes(
    portrait_BFHW3: torch.Tensor, frames_BFHW3: torch.Tensor, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Bring u8 pictures to [B, F, 3, H, W] in [-1, 1], recoloured by a table of 256 levels."""
    gamma, gain = colour_change(len(portrait_BFHW3), rng)
    levels = np.maximum(np.arange(256, dtype=np.float32) / 255.0, 1e-4)
    table_B3L = torch.from_numpy(np.clip(levels**gamma * gain, 0, 1) * 2 - 1)
    made = []
    for pictures in (portrait_BFHW3, frames_BFHW3):
        planes = pictures.permute(0, 4, 1, 2, 3)
        levels_B3FHW = table_B3L.gather(2, planes.flatten(2).long()).reshape(planes.shape)
        made.append(levels_B3FHW.transpose(1, 2).contiguous())
    return made[0], made[1]


@dataclass(slots=True, kw_only=True)
class Region:
    """One painted region of a batch: what was made, what should be, and what must be painted."""

    made_N3HW: torch.Tensor
    truth_N3HW: torch.Tensor
    cover_N1HW: torch.Tensor
    need_N1HW: torch.Tensor


def region(
    portrait_B3HW: torch.Tensor,
    flow_N2FF: torch.Tensor,
    box: Box,
    paint: RegionPaint,
    truth: RegionTruth,
) -> Region:
    """Draw a region as the decoder does.

    Painting is needed where the portrait shows nothing, and where its pixels moved by the exact
    flow still differ much from the truth: teeth of a smile that goes, creases, shadows.
    """
    origin_xy = (box[0], box[1])
    made = warp_frames(portrait_B3HW, window(flow_N2FF, box), origin_xy)
    made = made * (1 - paint.cover_N1HW) + paint.colour_N3HW * paint.cover_N1HW
    size = (box[3], box[2])
    exact = warp_frames(portrait_B3HW, resize(truth.flow_N2HW, *size), origin_xy)
    differs = ((exact - truth.picture_N3HW).abs().amax(dim=1, keepdim=True) * 4.0 - 0.4).clamp(0, 1)
    return Region(
        made_N3HW=made,
        truth_N3HW=truth.picture_N3HW,
        cover_N1HW=paint.cover_N1HW,
        need_N1HW=torch.maximum(resize(truth.hidden_N1HW, *size), differs),
    )


def window(field_NCFF: torch.Tensor, box: Box) -> torch.Tensor:
    """Return a box's part of a field of side 128 at full size."""
    return resize(crop_scaled(field_NCFF, box, 2), box[3], box[2])


def codec_loss(
    codec: MotionCodec, batch: Batch, noise: torch.Tensor
) -> tuple[torch.Tensor, dict[str, float]]:
    """Return the loss and its named parts for one batch.

    Only the two regions are drawn at full size; the rest of the picture follows its exact flow.
    """
    reading = codec.read(batch.portrait_B3HW)
    latents = codec.motion.encode(batch.field_BTFQSS)
    motion = codec.face_motion(latents + noise, batch.portrait_B3HW, reading, batch.looked_at)
    losses = {
        "flow": flow_loss(motion.flow_N2FF, batch),
        "depth": ((reading.features.depth_B1HW - batch.depth_B1SS).abs() * batch.headness_B1SS)
        .mean() * 0.02,
        "headness": F.binary_cross_entropy(
            reading.features.headness_B1HW.clamp(1e-4, 1 - 1e-4), batch.headness_B1SS.clamp(0, 1)
        )
        * 0.05,
    }  # fmt: skip
    for name, box, paint, share in (
        ("mouth", MOUTH_BOX, motion.mouth, 1.0),
        ("eyes", EYES_BOX, motion.eyes, 0.7),
    ):
        if not learns(getattr(codec, name)):
            continue
        drawn = region(batch.portrait_B3HW, motion.flow_N2FF, box, paint, batch.truth(box))
        everywhere, needed = picture_loss(drawn)
        losses[name] = everywhere * 2.0 * share
        losses[f"{name}_inside"] = needed * 0.5 * share
        losses[f"{name}_cover"] = cover_loss(drawn.cover_N1HW, drawn.need_N1HW) * 0.1
    total = torch.stack(list(losses.values())).sum()
    return total, {name: float(value.detach()) for name, value in losses.items()}


def choose_learners(codec: MotionCodec, only: Sequence[str]) -> None:
    """Train the named parts alone, or all that the decoder uses if none is named."""
    for name, part in codec.named_children():
        part.requires_grad_(name in only if only else name != "identity")


def learns(part: nn.Module) -> bool:
    """Whether any weight of a part is trained."""
    return any(parameter.requires_grad for parameter in part.parameters())


def flow_loss(flow_N2FF: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the error of the flow where the portrait shows the surface; regions count more."""
    error = ((flow_N2FF - batch.flow_N2SS).abs() * (1 - batch.hidden_N1SS)).mean(dim=1)
    regions = sum(crop_scaled(error, box, 2).mean() for box in (MOUTH_BOX, EYES_BOX))
    return error.mean() * 0.15 + regions * 0.02


def picture_loss(drawn: Region) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean error of pixels and edges of a region, and that of pixels to be painted.

    The latter are a few percent of the region but what a viewer sees first: a dark mouth, teeth,
    closed lids.
    """
    difference = drawn.made_N3HW - drawn.truth_N3HW
    error = difference.abs().mean(dim=1, keepdim=True)
    error = error + F.pad(difference.diff(dim=-2).abs().mean(dim=1, keepdim=True), (0, 0, 0, 1))
    error = error + F.pad(difference.diff(dim=-1).abs().mean(dim=1, keepdim=True), (0, 1))
    need = drawn.need_N1HW
    return error.mean(), (error * need).sum() / (need.sum() + 200.0)


def cover_loss(cover_N1HW: torch.Tensor, need_N1HW: torch.Tensor) -> torch.Tensor:
    """Return the cross entropy of painting where it is needed, needed pixels x4.

    Pixels the portrait does show cost little if painted: shading may call for it.
    """
    inside = (..., slice(8, -8), slice(8, -8))
    truth = need_N1HW[inside]
    return F.binary_cross_entropy(
        cover_N1HW[inside].clamp(1e-4, 1 - 1e-4), truth, weight=0.3 + 4.0 * truth
    )


def batches(
    folder: Path, seed: int, size: int, start: int = 0, per_shard: int = 24
) -> Iterator[Batch]:
    """Yield the batches of the steps from `start` on; each shard read gives `per_shard` of them."""
    shards = iterate_shards(shard_paths(folder), NAMES, seed, start // per_shard)
    for block, shard in enumerate(shards, start // per_shard):
        for step in range(max(start, block * per_shard), (block + 1) * per_shard):
            rng = step_generator(seed, step)
            frame = int(rng.integers(4))  # its neighbours would say almost the same
            yield group_batch(shard, rng, size, 2, joint_box(), looked_at=slice(frame, frame + 1))


def fit_core(codec: MotionCodec, folder: Path, max_shards: int) -> float:
    """Find the linear core from the fields of up to `max_shards` shards and their mirror images.

    The shards are spread over the folder, whose order may go by kind of picture.
    """
    paths = shard_paths(folder)
    chosen = paths[:: max(1, -(-len(paths) // max_shards))]
    fields = [
        motion_fields(read_shard(path, ("flow64", "occl64"))).flatten(0, 1) for path in chosen
    ]
    joined = torch.cat(fields)
    del fields
    kept = fit_motion_field(codec.motion, torch.cat((joined, mirror_fields(joined))))
    for buffer in codec.motion.buffers():
        buffer.copy_(buffer.bfloat16())  # what is shipped is what later training sees
    return kept


def begin_from(codec: MotionCodec, path: Path) -> int:
    """Take over those trained weights of an earlier codec that still fit; return how many.

    Raises:
        InputError: the file cannot be read, or nothing in it fits.
    """
    earlier, own = load_tensors(path), dict(codec.named_parameters())
    fitting = [n for n in earlier if n in own and earlier[n].shape == own[n].shape]
    if not fitting:
        raise InputError(f"{path} holds nothing that fits this codec: name the weights of one")
    with torch.no_grad():
        for name in fitting:
            own[name].copy_(earlier[name])
    return len(fitting)


def begin(codec: MotionCodec, args: argparse.Namespace) -> None:
    """Give a fresh codec its linear core, and what an earlier codec had learned if one is named.

    Raises:
        InputError: a file cannot be read, nothing in it fits, or --init is not the only one named.
        WeightsError: a file is of another network.
    """
    if args.init is not None:
        if args.core is not None or args.begin_from is not None:
            raise InputError("--init takes over a whole codec: leave out --core and --begin-from")
        load_weights(codec, args.init)
        return
    if args.begin_from is not None:
        begin_from(codec, args.begin_from)
    if args.core is not None:
        load_weights(codec.motion, args.core, prefix="motion.")
    else:
        kept = fit_core(codec, args.clips, args.core_shards)
        (args.run / "core.txt").write_text(f"energy kept by the linear core: {kept:.4f}\n")


def run(args: argparse.Namespace) -> None:
    """Run a slice of codec training and export the averaged weights."""
    torch.manual_seed(args.seed)
    codec = MotionCodec(MotionCodecConfig())
    choose_learners(codec, args.only)
    trainer = Trainer(
        folder=args.run,
        modules=nn.ModuleDict({"codec": codec}),
        total=args.steps,
        peak_rate=args.rate,
    )
    if trainer.step == 0:
        begin(codec, args)
        trainer.begin_average()
        export(codec.state_dict(), "", args.run / "core.safetensors")
    stream = batches(args.clips, args.seed, args.batch, trainer.step)
    for step in run_until(trainer, args.minutes):
        batch = next(stream)
        seed_step(args.seed, step)
        clips, groups = batch.field_BTFQSS.shape[:2]
        noise = torch.randn(clips, codec.config.local_channels, groups, 8, 8) * 0.08
        loss, parts = codec_loss(codec, batch, noise)
        trainer.update(loss, parts)
    if args.out is not None:
        export(trainer.averaged(), "codec.", args.out)


if __name__ == "__main__":
    from training.commands import main

    main("train", "codec")
