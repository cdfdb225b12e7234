"""The curve of a calibration as a drawing that stands alone: SVG, on white."""

from collections.abc import Sequence

from pipeline.calibration import MOTION_KEPT, Calibration, LevelLikeness

_WIDTH, _HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 96, 16, 40
_CURVES: tuple[tuple[str, str], ...] = (
    ("motion", "#1f6fb4"),
    ("detail", "#d1495b"),
    ("flow", "#5f9ea0"),
    ("face", "#8a6d3b"),
)


def calibration_plot(calibration: Calibration) -> str:
    """Likeness over the level that clips were finished again from; `t_mid` marked."""
    parts = [_axes(), _marks(calibration.t_mid)]
    ends: list[float] = []
    for name, colour in _CURVES:
        points = _points(calibration.levels, name)
        if points:
            ends.append(_free(points[-1][1], ends))
            parts.append(_curve(points, name, colour, ends[-1]))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'font-family="sans-serif" font-size="12">'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _points(levels: Sequence[LevelLikeness], name: str) -> list[tuple[float, float]]:
    """Where the values of a curve lie in the drawing; none if it was not measured."""
    values = [(level.sigma, getattr(level, name)) for level in levels]
    return [(_x(sigma), _y(value)) for sigma, value in values if value is not None]


def _x(sigma: float) -> float:
    return round(_LEFT + sigma * (_WIDTH - _LEFT - _RIGHT), 1)


def _y(likeness: float) -> float:
    return round(_TOP + (1.0 - max(likeness, 0.0)) * (_HEIGHT - _TOP - _BOTTOM), 1)


def _free(y: float, taken: Sequence[float]) -> float:
    """A height for a label that no other has."""
    while any(abs(y - other) < 13 for other in taken):
        y += 3
    return y


def _axes() -> str:
    parts = []
    for tenth in range(0, 11, 2):
        x, y = _x(tenth / 10), _y(tenth / 10)
        parts.append(f'<path d="M{_LEFT} {y}H{_WIDTH - _RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{tenth / 10:g}</text>')
        parts.append(
            f'<text x="{x}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{tenth / 10:g}</text>'
        )
    x = (_LEFT + _WIDTH - _RIGHT) / 2
    caption = "noise level that clips are finished again from"
    parts.append(f'<text x="{x}" y="{_HEIGHT - 6}" text-anchor="middle">{caption}</text>')
    return "".join(parts)


def _marks(t_mid: float | None) -> str:
    """The limit of what counts as the same motion, and the level that it gives."""
    y = _y(MOTION_KEPT)
    dashed = 'stroke="#888" stroke-dasharray="4 3"'
    limit = f'<path d="M{_LEFT} {y}H{_WIDTH - _RIGHT}" {dashed}/>'
    if t_mid is None:
        return limit
    x = _x(t_mid)
    line = f'<path d="M{x} {_TOP}V{_HEIGHT - _BOTTOM}" {dashed}/>'
    y = _HEIGHT - _BOTTOM - 6
    return f'{limit}{line}<text x="{x - 4}" y="{y}" text-anchor="end">t_mid {t_mid:g}</text>'


def _curve(points: Sequence[tuple[float, float]], name: str, colour: str, label_y: float) -> str:
    path = "L".join(f"{x} {y}" for x, y in points)
    dots = "".join(f'<circle cx="{x}" cy="{y}" r="2.2" fill="{colour}"/>' for x, y in points)
    label = f'<text x="{points[-1][0] + 8}" y="{label_y + 4}" fill="{colour}">{name}</text>'
    return f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>{dots}{label}'
