"""The report of `viva eval video`: figures against limits, curves over time, a contact sheet."""

import numpy as np
import numpy.typing as npt

from audio.envelope import voiced_envelope
from services.eval_video import VideoResult
from services.report_page import Section, figure_table, page, strip
from services.report_plot import Line, plot
from services.terminal import printable
from services.video_figures import column, identity_curve, is_voiced, limits
from video.fidelity import psnr_db
from video.flicker import static_change

CLOSE_UP_S = 12.0  # of opening and sound: longer, nobody could see a lag


def video_report(result: VideoResult) -> str:
    """Return the HTML document of one measured video."""
    movie, watch = result.movie, result.watch
    name = printable(movie.path.name)
    intro = (
        f"{watch.num_frames} frames of {movie.width}x{movie.height} at {float(movie.fps):.4g} fps, "
        f"{watch.num_frames / float(movie.fps):.1f} s; face {result.face}. "
        + ("Outside their limits: " + ", ".join(result.missed) if result.missed else "All pass.")
    )
    table = figure_table({name: result.figures}, limits(result.kinds))
    sections = [Section("Figures", table), *_curves(result), _sheet(result)]
    return page(f"viva eval video: {name}", intro, sections)


def _curves(result: VideoResult) -> list[Section]:
    watch, gates = result.watch, limits(result.kinds)
    drift = [Line(name="identity drift", **_seconds(identity_curve(watch.descriptions)))]
    colour = [_line(result, "face_colour_drift_levels", "face colour, levels")]
    flicker = np.array([static_change(row[None]) for row in watch.changes])
    sections = [
        Section("Mouth and sound", plot(_mouth(result))),
        Section("Identity", plot(drift, [gates["identity_drift"].high])),
        Section("Colour", plot(colour, [gates["face_colour_drift_levels"].high])),
        Section("Flicker", plot([Line(name="flicker, levels", **_seconds(flicker))])),
        Section("Sharpness", plot([_line(result, "sharpness", "sharpness")])),
    ]
    if "video_reference" in result.kinds:
        psnr = np.array([psnr_db(error) for error in column(watch.rows, "squared_error")])
        sections += [
            Section("PSNR", plot([Line(name="dB", **_seconds(psnr))])),
            Section("SSIM", plot([_line(result, "ssim", "SSIM")])),
        ]
    return sections


def _mouth(result: VideoResult) -> list[Line]:
    """Opening, loudness and truth of the first seconds, each from 0 to 1."""
    count = int(CLOSE_UP_S * result.movie.fps)
    curves = {"mouth opening": result.watch.opening}
    if result.power_T is not None and is_voiced(result.power_T):
        curves["loudness of the voice"] = voiced_envelope(result.power_T)
    if result.truth_T is not None:
        curves["true opening"] = result.truth_T
    return [
        Line(
            name=name,
            times_s=np.arange(len(curve[:count])) / float(result.movie.fps),
            values=_unit(curve[:count]),
        )
        for name, curve in curves.items()
        if len(curve)
    ]


def _unit(curve: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    if not np.isfinite(curve).any():
        return curve
    low, high = float(np.nanmin(curve)), float(np.nanmax(curve))
    scaled: npt.NDArray[np.float64] = (curve - low) / max(high - low, 1e-9)
    return scaled


def _line(result: VideoResult, figure: str, name: str) -> Line:
    return Line(name=name, **_seconds(column(result.watch.rows, figure)))


def _seconds(values: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[np.float64]]:
    return {"times_s": np.arange(len(values), dtype=np.float64), "values": values}


def _sheet(result: VideoResult) -> Section:
    kept = result.watch.thumbs.take()
    at = ", ".join(f"{float(index / result.movie.fps):.1f}" for index, _ in kept)
    return Section("Pictures", strip([picture for _, picture in kept], f"at {at} s"))
