"""The report of `viva eval long`: figures against limits, and drift, memory and speed over time."""

import numpy as np

from services.eval_long import LongRequest, Record
from services.report_page import Section, figure_table, page
from services.report_plot import Line, plot
from services.video_figures import limits

PLOTS = {
    "Identity drift": ("identity_drift",),
    "Face colour and background, levels": ("face_colour_drift_levels", "background_drift_levels"),
    "Likeness of the face at rest, dB": ("rest_db",),
    "Memory, MB": ("resident_mb",),
    "Seconds of work for a minute of video": ("wall_s", "cpu_s"),
}


def long_report(request: LongRequest, figures: Record, rows: list[Record]) -> str:
    """Return the HTML document of one long stream."""
    seen = int(figures["minutes_looked_at"])
    intro = (
        f"{request.source.portrait.name}, {request.minutes} minutes, seed {request.source.seed}, "
        f"{'with' if request.sink else 'WITHOUT'} the sink. The network ran for every chunk; "
        f"pictures were decoded and looked at in {seen} of the minutes."
    )
    kinds = ("long", "hours") if request.minutes > 2 else ("long",)
    table = figure_table({"figure": figures}, limits(kinds))
    curves = [
        Section(title, plot([_line(rows, n) for n in names])) for title, names in PLOTS.items()
    ]
    return page("viva eval long", intro, [Section("Figures", table), *curves])


def _line(rows: list[Record], name: str) -> Line:
    """A figure at the end of each minute that has it."""
    pairs = [(60.0 * row["minute"], row[name]) for row in rows if name in row]
    times_s, values = np.array(pairs, np.float64).reshape(-1, 2).T
    return Line(name=name, times_s=times_s, values=values)
