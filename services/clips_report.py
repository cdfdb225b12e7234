"""The report of `viva eval clips`: plans side by side on the same clips and seed.

Shape legend: T = frames of a clip.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from services.report_page import Section, figure_table, page, strip
from services.report_plot import Line, plot
from services.terminal import printable
from services.video_figures import Figures, limits


@dataclass(frozen=True, slots=True)
class ClipCurves:
    """What a report shows of one clip by one plan: opening read and true gap [T] in pixels."""

    opening_T: npt.NDArray[np.float64]
    gap_T: npt.NDArray[np.float64]
    pictures: list[Image.Image]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanResult:
    """A plan's figures over all clips, those outside their limits, and a few clips to show."""

    plan: str
    figures: Figures
    missed: list[str]
    shown: list[ClipCurves]


def clips_report(model: str, folder: str, results: Sequence[PlanResult], fps: float) -> str:
    """Return the HTML document; the first plan is the one that others are held against."""
    first = results[0]
    intro = (
        f"Model {printable(model)}, {first.figures['clips']:.0f} clips of {printable(folder)}, the "
        f"same seed for all plans. Reference: {first.plan}."
    )
    columns = {result.plan: result.figures for result in results}
    sections = [Section("Figures", figure_table(columns, limits(("clips", "clips_reference"))))]
    for number in range(len(first.shown)):
        curves = [Line(name="true gap", **_timed(first.shown[number].gap_T, fps))]
        curves += [
            Line(name=result.plan, **_timed(result.shown[number].opening_T, fps))
            for result in results[:5]  # more lines nobody could tell apart
        ]
        strips = "".join(strip(r.shown[number].pictures, r.plan) for r in results)
        sections.append(Section(f"Clip {number + 1}: mouth opening, px", plot(curves) + strips))
    return page("viva eval clips", intro, sections)


def _timed(curve_T: npt.NDArray[np.float64], fps: float) -> dict[str, npt.NDArray[np.float64]]:
    return {"times_s": np.arange(len(curve_T)) / fps, "values": curve_T}
