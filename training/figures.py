"""The figures a recipe ends in, and whether they lie where the recipe says."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from training.curves import HELD_OUT, read_records
from training.errors import InputError

MEASURED_RUNS = ("speech", "prior", "base")


@dataclass(frozen=True, slots=True)
class Verdict:
    """One bounded figure."""

    name: str
    value: float
    low: float
    high: float

    @property
    def holds(self) -> bool:
        """Whether the figure lies within its bounds."""
        return self.low <= self.value <= self.high

    def __str__(self) -> str:
        """One line of the table."""
        text = f"{self.name:<28} {self.value:10.4f}  of {self.low:g}..{self.high:g}"
        return text if self.holds else f"{text}  OUTSIDE"


def run_figures(runs: Path) -> dict[str, float]:
    """The last held-out figures of all runs, as `run.figure`."""
    found: dict[str, float] = {}
    for run in MEASURED_RUNS:
        records = read_records(runs / run / HELD_OUT)
        if not records:
            raise InputError(f"{runs / run} has no held-out figures: remove it to train it again")
        found |= {f"{run}.{name}": value for name, value in records[-1].items() if name != "step"}
    return found


def judge(figures: Mapping[str, float], bounds: Mapping[str, tuple[float, float]]) -> list[Verdict]:
    """Every bounded figure with its bounds.

    Raises:
        InputError: a bound names a figure that was not measured.
    """
    for name in bounds:
        if name not in figures:
            known = ", ".join(sorted(figures))
            raise InputError(f"bounds: {name!r} is no figure: use some of {known}")
    return [Verdict(name, figures[name], *bounds[name]) for name in bounds]


def write_figures(path: Path, figures: Mapping[str, float]) -> None:
    """Write figures as JSON."""
    path.write_text(json.dumps(dict(figures), indent=2) + "\n")
