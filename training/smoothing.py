"""Gaussian smoothing of tracks along time."""

import numpy as np

_TRUNCATE_SIGMAS = 4.0


def gaussian(track_CT: np.ndarray, sigma_frames: float) -> np.ndarray:
    """Smooth along the last axis; beyond both ends the track counts as zero.

    Args:
        track_CT: any number of leading axes, time last.
        sigma_frames: width of the bell; 0 or less returns the track as it is.

    Returns:
        float64 array of the same shape.
    """
    rows = np.asarray(track_CT, np.float64)
    if sigma_frames <= 0 or rows.shape[-1] == 0:
        return rows
    radius = max(1, round(_TRUNCATE_SIGMAS * sigma_frames))
    bell = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma_frames) ** 2)
    bell /= bell.sum()
    flat = rows.reshape(-1, rows.shape[-1])
    smooth = np.stack([np.convolve(row, bell)[radius:-radius] for row in flat])
    return smooth.reshape(rows.shape)
