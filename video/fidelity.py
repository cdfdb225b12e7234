"""How near one picture is to another, pixel by pixel and by structure.

Shape legend: H, W = picture, C = colours.
"""

import numpy as np
import numpy.typing as npt

PEAK = 255.0
SAME_DB = 100.0  # of equal pictures, whose true figure is infinite
WINDOW = 8
# Source: Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment", 2004, section III-C.
C1, C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2

Picture = npt.NDArray[np.uint8]


def squared_error(a_HWC: Picture, b_HWC: Picture) -> float:
    """Return the mean squared difference in levels of 255."""
    return float(np.square(a_HWC.astype(np.float32) - b_HWC).mean())


def psnr_db(error: float) -> float:
    """Return the peak signal-to-noise ratio of a mean squared difference, at most 100 dB.

    Of a video, that of the mean error: frames that are equal do not hide those that are not.
    """
    return SAME_DB if error <= 0.0 else min(SAME_DB, 10.0 * float(np.log10(PEAK**2 / error)))


def ssim(a_HW: npt.NDArray[np.float32], b_HW: npt.NDArray[np.float32]) -> float:
    """Return the structural similarity of grey pictures of at least 8 pixels a side; 1 if equal.

    Means over whole windows of 8 x 8 that step by 4, as the authors' first version did.
    """
    moments = [_windowed(x) for x in (a_HW, b_HW, a_HW * a_HW, b_HW * b_HW, a_HW * b_HW)]
    mean_a, mean_b, square_a, square_b, product = moments
    spread = square_a - mean_a**2 + square_b - mean_b**2
    shared = product - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    return float((luminance * (2 * shared + C2) / (spread + C2)).mean())


def _windowed(values_HW: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Means of windows of 8 x 8 at every fourth row and column."""
    half = WINDOW // 2
    height, width = (side // half * half for side in values_HW.shape)
    cells = values_HW[:height, :width].reshape(height // half, half, width // half, half)
    sums = cells.mean(axis=(1, 3), dtype=np.float64)
    means: npt.NDArray[np.float64] = 0.25 * (
        sums[:-1, :-1] + sums[1:, :-1] + sums[:-1, 1:] + sums[1:, 1:]
    )
    return means
