"""Figures of a video from what was read of it, and the limits that they are held against.

Shape legend: K = seconds, D = description of a face, T = frames.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from audio.envelope import PAUSE_BELOW_DB, Envelope, quiet_frames, voiced_envelope
from pipeline.gates import GATES, Gate
from pipeline.lip_sync import frozen_seconds, sync_figures
from services.video_watch import Row, VideoWatch
from video.fidelity import psnr_db
from video.flicker import static_change
from video.identity import Description, identity_distance

FIRST_S = 2  # seconds at the start that the others are held against
WINDOW_S = 2  # seconds over which flicker is averaged
SILENT_POWER = 1e-8  # of full scale: sound whose loudest twentieth is under it is silence
Figures = dict[str, float]


def identity_curve(descriptions_KD: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return how far the face of each second is from that of the first two."""
    if not len(descriptions_KD):
        return np.zeros(0)
    first = descriptions_KD[:FIRST_S].mean(axis=0)
    return np.array([identity_distance(first, each) for each in descriptions_KD])


def column(rows: Sequence[Row], name: str) -> npt.NDArray[np.float64]:
    """Return one figure of every second that has it."""
    return np.array([row[name] for row in rows if name in row])


def picture_figures(watch: VideoWatch) -> Figures:
    """Return drift, flicker and sharpness of a watched video, its worst second each time."""
    figures: Figures = {"flicker_levels": _worst_flicker(watch.changes)}
    if watch.has_face:
        sharp = column(watch.rows, "sharpness")
        figures |= {
            "identity_drift": float(identity_curve(watch.descriptions).max()),
            "face_colour_drift_levels": float(column(watch.rows, "face_colour_drift_levels").max()),
            "sharpness": float(sharp.mean()),
            "sharpness_kept": float(sharp.min() / max(sharp[:FIRST_S].mean(), 1e-9)),
            "face_lost_share": watch.num_lost / watch.num_frames,
        }
    errors, similarity = (column(watch.rows, name) for name in ("squared_error", "ssim"))
    if len(errors):
        figures |= {
            "psnr_db": psnr_db(float(errors.mean())),
            "psnr_worst_second_db": psnr_db(float(errors.max())),
            "ssim": float(similarity.mean()),
            "ssim_worst_second": float(similarity.min()),
        }
    return figures


def portrait_figures(
    watch: VideoWatch, portrait: Description, portrait_sharpness: float
) -> Figures:
    """Return how far the face is from its portrait in the worst second, and how sharp beside it."""
    distances = [identity_distance(portrait, each) for each in watch.descriptions]
    sharp = float(column(watch.rows, "sharpness").mean())
    return {
        "identity_from_portrait": max(distances),
        "sharpness_of_portrait": sharp / max(portrait_sharpness, 1e-9),
    }


def sound_figures(opening_T: npt.NDArray[np.float64], power_T: Envelope, fps: Fraction) -> Figures:
    """Return whether the mouth follows the voice; nothing where there is no voice."""
    if not is_voiced(power_T):
        return {}
    figures = sync_figures(opening_T, voiced_envelope(power_T), fps)
    frozen = frozen_seconds(opening_T, ~quiet_frames(power_T), fps)
    return figures | {"frozen_share": float(frozen.mean())} if len(frozen) else figures


def is_voiced(power_T: Envelope) -> bool:
    """Whether there is any sound to speak of, and not one level throughout."""
    loud = float(np.percentile(power_T, 95))
    level = 10.0 ** (-PAUSE_BELOW_DB / 10.0)
    return loud > SILENT_POWER and float(power_T.min()) < max(loud * level * 10.0, SILENT_POWER)


def truth_figures(
    opening_T: npt.NDArray[np.float64], truth_T: npt.NDArray[np.float64], fps: Fraction
) -> Figures:
    """Return whether the mouth follows the true opening."""
    figures = sync_figures(opening_T, truth_T, fps)
    return {f"truth_{name.removeprefix('sync_')}": value for name, value in figures.items()}


def limits(kinds: Sequence[str]) -> Mapping[str, Gate]:
    """Return the limits of some kinds of figures together."""
    return {name: gate for kind in kinds for name, gate in GATES[kind].items()}


def _worst_flicker(changes_KG: npt.NDArray[np.float32]) -> float:
    """The change of what stands still in the worst two seconds in a row."""
    starts = range(max(1, len(changes_KG) - WINDOW_S + 1))
    return max(static_change(changes_KG[start : start + WINDOW_S]) for start in starts)
