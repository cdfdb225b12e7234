"""The unit of sound that travels through the program.

Shape legend: T = samples.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioChunk:
    """A run of mono samples with its place on the media clock.

    `samples_T` is float32 in [-1, 1], `sample_rate` in hertz, `pts` the index of the first
    sample (time base 1 / sample_rate).

    Raises:
        ValueError: samples are not one-dimensional float32, or the rate is not positive.
    """

    samples_T: npt.NDArray[np.float32]
    sample_rate: int
    pts: int

    def __post_init__(self) -> None:
        """Refuse what a later stage could not interpret."""
        if self.samples_T.ndim != 1 or self.samples_T.dtype != np.float32:
            raise ValueError(
                f"samples_T must be 1-D float32, got {self.samples_T.dtype} "
                f"of shape {self.samples_T.shape}"
            )
        if self.sample_rate <= 0:
            raise ValueError(f"sample_rate must be positive, got {self.sample_rate}")

    @property
    def num_samples(self) -> int:
        """Number of samples held."""
        return int(self.samples_T.shape[0])

    @property
    def end_pts(self) -> int:
        """The pts just after the last sample."""
        return self.pts + self.num_samples

    @property
    def time_base(self) -> Fraction:
        """Seconds per pts tick."""
        return Fraction(1, self.sample_rate)
