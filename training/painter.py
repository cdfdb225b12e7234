"""Train one region painter on what the rest of a codec hands it: `viva train painter`.

Mouth interiors and closed lids need far more pictures than flow does. All that comes before a
painter is frozen, so it is computed once for every frame and kept in memory (about 70 kB a frame);
a step then costs the painter alone, a fifth of a step of the whole codec.

Shape legend: P = portraits, N = frames, C = channels, H, W = picture, h, w = the region,
S = field side (64), R = the region at half size, c = the region in cells.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import nn

from training.codec import (
    NAMES,
    Batch,
    RegionTruth,
    begin_from,
    choose_learners,
    cover_loss,
    group_batch,
    picture_loss,
    region,
)
from training.errors import InputError
from training.loop import Trainer, export, run_until, step_generator
from training.shards import read_shard, shard_paths
from training.stored import load_weights
from video.motion_codec import FINE, MotionCodec, MotionCodecConfig
from video.motion_nets import Box, crop_scaled
from video.motion_painter import CELL, RegionPainter
from video.warp import resize

LATENT_NOISE = 0.08  # as in `training.codec`
FRAMES_PER_PORTRAIT = 2
CLIPS_PER_READING = 16
GROUPS_PER_CLIP = 4
FIELD = 64


@dataclass(slots=True, kw_only=True)
class Seen:
    """All that a painter is given and should make of it, of every frame that was looked at.

    Pictures are u8, the rest half precision. `owner_N` is the portrait of a frame, `hidden_N` the
    share of its region that the portrait does not show.
    """

    portrait_P3HW: torch.Tensor
    map_PCSS: torch.Tensor
    owner_N: torch.Tensor
    field_N3SS: torch.Tensor
    features_NCcc: torch.Tensor
    picture_N3hw: torch.Tensor
    flow_N2RR: torch.Tensor
    hidden_N1RR: torch.Tensor
    hidden_N: torch.Tensor

    @classmethod
    def join(cls, parts: list["Seen"]) -> "Seen":
        """Put the readings of several shards together."""
        owners = np.cumsum([0, *(len(part.portrait_P3HW) for part in parts)])
        for part, first in zip(parts, owners, strict=False):
            part.owner_N = part.owner_N + int(first)
        names = [field.name for field in fields(cls)]
        return cls(**{n: torch.cat([getattr(part, n) for part in parts]) for n in names})


def look(codec: MotionCodec, batch: Batch, box: Box, generator: torch.Generator) -> Seen:
    """Compute what the painter of a box is given for a batch."""
    clips, groups = batch.field_BTFQSS.shape[:2]
    with torch.inference_mode():
        latents = codec.motion.encode(batch.field_BTFQSS)
        noise = torch.randn(latents.shape, generator=generator) * LATENT_NOISE
        reading = codec.read(batch.portrait_B3HW)
        field_N3SS, emitted_NCSS = codec.fields(latents + noise, reading)
    truth = batch.truth(box)
    return Seen(
        portrait_P3HW=to_bytes(batch.portrait_B3HW),
        map_PCSS=reading.features.map_BCHW.half(),
        owner_N=torch.arange(clips).repeat_interleave(groups * codec.frames_per_latent),
        field_N3SS=field_N3SS.half(),
        features_NCcc=crop_scaled(emitted_NCSS, box, CELL).half(),
        picture_N3hw=to_bytes(truth.picture_N3HW),
        flow_N2RR=truth.flow_N2HW.half(),
        hidden_N1RR=truth.hidden_N1HW.half(),
        hidden_N=truth.hidden_N1HW.mean(dim=(1, 2, 3)),
    )


def to_bytes(picture: torch.Tensor) -> torch.Tensor:
    """Return a picture in [-1, 1] as u8."""
    return ((picture + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)


def to_picture(levels: torch.Tensor) -> torch.Tensor:
    """Return u8 levels as a picture in [-1, 1]."""
    return levels.float() / 127.5 - 1.0


def collect(codec: MotionCodec, folder: Path, box: Box, passes: int, seed: int) -> Seen:
    """Look at the clips of a folder; each pass draws other colours, sides and noise.

    Raises:
        InputError: there are no shards, or one is damaged.
    """
    parts = []
    generator = torch.Generator().manual_seed(seed)
    for number in range(passes):
        for index, path in enumerate(shard_paths(folder)):
            rng = np.random.default_rng([seed, number, index])
            shard = read_shard(path, NAMES)
            groups = min(GROUPS_PER_CLIP, shard["group_start"].shape[1])
            batch = group_batch(shard, rng, CLIPS_PER_READING, groups, box)
            parts.append(look(codec, batch, box, generator))
    return Seen.join(parts)


def draw_frames(seen: Seen, rng: np.random.Generator, num_portraits: int) -> torch.Tensor:
    """Draw a step's frames [num_portraits * FRAMES_PER_PORTRAIT], portrait by portrait.

    Frames whose portrait does not show much of the region come more often.
    """
    weight_N = (0.3 + seen.hidden_N / seen.hidden_N.mean().clamp_min(1e-6)).numpy()
    owners = rng.choice(len(seen.portrait_P3HW), num_portraits, replace=False)
    drawn = []
    for owner in owners:
        own = np.flatnonzero(seen.owner_N.numpy() == owner)
        share = weight_N[own] / weight_N[own].sum()
        drawn.append(rng.choice(own, FRAMES_PER_PORTRAIT, p=share))
    return torch.from_numpy(np.concatenate(drawn))


def painter_loss(
    codec: MotionCodec, painter: RegionPainter, seen: Seen, frames: torch.Tensor
) -> tuple[torch.Tensor, dict[str, float]]:
    """Return the loss of some frames, portrait by portrait, and its named parts."""
    owners = seen.owner_N[frames[::FRAMES_PER_PORTRAIT]]
    portrait_B3HW = to_picture(seen.portrait_P3HW[owners])
    reading = codec.read_region(painter, portrait_B3HW, seen.map_PCSS[owners].float())
    field_N3SS = seen.field_N3SS[frames].float()
    fine_N3FF = resize(field_N3SS, FINE, FINE)
    features_NCSS = field_N3SS.new_zeros(len(frames), seen.features_NCcc.shape[1], FIELD, FIELD)
    crop_scaled(features_NCSS, painter.box, CELL).copy_(seen.features_NCcc[frames])
    paint = codec.paint(painter, portrait_B3HW, (field_N3SS, fine_N3FF), features_NCSS, reading)
    flow_N2FF = fine_N3FF[:, :2].clone()
    crop_scaled(flow_N2FF, painter.box, 2).add_(paint.correction_N2HW)
    truth = RegionTruth(
        picture_N3HW=to_picture(seen.picture_N3hw[frames]),
        flow_N2HW=seen.flow_N2RR[frames].float(),
        hidden_N1HW=seen.hidden_N1RR[frames].float(),
    )
    drawn = region(portrait_B3HW, flow_N2FF, painter.box, paint, truth)
    everywhere, needed = picture_loss(drawn)
    error = (crop_scaled(flow_N2FF, painter.box, 2) - truth.flow_N2HW).abs()
    losses = {
        "picture": everywhere * 2.0,
        "inside": needed,
        "cover": cover_loss(drawn.cover_N1HW, drawn.need_N1HW) * 0.1,
        "flow": (error * (1 - truth.hidden_N1HW)).mean() * 0.02,
    }
    total = torch.stack(list(losses.values())).sum()
    return total, {name: float(value.detach()) for name, value in losses.items()}


def steps(
    trainer: Trainer, seen: Seen, minutes: float, seed: int, batch: int
) -> Iterator[torch.Tensor]:
    """Yield the frames of each step that is left."""
    for step in run_until(trainer, minutes):
        yield draw_frames(seen, step_generator(seed, step), batch)


def run(args: argparse.Namespace) -> None:
    """Run a slice of a painter's training and export the whole codec's averaged weights.

    Raises:
        InputError: no codec is named, or a file cannot be used.
    """
    if args.init is None:
        raise InputError("a painter goes on from a codec: name its weights, --init FILE")
    torch.manual_seed(args.seed)
    codec = MotionCodec(MotionCodecConfig())
    load_weights(codec.motion, args.init, prefix="motion.")
    begin_from(codec, args.init)
    choose_learners(codec, [args.region])
    painter: RegionPainter = getattr(codec, args.region)
    trainer = Trainer(
        folder=args.run,
        modules=nn.ModuleDict({"codec": codec}),
        total=args.steps,
        peak_rate=args.rate,
    )
    seen = collect(codec, args.clips, painter.box, args.passes, args.seed)
    for frames in steps(trainer, seen, args.minutes, args.seed, args.batch):
        trainer.update(*painter_loss(codec, painter, seen, frames))
    if args.out is not None:
        export(trainer.averaged(), "codec.", args.out)


if __name__ == "__main__":
    from training.commands import main

    main("train", "painter")
