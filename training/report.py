"""Measure the codec on held-out clips and draw what it does: `viva train measure`.

Figures: PSNR of the picture and of the mouth, error where the portrait shows nothing (mouth
interior, closed lids) against that of copying the portrait, sharpness of the mouth, and the
opening that the linear core keeps. The sheet shows portrait, truth, decoded.

Shape legend: B = clips, N = frames, H, W = 256.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from training.codec import NAMES, Batch, group_batch
from training.shards import read_shard, shard_paths
from training.stored import load_weights
from video.motion_codec import MotionCodec, MotionCodecConfig
from video.motion_nets import EYES_BOX, MOUTH_BOX, crop
from video.warp import resize


def decode(codec: MotionCodec, batch: Batch) -> torch.Tensor:
    """Return the decoded frames [N, 3, H, W] of a batch's exact latents."""
    latents = codec.motion.encode(batch.field_BTFQSS)
    motion = codec.face_motion(latents, batch.portrait_B3HW, codec.read(batch.portrait_B3HW))
    still = torch.zeros_like(motion.flow_N2FF)
    return codec.render(motion, batch.portrait_B3HW, still).transpose(1, 2).flatten(0, 1)


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the peak signal-to-noise ratio in dB of pictures in [-1, 1]."""
    return float(-10.0 * torch.log10((a - b).square().mean() / 4.0))


def edges(picture: torch.Tensor) -> float:
    """Return the mean absolute horizontal and vertical difference."""
    return float(picture.diff(dim=-1).abs().mean() + picture.diff(dim=-2).abs().mean())


def figures(made: torch.Tensor, batch: Batch) -> dict[str, float]:
    """Return the figures of one batch."""
    truth, copied = batch.frames_N3HW, batch.portrait_B3HW.repeat_interleave(4, dim=0)
    hidden = resize(batch.hidden_N1SS, 256, 256)
    values = {
        "psnr_db": psnr(made, truth),
        "copy_psnr_db": psnr(copied, truth),
        "mouth_psnr_db": psnr(crop(made, MOUTH_BOX), crop(truth, MOUTH_BOX)),
        "mouth_sharpness": edges(crop(made, MOUTH_BOX)) / edges(crop(truth, MOUTH_BOX)),
    }
    for name, box in (("mouth", MOUTH_BOX), ("eyes", EYES_BOX)):
        shown = (crop(hidden, box) > 0.5).float()
        if float(shown.sum()) < 50:
            continue
        error = ((crop(made, box) - crop(truth, box)).abs() * shown).sum()
        copy_error = ((crop(copied, box) - crop(truth, box)).abs() * shown).sum()
        values[f"{name}_hidden_error_of_copy"] = float(error / copy_error.clamp_min(1e-6))
    return values


def sheet(made: torch.Tensor, batch: Batch, path: Path) -> None:
    """Draw one row per clip: the portrait, then truth and decoded picture of two frames."""
    rows = []
    for clip in range(len(batch.portrait_B3HW)):
        pictures = [batch.portrait_B3HW[clip]]
        for frame in (4 * clip + 1, 4 * clip + 3):
            pictures += [batch.frames_N3HW[frame], made[frame]]
        rows.append(torch.cat(pictures, dim=-1))
    joined = torch.cat(rows, dim=-2).permute(1, 2, 0)
    Image.fromarray(((joined + 1) * 127.5).round().to(torch.uint8).numpy()).save(path)


def run(args: argparse.Namespace) -> None:
    """Print figures as JSON and write the sheet."""
    codec = MotionCodec(MotionCodecConfig()).eval()
    load_weights(codec, args.codec)
    rng = np.random.default_rng(0)
    totals: dict[str, list[float]] = {}
    paths = shard_paths(args.clips)
    with torch.inference_mode():
        for index in range(args.batches):
            batch = group_batch(read_shard(paths[index % len(paths)], NAMES), rng, 6)
            made = decode(codec, batch)
            for name, value in figures(made, batch).items():
                totals.setdefault(name, []).append(value)
            if index == 0 and args.sheet is not None:
                sheet(made, batch, args.sheet)
    means = {name: round(float(np.mean(values)), 3) for name, values in totals.items()}
    print(json.dumps(means))  # noqa: T201 - the command's result


if __name__ == "__main__":
    from training.commands import main

    main("train", "measure")
