"""Draw what a training run did so far: `viva train report RUN` writes RUN/curves.png.

One panel for each part of the loss over steps (from log.jsonl) and for each held-out figure (from
held_out.jsonl); every run also draws its own picture while it goes.
"""

import argparse
import json
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from training.errors import InputError

LOG, HELD_OUT, PICTURE = "log.jsonl", "held_out.jsonl", "curves.png"
PANEL_W, PANEL_H, COLUMNS = 420, 230, 3
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 34, 28
SCALE = 2  # drawn larger, then reduced, so that lines are smooth
INK, FAINT, GRID = (40, 44, 52), (130, 136, 146), (228, 231, 236)
TRAINED, MEASURED = (47, 111, 196), (206, 92, 40)

Point = tuple[float, float]


@dataclass(slots=True)
class Series:
    """A named figure over steps; held-out ones are few and marked by dots."""

    name: str
    held_out: bool
    by_step: dict[float, float] = field(default_factory=dict)

    @property
    def points(self) -> list[Point]:
        """Steps and values in order; of a step that was gone through twice the last is kept."""
        return sorted(self.by_step.items())


def read_records(path: Path) -> list[dict[str, float]]:
    """The records of a JSON-lines file, none if it is not there.

    Lines cut short, as a full disk or a killed run leaves them, are passed over.
    """
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValueError, TypeError, AttributeError):
            records.append({str(n): float(v) for n, v in json.loads(line).items()})
    return records


def read_series(run: Path) -> list[Series]:
    """All figures of a run that change with its steps.

    Raises:
        InputError: the folder holds no log with figures.
    """
    found: dict[tuple[bool, str], Series] = {}
    for held_out, name in ((False, LOG), (True, HELD_OUT)):
        for record in read_records(run / name):
            step = record.pop("step", math.nan)
            if not (math.isfinite(step) and step >= 0):
                continue
            for key, value in record.items():
                series = found.setdefault((held_out, key), Series(key, held_out))
                if math.isfinite(value):
                    series.by_step[step] = value
    filled = [series for series in found.values() if series.by_step]
    if not filled:
        raise InputError(f"{run} holds no {LOG} with figures: name the --run folder of a training")
    return filled


def draw_curves(run: Path, out: Path | None = None) -> Path:
    """Draw a run's panels and return the picture's path."""
    series = read_series(run)
    rows = -(-len(series) // COLUMNS)
    size = (PANEL_W * min(COLUMNS, len(series)) * SCALE, (PANEL_H * rows + 30) * SCALE)
    picture = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(picture)
    last = max(step for s in series for step, _ in s.points)
    _text(pen, (16, 8), f"{run.resolve().name}   step {last:.0f}", 15, INK)
    for index, one in enumerate(series):
        corner = ((index % COLUMNS) * PANEL_W, 30 + index // COLUMNS * PANEL_H)
        _panel(pen, corner, one, last_step=max(last, 1.0))
    path = out or run / PICTURE
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    picture.reduce(SCALE).save(partial, format="PNG", optimize=True)
    partial.replace(path)
    return path


def value_range(values: Sequence[float]) -> tuple[float, float]:
    """The range to show: all values but the highest twentieth, which the first steps fill."""
    ranked = sorted(values)
    low, high = ranked[0], ranked[max(0, math.ceil(0.95 * len(ranked)) - 1)]
    if len(ranked) < 20:
        high = ranked[-1]
    margin = 0.08 * (high - low) or 0.05 * abs(high) or 0.05
    return low - margin, high + margin


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round values within a range, about `count` of them."""
    rough = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(rough))
    spacing = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough)
    first, past = math.ceil(low / spacing), math.floor(high / spacing)
    return [index * spacing for index in range(first, past + 1)]


def _panel(
    pen: ImageDraw.ImageDraw, corner: tuple[int, int], series: Series, last_step: float
) -> None:
    """Draw one figure: grid, axis labels, curve, title with the last value."""
    left, top = corner
    x0, x1 = left + LEFT, left + PANEL_W - RIGHT
    y0, y1 = top + TOP, top + PANEL_H - BOTTOM
    low, high = value_range([value for _, value in series.points])

    def place(step: float, value: float) -> Point:
        share = min(max((value - low) / (high - low), 0.0), 1.0)
        return x0 + step / last_step * (x1 - x0), y1 - share * (y1 - y0)

    for tick in ticks(low, high):
        _, y = place(0.0, tick)
        pen.line(_scaled((x0, y), (x1, y)), fill=GRID, width=SCALE)
        _text(pen, (x0 - 6, y), f"{tick:.4g}", 11, FAINT, anchor="rm")
    for tick in ticks(0.0, last_step, 3):
        x, _ = place(tick, low)
        _text(pen, (x, y1 + 6), f"{tick:.0f}", 11, FAINT, anchor="ma")
    colour = MEASURED if series.held_out else TRAINED
    places = [place(*point) for point in series.points]
    if len(places) > 1:
        pen.line(_scaled(*places), fill=colour, width=2 * SCALE, joint="curve")
    if series.held_out or len(places) == 1:
        for x, y in places:
            pen.ellipse(_scaled((x - 3, y - 3), (x + 3, y + 3)), fill=colour)
    title = f"{series.name}{' (held out)' if series.held_out else ''}"
    _text(pen, (x0, top + 12), title, 13, INK)
    _text(pen, (x1, top + 12), f"{series.points[-1][1]:.4g}", 13, colour, anchor="ra")


def _scaled(*points: Point) -> list[Point]:
    return [(x * SCALE, y * SCALE) for x, y in points]


def _text(
    pen: ImageDraw.ImageDraw,
    at: Point,
    text: str,
    size_px: int,
    colour: tuple[int, int, int],
    anchor: str = "la",
) -> None:
    font = ImageFont.load_default(size_px * SCALE)
    pen.text((at[0] * SCALE, at[1] * SCALE), text, fill=colour, font=font, anchor=anchor)


def run(options: argparse.Namespace) -> None:
    """Draw the curves of a run and say where."""
    path = draw_curves(options.run, options.out)
    print(path)  # noqa: T201 - the command's result


if __name__ == "__main__":
    from training.commands import main

    main("train", "report")
