"""The true opening of a mouth over a video, as synthetic clips know it, from a file."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from services.options import OptionError

NAME = "openness"  # as held-out clips call it (`training/clip.py`)
_REMEDY = f"give a JSON list of numbers, or a JSON object or NPZ with `{NAME}`, one a frame"


def read_truth(path: Path, num_frames: int) -> npt.NDArray[np.float64]:
    """Return the opening at each frame of a video of so many frames.

    Raises:
        OptionError: the file cannot be read, or is of another length; one line with the remedy.
    """
    truth = _array(path)
    if truth.ndim != 1 or not np.isfinite(truth).all():
        raise OptionError(f"--truth {path} holds no row of finite numbers: {_REMEDY}")
    if abs(len(truth) - num_frames) > 1:
        raise OptionError(
            f"--truth {path} has {len(truth)} numbers, the video {num_frames} frames: {_REMEDY}"
        )
    return np.pad(truth, (0, max(0, num_frames - len(truth))), mode="edge")[:num_frames]


def _array(path: Path) -> npt.NDArray[np.float64]:
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return np.asarray(arrays[NAME], np.float64)
        record = json.loads(path.read_text())
        return np.asarray(record[NAME] if isinstance(record, dict) else record, np.float64)
    except FileNotFoundError:
        raise OptionError(f"--truth {path} does not exist: check the path") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:80]
        raise OptionError(f"--truth {path} cannot be read ({reason}): {_REMEDY}") from None
