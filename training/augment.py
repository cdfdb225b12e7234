"""Change clean speech the ways that rooms, microphones, codecs and other throats do.

T is samples. Length and timing are kept: a mouth track made for the speech still fits it, to within
the few milliseconds by which a room blurs it.
"""

from collections.abc import Callable

import numpy as np
import soxr

SAMPLE_RATE = 16_000

_Effect = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def augment(
    samples_T: np.ndarray, rng: np.random.Generator, sample_rate: int = SAMPLE_RATE
) -> np.ndarray:
    """Change speech at random: throat, room, equaliser, noise, band, codec, level, clipping.

    Args:
        samples_T: float32 mono; not changed in place.
        rng: the whole choice; equal seeds give equal sound.
        sample_rate: of the samples.

    Returns:
        float32 of the same length, within -1..1.

    Raises:
        ValueError: the rate is not the 16 kHz that the effects are tuned for.
    """
    if sample_rate != SAMPLE_RATE:
        raise ValueError(f"sample_rate {sample_rate}: resample to {SAMPLE_RATE} first")
    changed_T = np.asarray(samples_T, np.float32)
    if len(changed_T) == 0:
        return changed_T.copy()
    effects: tuple[tuple[float, _Effect], ...] = (
        (0.50, shift_throat),
        (0.40, reverberate),
        (0.50, equalise),
        (0.75, add_noise),
        (0.30, limit_band),
        (0.20, quantise),
    )
    for chance, effect in effects:
        if rng.random() < chance:
            changed_T = effect(changed_T, rng)
    changed_T = change_level(changed_T, rng)
    limited: np.ndarray = np.clip(changed_T, -1.0, 1.0).astype(np.float32)
    return limited


def shift_throat(samples_T: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move pitch and formants together by up to a sixth, at the speed spoken.

    Resampling moves them; overlapping windows laid back at the old spacing restore the time. Each
    window is moved by up to 8 ms to where it continues the last best (WSOLA, Verhelst & Roelands
    1993).
    """
    ratio = float(rng.uniform(0.86, 1.17))
    moved_T = np.asarray(soxr.resample(samples_T, SAMPLE_RATE, SAMPLE_RATE * ratio), np.float32)
    return _stretch(moved_T, len(samples_T))


def _stretch(samples_T: np.ndarray, num_samples: int) -> np.ndarray:
    hop, reach = 320, 128
    width = 2 * hop
    window = np.hanning(width + 1)[:-1]
    ratio = len(samples_T) / num_samples
    num_windows = -(-num_samples // hop) + 1
    source = np.pad(samples_T.astype(np.float64), (hop + reach, width + 2 * reach + hop))
    laid = np.zeros((num_windows + 1) * hop)
    natural = source[reach : reach + width]
    for index in range(num_windows):
        middle = min(round(index * hop * ratio), len(samples_T)) + reach
        nearby = source[middle - reach : middle + reach + width]
        best = int(np.argmax(np.correlate(nearby, natural, "valid")))
        start = middle - reach + best
        laid[index * hop : index * hop + width] += window * source[start : start + width]
        # What would follow this window had nothing been cut: the next one should resemble it.
        natural = source[start + hop : start + hop + width]
        if len(natural) < width:
            natural = np.pad(natural, (0, width - len(natural)))
    stretched: np.ndarray = laid[hop : hop + num_samples].astype(np.float32)
    return stretched


def reverberate(samples_T: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Put the speaker in a room: decaying noise after the direct sound, 0.15 to 0.7 s long."""
    decay_s = float(rng.uniform(0.15, 0.7))
    time_s = np.arange(round(decay_s * SAMPLE_RATE)) / SAMPLE_RATE
    # 60 dB down at the end of the decay.
    room = rng.standard_normal(len(time_s)) * np.exp(-6.9 * time_s / decay_s)
    room[: round(float(rng.uniform(0.002, 0.012)) * SAMPLE_RATE)] = 0.0
    wet = 10.0 ** (rng.uniform(-15.0, 0.0) / 20.0)
    room *= wet / max(float(np.sqrt(np.sum(room**2))), 1e-9)
    room[0] = 1.0
    return _convolve(samples_T, room)


def equalise(samples_T: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Colour the sound with a smooth random curve of about plus or minus 8 dB."""
    knots_hz = np.geomspace(60.0, 8000.0, 8)
    gains_db = rng.uniform(-8.0, 8.0, len(knots_hz))
    return _filter(samples_T, knots_hz, gains_db)


def limit_band(samples_T: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cut the highs off above 3.4 to 7.5 kHz and, half of the time, the lows below 80 to 300 Hz."""
    high_hz = float(rng.uniform(3400.0, 7500.0))
    low_hz = float(rng.uniform(80.0, 300.0)) if rng.random() < 0.5 else 20.0
    knots_hz = np.array([low_hz / 2, low_hz, high_hz, min(high_hz * 1.15, 7999.0)])
    return _filter(samples_T, knots_hz, np.array([-40.0, 0.0, 0.0, -60.0]))


def add_noise(samples_T: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add white to brown noise at 0 to 40 dB below speech, now and then swelling like chatter."""
    slope = float(rng.uniform(0.0, 1.0))  # 0 white, 0.5 pink, 1 brown
    num_drawn = _transform_length(len(samples_T))
    spectrum_F = np.fft.rfft(rng.standard_normal(num_drawn, np.float32))
    shape_F = np.maximum(np.fft.rfftfreq(num_drawn, 1.0 / SAMPLE_RATE), 30.0) ** -slope
    noise_T = np.fft.irfft(spectrum_F * shape_F, num_drawn)[: len(samples_T)]
    if rng.random() < 0.4:
        noise_T = noise_T * _swell(len(samples_T), rng)
    snr_db = float(rng.triangular(0.0, 20.0, 40.0))
    level = _level(samples_T) * 10.0 ** (-snr_db / 20.0)
    noisy: np.ndarray = samples_T + noise_T * (level / max(_level(noise_T), 1e-9))
    return noisy.astype(np.float32)


def _swell(num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """A loudness curve that swells a few times a second, as many talkers together do."""
    num_knots = max(2, num_samples * 6 // SAMPLE_RATE)
    knots = rng.gamma(1.5, 1.0, num_knots)
    return np.interp(np.linspace(0, num_knots - 1, num_samples), np.arange(num_knots), knots)


def quantise(samples_T: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Coarsen as a telephone does: mu-law companding to 5 to 8 bits."""
    levels = 2.0 ** int(rng.integers(5, 9)) / 2.0
    mu = 255.0
    limited_T = np.clip(samples_T, -1.0, 1.0)
    squeezed_T = np.sign(limited_T) * np.log1p(mu * np.abs(limited_T)) / np.log1p(mu)
    coarse_T = np.round(squeezed_T * levels) / levels
    restored_T = np.sign(coarse_T) * np.expm1(np.abs(coarse_T) * np.log1p(mu)) / mu
    return np.asarray(restored_T, np.float32)


def change_level(samples_T: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn the level up or down by up to 20 dB; one in twenty overloads and clips."""
    changed_T = samples_T * 10.0 ** (rng.uniform(-20.0, 8.0) / 20.0)
    if rng.random() < 0.05:
        top = float(np.percentile(np.abs(changed_T), rng.uniform(95.0, 99.5)))
        changed_T = np.clip(changed_T, -max(top, 1e-6), max(top, 1e-6))
    return np.asarray(changed_T, np.float32)


def _level(samples_T: np.ndarray) -> float:
    """Root mean square of the sounding part; of silence, what quiet speech would have."""
    sounding_T = samples_T[np.abs(samples_T) > 1e-3]
    if len(sounding_T) == 0:
        return 0.02
    return float(np.sqrt(np.mean(np.square(sounding_T, dtype=np.float64))))


def _filter(samples_T: np.ndarray, knots_hz: np.ndarray, gains_db: np.ndarray) -> np.ndarray:
    """Apply a gain curve, given at ascending frequencies, without delay."""
    num_padded = _transform_length(len(samples_T) + 1024)
    frequency_F = np.maximum(np.fft.rfftfreq(num_padded, 1.0 / SAMPLE_RATE), 1.0)
    gain_db_F = np.interp(np.log(frequency_F), np.log(knots_hz), gains_db)
    gain_F = (10.0 ** (gain_db_F / 20.0)).astype(np.float32)
    spectrum_F = np.fft.rfft(samples_T, num_padded) * gain_F
    return np.fft.irfft(spectrum_F, num_padded)[: len(samples_T)].astype(np.float32)


def _transform_length(num_samples: int) -> int:
    """The next 2^n, 3 * 2^n or 5 * 2^n: lengths with large prime factors transform slowly."""
    return min(factor << ((num_samples - 1) // factor).bit_length() for factor in (1, 3, 5))


def _convolve(samples_T: np.ndarray, kernel_T: np.ndarray) -> np.ndarray:
    num_padded = _transform_length(len(samples_T) + len(kernel_T))
    kernel_F = np.fft.rfft(kernel_T.astype(np.float32), num_padded)
    spectrum_F = np.fft.rfft(samples_T, num_padded) * kernel_F
    return np.fft.irfft(spectrum_F, num_padded)[: len(samples_T)].astype(np.float32)
