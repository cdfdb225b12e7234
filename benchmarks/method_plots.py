"""Draws cost against quality as an SVG that needs nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, LEFT, TOP, GAP = 460, 320, 56, 40, 40
STYLE = (
    "text{font:11px sans-serif;fill:#333}.grid{stroke:#ddd}.dot{fill:#2563eb}.plain{fill:#dc2626}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.grid{stroke:#444}}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A plan: its cost against the plain one, and two measures of quality."""

    name: str
    cost: float
    sync: float
    psnr_db: float


def scatter(title: str, points: Sequence[Point]) -> str:
    """Two panels: how mouths follow the sound, and how near pictures are to the plain plan's.

    The first point is the plain plan. Its pictures equal themselves: it is left out on the right.
    """
    sync = [(p.name, p.cost, p.sync) for p in points]
    near = [(p.name, p.cost, p.psnr_db) for p in points[1:]]
    panels = [
        _panel(0, "opening follows the sound (correlation)", sync, has_plain=True),
        _panel(1, "PSNR against it, dB", near, has_plain=False),
    ]
    whole = 2 * (WIDTH + LEFT + GAP)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole} {HEIGHT + TOP + 60}">'
        f"<style>{STYLE}</style>"
        f'<text x="{LEFT}" y="18" font-weight="bold">{escape(title)}</text>'
        f"{''.join(panels)}</svg>\n"
    )


def _panel(
    index: int, label: str, points: list[tuple[str, float, float]], *, has_plain: bool
) -> str:
    """One panel; both axes from a little below the least to a little above the greatest."""
    x0 = LEFT + index * (WIDTH + LEFT + GAP)
    xs, ys = [p[1] for p in points] or [1.0], [p[2] for p in points] or [1.0]
    low_x, high_x = 0.0, 1.05 * max(xs)
    pad = 0.1 * (max(ys) - min(ys)) or 0.1
    low_y, high_y = min(ys) - pad, max(ys) + pad

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            x0 + WIDTH * (x - low_x) / (high_x - low_x),
            TOP + HEIGHT * (1 - (y - low_y) / (high_y - low_y)),
        )

    parts = [f'<text x="{x0}" y="{TOP - 6}">{escape(label)}</text>']
    for tick in range(5):
        x, y = low_x + tick * (high_x - low_x) / 4, low_y + tick * (high_y - low_y) / 4
        (px, bottom), (left, py) = place(x, low_y), place(low_x, y)
        parts += [
            f'<line class="grid" x1="{px:.0f}" x2="{px:.0f}" y1="{TOP}" y2="{bottom:.0f}"/>',
            f'<line class="grid" x1="{left:.0f}" x2="{left + WIDTH:.0f}" '
            f'y1="{py:.0f}" y2="{py:.0f}"/>',
            f'<text x="{px:.0f}" y="{bottom + 16:.0f}" text-anchor="middle">{x:.2f}</text>',
            f'<text x="{left - 6:.0f}" y="{py + 4:.0f}" text-anchor="end">{y:.3g}</text>',
        ]
    for number, (name, cost, value) in enumerate(points):
        px, py = place(cost, value)
        kind = "plain" if has_plain and number == 0 else "dot"
        parts.append(
            f'<circle class="{kind}" cx="{px:.1f}" cy="{py:.1f}" r="4"><title>{escape(name)}: '
            f"{cost:.2f}, {value:.3f}</title></circle>"
            f'<text x="{px + 6:.1f}" y="{py + 4:.1f}">{escape(name)}</text>'
        )
    parts.append(
        f'<text x="{x0 + WIDTH / 2}" y="{TOP + HEIGHT + 36}" text-anchor="middle">cost</text>'
    )
    return "".join(parts)
