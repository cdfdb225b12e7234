"""Curves over time as inline SVG, drawn with the colours of the page they stand in.

Shape legend: T = points of a curve.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

WIDTH, HEIGHT = 720, 180
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 8, 22
MAX_POINTS = 700  # of a curve; longer ones keep the extremes of each piece
TICKS = 4

Curve = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One curve with its name in the legend; values at `times_s`, gaps where not finite."""

    name: str
    times_s: Curve
    values: Curve


def plot(lines: Sequence[Line], limits: Sequence[float] = ()) -> str:
    """Return an SVG of curves over seconds; `limits` are drawn as dashed lines."""
    shown = [thinned(line) for line in lines if np.isfinite(line.values).any()]
    if not shown:
        return "<p>nothing was measured</p>"
    low, high = _span([line.values for line in shown], limits)
    end_s = max(float(line.times_s[-1]) for line in shown) or 1.0
    parts = [_axes(low, high, end_s)]
    for limit in limits:
        y = _y(limit, low, high)
        parts.append(f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
    for index, line in enumerate(shown):
        parts.append(f'<path class="c{index}" d="{_path(line, low, high, end_s)}"/>')
    legend = " ".join(
        f'<span class="k{index}">{escape(line.name)}</span>' for index, line in enumerate(shown)
    )
    drawing = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'
    return f"<figure>{drawing}<figcaption>{legend}</figcaption></figure>"


def thinned(line: Line) -> Line:
    """Return the curve in at most `MAX_POINTS` points, lowest and highest of each piece kept."""
    if len(line.values) <= MAX_POINTS:
        return line
    kept: list[int] = []
    for piece in np.array_split(np.arange(len(line.values)), MAX_POINTS // 2):
        seen = piece[np.isfinite(line.values[piece])]
        if len(seen):
            values = line.values[seen]
            kept += sorted({int(seen[values.argmin()]), int(seen[values.argmax()])})
    return Line(name=line.name, times_s=line.times_s[kept], values=line.values[kept])


def _span(curves: Sequence[Curve], limits: Sequence[float]) -> tuple[float, float]:
    values = np.concatenate([*curves, np.array(limits, np.float64)])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def _y(value: float, low: float, high: float) -> float:
    return round(TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)


def _x(time_s: float, end_s: float) -> float:
    return round(LEFT + time_s / end_s * (WIDTH - LEFT - RIGHT), 1)


def _path(line: Line, low: float, high: float, end_s: float) -> str:
    words, pen_down = [], False
    for time_s, value in zip(line.times_s, line.values, strict=True):
        if np.isfinite(value):
            x, y = _x(float(time_s), end_s), _y(float(value), low, high)
            words.append(f"{'L' if pen_down else 'M'}{x} {y}")
        pen_down = bool(np.isfinite(value))
    return "".join(words)


def _axes(low: float, high: float, end_s: float) -> str:
    parts = []
    for value in np.linspace(low, high, TICKS):
        y = _y(float(value), low, high)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 4}" y="{y + 4}" text-anchor="end">{value:.3g}</text>')
    for time_s in np.linspace(0.0, end_s, TICKS):
        x = _x(float(time_s), end_s)
        anchor = "start" if time_s == 0 else "end" if time_s == end_s else "middle"
        parts.append(f'<text x="{x}" y="{HEIGHT - 6}" text-anchor="{anchor}">{time_s:.4g} s</text>')
    return "".join(parts)
