"""How much a picture flickers where nothing moves.

Shape legend: T = frames, H, W = picture, G = 16 cells a side.
"""

import numpy as np
import numpy.typing as npt

CELLS = 16
STATIC_SHARE = 0.25  # of the cells, those that change least, are taken for what stands still
Picture = npt.NDArray[np.uint8]


def cell_changes(before_HWC: Picture, after_HWC: Picture) -> npt.NDArray[np.float32]:
    """Return the mean absolute change [G * G] of each cell of two frames, in levels of 255."""
    height, width, colours = after_HWC.shape
    change = np.maximum(before_HWC, after_HWC) - np.minimum(before_HWC, after_HWC)
    rows = np.linspace(0, height, CELLS + 1).astype(int)[:-1]
    columns = np.linspace(0, width, CELLS + 1).astype(int)[:-1]
    across = np.add.reduceat(change.reshape(height, -1), colours * columns, axis=1, dtype=np.int64)
    sums = np.add.reduceat(across, rows, axis=0)
    sizes = colours * np.outer(np.diff([*rows, height]), np.diff([*columns, width]))
    cells: npt.NDArray[np.float32] = (sums / sizes).astype(np.float32).ravel()
    return cells


def static_change(changes_TG: npt.NDArray[np.float32]) -> float:
    """Return the mean change of the quarter of cells that change least over all T; 0 of none."""
    if not len(changes_TG):
        return 0.0
    by_cell = np.sort(changes_TG.mean(axis=0))
    return float(by_cell[: max(1, int(STATIC_SHARE * len(by_cell)))].mean())
