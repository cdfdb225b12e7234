"""Noise levels, the updates between them, and noise that does not depend on who draws it.

Shape legend: C = latent channels, T = latent frames, H = height, W = width.

A latent at level sigma is `(1 - sigma) * data + sigma * noise`; velocity is noise minus data.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

TIME_SCALE = 1000.0
"""Times given to the network are sigma times this."""

PredictionKind = Literal["velocity", "residual"]
Words = tuple[npt.NDArray[np.uint64], ...]

_WORD = np.uint64(0xFFFFFFFF)
_PHILOX_ROUNDS = 10
_PHILOX_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_PHILOX_WEYL = (0x9E3779B9, 0xBB67AE85)
_WORDS_PER_DRAW = 4


@dataclass(frozen=True, slots=True)
class NoiseSchedule:
    """Falling noise levels; step i goes from `sigmas[i]` to `sigmas[i + 1]`.

    Raises:
        ValueError: fewer than two levels, not falling, or outside 0..1.
    """

    sigmas: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check the levels."""
        if len(self.sigmas) < 2:
            raise ValueError(f"sigmas {self.sigmas}: a schedule needs at least two levels")
        if self.sigmas[0] > 1 or self.sigmas[-1] < 0:
            raise ValueError(f"sigmas {self.sigmas}: levels lie between 1 and 0")
        if any(b >= a for a, b in zip(self.sigmas, self.sigmas[1:], strict=False)):
            raise ValueError(f"sigmas {self.sigmas}: levels must fall at every step")

    @property
    def num_steps(self) -> int:
        """Denoising steps."""
        return len(self.sigmas) - 1

    @property
    def timesteps(self) -> tuple[float, ...]:
        """What the network is told at each step."""
        return tuple(TIME_SCALE * sigma for sigma in self.sigmas[:-1])


def shifted_sigmas(num_steps: int, shift: float = 3.0) -> tuple[float, ...]:
    """Levels of the published schedule: evenly spaced, shifted towards noise, then 0.

    The lower end of the even spacing is itself shifted once, as in the reference scheduler.

    Raises:
        ValueError: no steps, or a shift that is not positive.
    """
    if num_steps < 1 or shift <= 0:
        raise ValueError(f"num_steps {num_steps} and shift {shift} must be positive")
    lowest = _shifted(1 / TIME_SCALE, shift)
    raw = np.linspace(1.0, lowest, num_steps)
    return (*(float(_shifted(r, shift)) for r in raw), 0.0)


def _shifted(raw: float, shift: float) -> float:
    return shift * raw / (1 + (shift - 1) * raw)


def euler_step(
    x: torch.Tensor, velocity: torch.Tensor, sigma_in: float, sigma_out: float
) -> torch.Tensor:
    """Follow the velocity from one level to the next."""
    return x + (sigma_out - sigma_in) * velocity


def clean_estimate(x: torch.Tensor, velocity: torch.Tensor, sigma: float) -> torch.Tensor:
    """What the data would be if the velocity held to the end."""
    return x - sigma * velocity


def renoise_step(x0: torch.Tensor, noise: torch.Tensor, sigma_out: float) -> torch.Tensor:
    """Put a clean estimate back to level `sigma_out` with fresh noise."""
    return (1 - sigma_out) * x0 + sigma_out * noise


def velocity_from_prediction(
    kind: PredictionKind,
    prediction: torch.Tensor,
    x: torch.Tensor,
    sigma: float | torch.Tensor,
    cond: torch.Tensor | None,
) -> torch.Tensor:
    """Velocity from what the network predicts.

    "velocity": the prediction itself. "residual": data is `cond + prediction`, so velocity is
    `(x - data) / sigma`; without `cond` the prediction is the data itself.

    Raises:
        ValueError: unknown kind.
    """
    if kind == "velocity":
        return prediction
    if kind == "residual":
        data = prediction if cond is None else cond + prediction
        return (x - data) / sigma
    raise ValueError(f"prediction kind {kind!r}: known are 'velocity' and 'residual'")


def counter_noise(
    seed: int,
    chunk: int,
    step: int,
    shape_CTHW: tuple[int, int, int, int],
    start_frame: int,
    *,
    origin_yx: tuple[int, int] = (0, 0),
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Standard normal noise `[C, T, H, W]`, float32, a pure function of where each value lies.

    A value depends on (seed, chunk, step, channel, absolute frame, y, x) alone, so any crop
    (`origin_yx`, `start_frame`), placement, retry or resume draws the same. Always drawn on the
    CPU: kernels of different devices round logarithms differently. Source: Salmon et al.,
    "Parallel random numbers: as easy as 1, 2, 3", 2011 (Philox-4x32-10); Box and Muller, 1958.

    Raises:
        ValueError: a coordinate does not fit the counter.
    """
    channels, frames, height, width = shape_CTHW
    y, x = origin_yx
    _check_range("seed", seed, 64)
    _check_range("chunk", chunk, 32)
    _check_range("step", step, 16)
    _check_range("channel", channels, 16)
    _check_range("start_frame", start_frame, 32, frames)
    _check_range("y", y, 16, height)
    _check_range("x", x, 16, width)
    num_draws = -(-channels // _WORDS_PER_DRAW)
    place = _span(y, height)[:, None] << np.uint64(16) | _span(x, width)
    frame = _span(start_frame, frames)[:, None, None]
    draw = (_span(0, num_draws) | np.uint64(step << 16))[:, None, None, None]
    normals = _normals(_philox(seed, (place, frame, draw, np.array(chunk, dtype=np.uint64))))
    noise = np.stack(normals, axis=1).reshape(-1, frames, height, width)[:channels]
    return torch.from_numpy(noise.astype(np.float32)).to(device)


def counter_integer(seed: int, chunk: int, step: int, low: int, high: int) -> int:
    """A uniform integer from `low` to `high`, both included, a pure function of its arguments.

    Drawn at a frame that no chunk reaches, so it shares nothing with the noise of pictures.

    Raises:
        ValueError: a coordinate does not fit the counter, or the range is empty.
    """
    if high < low:
        raise ValueError(f"range {low}..{high} is empty: give the smaller number first")
    _check_range("seed", seed, 64)
    _check_range("chunk", chunk, 32)
    _check_range("step", step, 16)
    counter = (0, 0xFFFFFFFF, step << 16, chunk)
    first, *_ = _philox(seed, tuple(np.array(word, dtype=np.uint64) for word in counter))
    # 32 bits over a few numbers: uneven by less than one in a million.
    return low + (int(first) * (high - low + 1) >> 32)


def _check_range(name: str, first: int, bits: int, count: int = 0) -> None:
    if first < 0 or first + count > 1 << bits or first >= 1 << bits:
        raise ValueError(f"{name} {first} (+{count}) does not fit in {bits} bits of the counter")


def _span(start: int, count: int) -> npt.NDArray[np.uint64]:
    return np.arange(start, start + count, dtype=np.uint64)


def _philox(seed: int, counter: Words) -> Words:
    """Four 32-bit words for each counter (broadcast together), held in uint64."""
    c0, c1, c2, c3 = np.broadcast_arrays(*counter)
    for turn in range(_PHILOX_ROUNDS):
        keys = ((seed, 0), (seed >> 32, 1))
        k0, k1 = (np.uint64((k + turn * _PHILOX_WEYL[i]) & 0xFFFFFFFF) for k, i in keys)
        p0, p1 = c0 * _PHILOX_MULTIPLIERS[0], c2 * _PHILOX_MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (p1 >> np.uint64(32)) ^ c1 ^ k0,
            p1 & _WORD,
            (p0 >> np.uint64(32)) ^ c3 ^ k1,
            p0 & _WORD,
        )
    return c0, c1, c2, c3


def _normals(words: Words) -> list[npt.NDArray[np.float64]]:
    """Two independent normals from each pair of words."""
    normals = []
    for first, second in (words[:2], words[2:]):
        radius = np.sqrt(-2 * np.log((first + np.float64(1)) * 2.0**-32))
        angle = second * (2 * np.pi * 2.0**-32)
        normals += [radius * np.cos(angle), radius * np.sin(angle)]
    return normals
