"""Milliseconds of a core that a picture and 20 ms of sound cost to encode, and what comes of it.

Run: python benchmarks/encode_cost.py [--video FILE]. Pictures are a talking face from a video if
one is given, else a drawn one with grain. Counted is the thread's own time on a core, which other
work on the machine hardly changes.
"""

import argparse
import time
from fractions import Fraction
from itertools import islice
from pathlib import Path
from statistics import median, quantiles

import av
import cv2
import numpy as np
import numpy.typing as npt

from services.encode import SOUND_RATE, VIDEO_CODECS, OpusEncoder, VideoEncoder

FPS = Fraction(25)
Picture = npt.NDArray[np.uint8]


def drawn(count: int, side: int) -> list[Picture]:
    """A head that sways with a mouth that opens, under film grain."""
    rng = np.random.default_rng(0)
    pictures = []
    for n in range(count):
        picture = np.full((side, side, 3), (150, 160, 170), np.uint8)
        x, y = int(side * (0.5 + 0.02 * np.sin(n / 9))), side // 2
        cv2.ellipse(picture, (x, y), (side // 4, side // 3), 0, 0, 360, (205, 170, 150), -1)
        opening = int(side * 0.04 * abs(np.sin(n / 3))) + 2
        cv2.ellipse(picture, (x, y + side // 6), (side // 12, opening), 0, 0, 360, (90, 40, 50), -1)
        for eye in (-1, 1):
            cv2.circle(
                picture, (x + eye * side // 10, y - side // 12), side // 40, (40, 30, 30), -1
            )
        grain = rng.normal(0, 2, picture.shape)
        pictures.append(np.clip(picture + grain, 0, 255).astype(np.uint8))
    return pictures


def filmed(path: Path, count: int, side: int) -> list[Picture]:
    """The first pictures of a video, scaled to a square."""
    with av.open(str(path)) as container:
        frames = [f.to_ndarray(format="rgb24") for f in islice(container.decode(video=0), count)]
    return [
        cv2.resize(f, (side, side), interpolation=cv2.INTER_AREA).astype(np.uint8) for f in frames
    ]


def picture_row(codec: str, pictures: list[Picture], side: int) -> str:
    """One line of the table."""
    encoder = VideoEncoder(codec, fps=FPS)  # type: ignore[arg-type] # one of VIDEO_CODECS
    took_ms: list[float] = []
    sizes: list[int] = []
    keys: list[int] = []
    for n, picture in enumerate(pictures):
        began_s = time.thread_time()
        packed = encoder.encode(picture, n * 3600, keyframe=n % 100 == 50)
        took_ms.append((time.thread_time() - began_s) * 1000)
        (keys if packed.is_keyframe else sizes).append(len(packed.data))
    rate = (sum(sizes) + sum(keys)) * 8 * 25 / len(pictures) / 1000
    return (
        f"| {codec} | {side} | {median(took_ms):.2f} | {quantiles(took_ms, n=100)[94]:.2f} "
        f"| {rate:.0f} | {max(keys) / 1000:.1f} |"
    )


def sound_row() -> str:
    """One line on Opus."""
    encoder, rng, took_ms = OpusEncoder(), np.random.default_rng(0), []
    for n in range(500):
        sound = (3000 * rng.standard_normal(960)).astype(np.int16)
        began_s = time.thread_time()
        encoder.encode(sound, n * 960)
        took_ms.append((time.thread_time() - began_s) * 1000)
    p95_ms = quantiles(took_ms, n=100)[94]
    return f"| Opus | {SOUND_RATE} Hz | {median(took_ms):.2f} | {p95_ms:.2f} | | |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--video", type=Path, help="a talking face")
    parser.add_argument("--count", type=int, default=250, help="pictures per row")
    arguments = parser.parse_args()
    print("| codec | side | median ms | p95 ms | kbit/s | largest keyframe kB |")
    print("|---|---|---|---|---|---|")
    for side in (256, 512):
        pictures = (
            filmed(arguments.video, arguments.count, side)
            if arguments.video
            else drawn(arguments.count, side)
        )
        for codec in VIDEO_CODECS:
            print(picture_row(codec, pictures, side))
    print(sound_row())


if __name__ == "__main__":
    main()
