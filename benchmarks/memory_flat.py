"""Measures whether memory stays flat over a long render: growth from minute 2 of media to the end.

    python benchmarks/memory_flat.py [--model pocket] [--minutes 30] [--size WxH]

Exit status 1 if resident memory grows by more than the limit.
"""

import argparse
import gc
import tempfile
from fractions import Fraction
from pathlib import Path

import psutil
import torch
from report import table, write_report
from tiled_speech import write_tiled_speech

from pipeline.catalog import model_path
from services.options import RenderRequest, parse_crop_option, parse_size
from services.render import RenderSummary, render

LIMIT_MB = 50.0
FROM_MINUTE = 2


class MemoryWatch:
    """Resident memory of this process at every ten seconds of media."""

    def __init__(self) -> None:
        """Watch this process."""
        self._process = psutil.Process()
        self.samples: list[tuple[float, float]] = []

    def __call__(self, done: int, total: int | None, fps: Fraction) -> None:
        """Take a sample when ten more seconds of video are done; a progress callback."""
        del total
        at_s = float(done / fps)
        if not self.samples or at_s >= self.samples[-1][0] + 10:
            gc.collect()
            self.samples.append((at_s, self._process.memory_info().rss / 1e6))

    def growth_mb(self) -> float:
        """The highest resident memory after minute 2, above that at minute 2."""
        late = [rss_mb for at_s, rss_mb in self.samples if at_s >= 60 * FROM_MINUTE]
        return max(late) - late[0]


def describe(summary: RenderSummary, watch: MemoryWatch) -> str:
    """The result as Markdown."""
    wanted_s = [0, 60, 120, *range(300, int(summary.video_s), 300), summary.video_s - 12]
    rows = []
    for at_s in wanted_s:
        found_s, rss_mb = min(watch.samples, key=lambda sample: abs(sample[0] - at_s))
        rows.append([f"{found_s / 60:.1f}", f"{rss_mb:.1f}"])
    growth_mb = watch.growth_mb()
    verdict = "flat" if growth_mb <= LIMIT_MB else "NOT flat"
    return (
        f"Model {summary.model}, plan {summary.plan}, {summary.width}x{summary.height} at "
        f"{summary.fps} fps, {summary.video_s / 60:.1f} minutes of video in "
        f"{summary.wall_s / 60:.1f} minutes (real-time factor {summary.real_time_factor:.2f}).\n\n"
        f"**Growth from minute {FROM_MINUTE} to the highest later sample: {growth_mb:.1f} MB** "
        f"(limit {LIMIT_MB:.0f} MB): {verdict}. {len(watch.samples)} samples.\n\n"
        + table(["minute of media", "resident MB"], rows)
    )


def main() -> int:
    """Render the long sound, watch, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--size", type=parse_size)
    parser.add_argument("--crop", default="auto", type=parse_crop_option)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--portrait", type=Path)
    parser.add_argument("--audio", type=Path)
    options = parser.parse_args()
    if options.minutes <= FROM_MINUTE:
        parser.error(f"--minutes must exceed {FROM_MINUTE}")
    torch.set_num_threads(options.threads)
    folder = model_path(options.model)
    watch = MemoryWatch()
    with tempfile.TemporaryDirectory() as work:
        sound = Path(work) / "sound.wav"
        recording = options.audio or folder / "speech.flac"
        write_tiled_speech(recording, sound, 60 * options.minutes)
        request = RenderRequest(
            portrait=options.portrait or min((folder / "portraits").glob("*.png")),
            audio=sound,
            out=Path(work) / "out.mp4",
            model=options.model,
            size=options.size,
            crop=options.crop,
        )
        summary = render(request, watch)
    body = describe(summary, watch)
    print(body)
    print(write_report("memory_flat", "Memory over a long render", body))
    return int(watch.growth_mb() > LIMIT_MB)


if __name__ == "__main__":
    raise SystemExit(main())
