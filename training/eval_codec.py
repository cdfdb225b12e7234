"""Measure a model's codec alone on held-out clips: `viva eval codec --clips DIR`.

Exact displacement is projected to latents and decoded: what is lost here no generator can give
back. Clips are drawn at the portrait's own head pose, so figures are of the face.

Opening and its amplitude are read from the decoded flow at lip points (`video/face_flow.py`): the
correlation is with the true gap, the amplitude relative to the same reading of exact flow. Lids are
read from pixels: `lids_left` is the share of the way from the open portrait to the true closed eye
that is missing in the pixels that a full blink changes.

Shape legend: F = frames, H, W = 256.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from pipeline.curves import amplitude_ratio, correlation
from pipeline.gates import missed
from pipeline.model import Model, load_model
from training.errors import InputError
from training.held_out import HeldOutClip, held_out_clips, pictures
from video.face_reader import AlignedFrames, FaceReader
from video.head_pose import POSE_CHANNELS
from video.motion_codec import MotionCodec
from video.motion_nets import EYES_BOX, MOUTH_BOX, crop
from video.warp import resize

SHUT_BLINK = 0.9
MIN_PIXELS = 50
CHANGED = 0.15  # of the 2 between black and white
Figures = dict[str, float]


def motion_codec(model: Model) -> MotionCodec:
    """The model's codec.

    Raises:
        InputError: it is none whose motion can be read.
    """
    codec = model.parts.codec
    if not isinstance(codec, MotionCodec):
        raise InputError(f"model {model.name}: faces are read from a motion codec: use pocket")
    return codec


def clip_figures(codec: MotionCodec, clip: HeldOutClip) -> Figures:
    """Return the figures of one clip; those that it has nothing to say about are left out."""
    local = codec.motion.encode(clip.field())
    pose = local.new_zeros(1, POSE_CHANNELS, *local.shape[2:])
    reader = FaceReader(codec, clip.portrait, clip.points)
    frames = reader.frames(torch.cat((pose, local), dim=1))
    reading, exact = reader.read_frames(frames), clip.exact_reading()
    figures: Figures = {}
    if clip.moves:
        opening = reading.opening_px_N.double().numpy()
        exact_opening = exact.opening_px_N.double().numpy()
        figures["opening_corr"] = correlation(opening, clip.openness)
        figures["exact_flow_opening_corr"] = correlation(exact_opening, clip.openness)
        figures["opening_amplitude"] = amplitude_ratio(opening, exact_opening)
        figures["darkness_corr"] = correlation(reading.darkness_N.double().numpy(), clip.openness)
    shut = torch.from_numpy(clip.arrays["blink"].astype(np.float32) > SHUT_BLINK)
    if bool(shut.any()):
        figures["lids_flow"] = float(reading.lids_N[shut].mean())
        figures["lids_flow_exact"] = float(exact.lids_N[shut].mean())
    return figures | picture_figures(frames, clip)


def picture_figures(frames: AlignedFrames, clip: HeldOutClip) -> Figures:
    """Return the figures of the frames that have true pictures."""
    index = torch.from_numpy(clip.pictured)
    made, truth = frames.pictures_N3HW[index], pictures(clip.arrays["rgb"])
    copied = clip.portrait.expand_as(truth)
    hidden = torch.from_numpy(clip.arrays["occl128"].astype(np.float32) / 255.0)[:, None]
    hidden = (resize(hidden, *truth.shape[-2:]) > 0.5).float()
    figures = {
        "psnr_db": psnr(made, truth),
        "copy_psnr_db": psnr(copied, truth),
        "mouth_psnr_db": psnr(crop(made, MOUTH_BOX), crop(truth, MOUTH_BOX)),
        "mouth_sharpness": edges(crop(made, MOUTH_BOX)) / edges(crop(truth, MOUTH_BOX)),
    }
    for name, box in (("mouth", MOUTH_BOX), ("eyes", EYES_BOX)):
        shown = crop(hidden, box)
        if float(shown.sum()) >= MIN_PIXELS:
            for what, picture in (("made", made), ("copied", copied)):
                error = ((crop(picture, box) - crop(truth, box)).abs() * shown).sum()
                figures[f"{name}_hidden_{what}"] = float(error)
    shut = torch.from_numpy(clip.arrays["blink"][clip.pictured].astype(np.float32) > SHUT_BLINK)
    if bool(shut.any()):
        left = lids_left(*(crop(x[shut], EYES_BOX) for x in (made, truth, copied)))
        figures |= {} if left is None else {"lids_left": left}
    return figures


def lids_left(made: torch.Tensor, truth: torch.Tensor, open_eyes: torch.Tensor) -> float | None:
    """Return the share of the way from open to truly closed eyes that is missing: 0 when shut.

    Counts the pixels that a blink changes by much; None if there are hardly any, as with lids that
    the portrait already holds low.
    """
    way = truth - open_eyes
    way = way * (way.abs() > CHANGED)
    if int(way.count_nonzero()) < MIN_PIXELS:
        return None
    return float(1.0 - ((made - open_eyes) * way).sum() / way.square().sum())


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the peak signal-to-noise ratio in dB of pictures in [-1, 1]."""
    return float(-10.0 * torch.log10((a - b).square().mean() / 4.0))


def edges(picture: torch.Tensor) -> float:
    """Return the mean absolute horizontal and vertical difference."""
    return float(picture.diff(dim=-1).abs().mean() + picture.diff(dim=-2).abs().mean())


def summary(clips: list[Figures]) -> Figures:
    """Return the mean over the clips that have a figure; of amplitudes the median.

    The error of hidden pixels as a share of copying's is that of all clips' pixels together: the
    mean of the clips' shares would be ruled by those in which hardly a pixel is hidden.
    """
    values: dict[str, list[float]] = defaultdict(list)
    for figures in clips:
        for name, value in figures.items():
            values[name].append(value)
    means = {
        name: float(np.median(each) if name.endswith("amplitude") else np.mean(each))
        for name, each in values.items()
    }
    for region in ("mouth", "eyes"):
        made, copied = (means.pop(f"{region}_hidden_{what}", None) for what in ("made", "copied"))
        if made is not None and copied is not None:
            means[f"{region}_hidden_error_of_copy"] = made / max(copied, 1e-6)
    return {name: round(value, 4) for name, value in means.items()} | {"clips": float(len(clips))}


def main() -> None:
    """Print one JSON object with the figures and the gates they miss."""
    parser = argparse.ArgumentParser(description=__doc__, prog="viva eval codec")
    parser.add_argument("--clips", type=Path, required=True, help="folder of held-out shards")
    parser.add_argument("--model", default="pocket", help="name or folder of a model")
    parser.add_argument("--limit", type=int, default=48, help="clips at most")
    args = parser.parse_args()
    if not any(args.clips.glob("clips_*.npz")):
        parser.error(f"--clips {args.clips}: no clips_*.npz there; make some with viva data make")
    codec = motion_codec(load_model(args.model))
    with torch.inference_mode():
        clips = [clip_figures(codec, c) for c in held_out_clips(args.clips, args.limit)]
    figures = summary(clips)
    result = {"eval": "codec", "model": args.model, **figures, "missed": missed("codec", figures)}
    print(json.dumps(result))  # noqa: T201 - the command's result


if __name__ == "__main__":
    main()
