"""Draw evenly spaced frames of videos as one picture, to be looked at or shown in the README.

    python docs/contact_sheet.py --out docs/pictures/cast.png --frames 8 ada.mp4 bruno.mp4

One video fills as many rows as it needs; several get a row each, the same moments in columns.
"""

import argparse
from pathlib import Path

import av
from PIL import Image


def read_frames(path: Path, count: int) -> list[Image.Image]:
    """Return `count` frames spread evenly over the video's first stream."""
    with av.open(str(path)) as container:
        arrays = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    pictures = [Image.fromarray(array) for array in arrays]
    step = max(1, len(pictures) // count)
    return pictures[step // 2 :: step][:count]


def sheet(pictures: list[Image.Image], columns: int, width_px: int) -> Image.Image:
    """Return the pictures in rows of `columns`, each scaled to `width_px`."""
    height_px = pictures[0].height * width_px // pictures[0].width
    rows = -(-len(pictures) // columns)
    canvas = Image.new("RGB", (columns * width_px, rows * height_px), "white")
    for index, picture in enumerate(pictures):
        scaled = picture.resize((width_px, height_px), Image.Resampling.LANCZOS)
        canvas.paste(scaled, (index % columns * width_px, index // columns * height_px))
    return canvas


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=16, help="frames of each video")
    parser.add_argument("--columns", type=int, default=8)
    parser.add_argument("--width", type=int, default=140, help="pixels of one frame")
    args = parser.parse_args()
    pictures = [picture for video in args.videos for picture in read_frames(video, args.frames)]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheet(pictures, args.columns, args.width).save(args.out, optimize=True)


if __name__ == "__main__":
    main()
