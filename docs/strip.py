"""Render every shipped portrait with the shipped speech as one strip: animated, and as a picture.

    python docs/strip.py --out docs/pictures/strip [--model pocket] [--seconds 4]

Writes `strip.webp`, which plays in a browser and in a README, and `strip.png`, rows of moments.
The animation is made smaller until it fits the limit: fewer pixels first, then lower quality.
"""

import argparse
from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

from audio.chunk import AudioChunk
from audio.source import FileSource
from pipeline.catalog import model_path
from pipeline.generator import AvatarGenerator
from pipeline.model import Model, load_model
from pipeline.plan import load_plan
from video.reference import load_portrait

MAX_BYTES = 2 * 1024 * 1024
SIDES_PX, QUALITIES = (160, 128, 112, 96), (72, 55, 40)
EVERY = 2  # 12.5 pictures a second are enough for a strip
ROWS = 4


def talk(model: Model, portrait: Path, speech: Path, start_s: float, seconds: float) -> np.ndarray:
    """Return every second frame [T, H, W, 3] of a portrait that says a part of the speech."""
    image_BCHW = load_portrait(portrait, size=model.config.native_size).image_CHW[None]
    plan = load_plan(model.config.plan)
    source = FileSource(speech)
    generator = AvatarGenerator(model, plan, image_BCHW, sample_rate=source.sample_rate)
    sound = _part(source, start_s, seconds)
    frames = [video.frames_THWC for video, _ in generator.run(sound)]
    return np.concatenate(frames)[::EVERY]


def _part(source: FileSource, start_s: float, seconds: float) -> Iterator[AudioChunk]:
    """The sound from `start_s` on, the beginning again after the end, `seconds` long."""
    rate = source.sample_rate
    whole = np.concatenate([chunk.samples_T for chunk in source.chunks()])
    part = np.roll(whole, -int(start_s * rate))[: int(seconds * rate)]
    yield AudioChunk(samples_T=part, sample_rate=rate, pts=0)


def shrink(frames_THWC: np.ndarray, side_px: int) -> list[Image.Image]:
    """Return the frames as pictures of that side."""
    size = (side_px, side_px)
    resample = Image.Resampling.LANCZOS
    return [Image.fromarray(frame).resize(size, resample) for frame in frames_THWC]


def join(columns: list[list[Image.Image]]) -> list[Image.Image]:
    """Return pictures with a person in each column, as long as the shortest talks."""
    side = columns[0][0].width
    joined = []
    for moment in zip(*columns, strict=False):
        canvas = Image.new("RGB", (side * len(columns), side))
        for index, picture in enumerate(moment):
            canvas.paste(picture, (index * side, 0))
        joined.append(canvas)
    return joined


def save_animation(people: list[np.ndarray], path: Path, fps: Fraction, limit: int) -> int:
    """Write the largest, finest animation under `limit` bytes; return its size.

    Raises:
        ValueError: even the smallest is too large.
    """
    duration_ms = int(1000 * EVERY / fps)
    for side_px, quality in product(SIDES_PX, QUALITIES):
        first, *rest = join([shrink(frames, side_px) for frames in people])
        first.save(
            path,
            save_all=True,
            append_images=rest,
            duration=duration_ms,
            loop=0,
            quality=quality,
            method=4,
        )
        if path.stat().st_size <= limit:
            return path.stat().st_size
    raise ValueError(f"{path}: more than {limit} bytes at the smallest size: use fewer seconds")


def save_picture(people: list[np.ndarray], path: Path) -> None:
    """Write a row for each of a few moments."""
    strips = join([shrink(frames, SIDES_PX[1]) for frames in people])
    step = len(strips) // ROWS
    chosen = strips[step // 2 :: step][:ROWS]
    canvas = Image.new("RGB", (chosen[0].width, chosen[0].height * len(chosen)))
    for index, strip in enumerate(chosen):
        canvas.paste(strip, (0, index * strip.height))
    canvas.save(path, optimize=True)


def main() -> None:
    """Render the cast and write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/strip"))
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--max-bytes", type=int, default=MAX_BYTES)
    args = parser.parse_args()
    folder = model_path(args.model)
    portraits = sorted((folder / "portraits").glob("*.png"))
    if not portraits:
        parser.error(f"{folder / 'portraits'} holds no portraits: put PNG files there")
    model = load_model(args.model)
    # Each begins elsewhere in the speech, so that they do not talk in chorus.
    people = [
        talk(model, portrait, folder / "speech.flac", 1.1 * index, args.seconds)
        for index, portrait in enumerate(portraits)
    ]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_animation(people, args.out.with_suffix(".webp"), model.fps, args.max_bytes)
    save_picture(people, args.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
