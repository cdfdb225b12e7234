"""Render a model's whole cast with its own speech as one strip: animated, and as a picture.

    python docs/strip.py --out docs/pictures/cast [--model pocket] [--seconds 4] [--columns 6]

Writes `cast.webp`, which plays in a browser and in a README, and `cast.png`, a few moments. People
stand in rows in the order of `cast.json`, a shorter last row in the middle. Both files are made
smaller until they fit the limit: fewer pixels first, then lower quality. The same model, seconds
and library versions give the same files.
"""

import argparse
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

from audio.chunk import AudioChunk
from audio.source import FileSource
from pipeline.cast import read_cast
from pipeline.catalog import model_path
from pipeline.generator import AvatarGenerator
from pipeline.model import Model, load_model
from pipeline.plan_parse import load_plan
from video.reference import load_portrait

MAX_BYTES = 2 * 1024 * 1024
SIDES_PX, QUALITIES = (160, 128, 112, 96), (72, 55, 40)
EVERY = 2  # 12.5 pictures a second are enough for a strip
MOMENTS = 3
COLUMNS = 6
OFFSET_S = 1.1  # each begins elsewhere in the speech, so that they do not talk in chorus


def talk(model: Model, portrait: Path, speech: Path, index: int, seconds: float) -> np.ndarray:
    """Return every second frame [T, H, W, 3] of the cast's person `index`, saying their part."""
    image_BCHW = load_portrait(portrait, size=model.config.native_size).image_CHW[None]
    plan = load_plan(model.config.plan)
    source = FileSource(speech)
    generator = AvatarGenerator(model, plan, image_BCHW, sample_rate=source.sample_rate, seed=index)
    sound = _part(source, OFFSET_S * index, seconds)
    frames = [video.frames_THWC for video, _ in generator.run(sound)]
    return np.concatenate(frames)[::EVERY]


def _part(source: FileSource, start_s: float, seconds: float) -> Iterator[AudioChunk]:
    """The sound from `start_s` on, the beginning again after the end, `seconds` long."""
    rate = source.sample_rate
    whole = np.concatenate([chunk.samples_T for chunk in source.chunks()])
    part = np.resize(np.roll(whole, -int(start_s * rate)), int(seconds * rate))
    yield AudioChunk(samples_T=part, sample_rate=rate, pts=0)


def places(count: int, columns: int, side_px: int) -> list[tuple[int, int]]:
    """Return the top left corner of each of `count` squares, a short last row in the middle."""
    corners = []
    for index in range(count):
        row, column = divmod(index, columns)
        in_row = min(columns, count - row * columns)
        indent = (min(columns, count) - in_row) * side_px // 2
        corners.append((indent + column * side_px, row * side_px))
    return corners


def lay_out(people: list[np.ndarray], columns: int, side_px: int) -> list[Image.Image]:
    """Return a picture for each moment, as long as the shortest talks; beside people is nothing."""
    corners = places(len(people), columns, side_px)
    size = min(columns, len(people)) * side_px, corners[-1][1] + side_px
    pictures = []
    for frames_HWC in zip(*people, strict=False):
        canvas = Image.new("RGBA", size, (0, 0, 0, 0))
        for frame_HWC, corner in zip(frames_HWC, corners, strict=True):
            small = Image.fromarray(frame_HWC)
            canvas.paste(small.resize((side_px, side_px), Image.Resampling.LANCZOS), corner)
        pictures.append(canvas)
    return pictures


def save_animation(
    people: list[np.ndarray], path: Path, fps: Fraction, limit: int, columns: int = COLUMNS
) -> None:
    """Write the largest, finest animation under `limit` bytes.

    Raises:
        ValueError: even the smallest is too large.
    """
    duration_ms = int(1000 * EVERY / fps)

    def write(side_px: int, quality: int) -> None:
        first, *rest = lay_out(people, columns, side_px)
        first.save(
            path,
            save_all=True,
            append_images=rest,
            duration=duration_ms,
            loop=0,
            quality=quality,
            method=4,
        )

    _fit(path, write, limit, QUALITIES)


def save_picture(people: list[np.ndarray], path: Path, limit: int, columns: int = COLUMNS) -> None:
    """Write a few moments below each other, under `limit` bytes.

    Raises:
        ValueError: even the smallest is too large.
    """
    step = max(1, min(len(frames_THWC) for frames_THWC in people) // MOMENTS)
    chosen = [frames_THWC[step // 2 :: step][:MOMENTS] for frames_THWC in people]

    def write(side_px: int, quality: int) -> None:
        del quality  # PNG loses nothing
        moments = lay_out(chosen, columns, side_px)
        width, height = moments[0].size
        canvas = Image.new("RGBA", (width, height * len(moments)), (0, 0, 0, 0))
        for index, moment in enumerate(moments):
            canvas.paste(moment, (0, index * height))
        canvas.save(path, optimize=True)

    _fit(path, write, limit, QUALITIES[:1])


def _fit(
    path: Path, write: Callable[[int, int], None], limit: int, qualities: tuple[int, ...]
) -> None:
    """Write with ever less until the file fits."""
    for side_px, quality in product(SIDES_PX, qualities):
        write(side_px, quality)
        if path.stat().st_size <= limit:
            return
    raise ValueError(f"{path}: more than {limit} bytes at the smallest size: use fewer seconds")


def main() -> None:
    """Render the cast and write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/cast"))
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--columns", type=int, default=COLUMNS)
    parser.add_argument("--max-bytes", type=int, default=MAX_BYTES)
    args = parser.parse_args()
    folder = model_path(args.model)
    cast = read_cast(folder)
    if not cast:
        parser.error(f"{folder / 'portraits'} holds no cast.json: draw it with viva data portraits")
    model, speech = load_model(args.model), folder / "speech.flac"
    people = [
        talk(model, member.path, speech, index, args.seconds) for index, member in enumerate(cast)
    ]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    webp, png = args.out.with_suffix(".webp"), args.out.with_suffix(".png")
    save_animation(people, webp, model.fps, args.max_bytes, args.columns)
    save_picture(people, png, args.max_bytes, args.columns)


if __name__ == "__main__":
    main()
