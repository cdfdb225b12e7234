"""Cuts the sound of beats into packets of 20 ms at 48 kHz, each with its place in media time.

Media time counts from the stream's tick 0: a packet's pts in samples at 48 kHz stands on the same
scale as a picture's tick / fps. Nothing here knows a clock.

Shape legend: T = samples.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import soxr

from services.encode import PACKET_SAMPLES, SOUND_RATE


@dataclass(frozen=True, slots=True)
class SoundPacket:
    """Sound for one packet: 960 samples whose first stands at `pts` / 48000 s."""

    samples_T: npt.NDArray[np.int16]
    pts: int


def tick_time_s(tick: int, fps: Fraction) -> Fraction:
    """When a tick begins, in seconds of media time."""
    return tick / fps


class SoundPacker:
    """Packs the sound of one stream; where ticks are missing it starts anew at its place."""

    def __init__(self, sample_rate: int, fps: Fraction) -> None:
        """Start before the first tick.

        Raises:
            ValueError: the rate is not positive.
        """
        if sample_rate <= 0:
            raise ValueError(f"sample_rate must be positive, got {sample_rate}")
        self.sample_rate, self.fps = sample_rate, fps
        self._pending_T = np.zeros(0, np.int16)
        self._next_pts: int | None = None
        self._next_tick: int | None = None
        self._soxr: soxr.ResampleStream | None = None

    def push(self, tick: int, sound_T: npt.NDArray[np.int16]) -> list[SoundPacket]:
        """Take a tick's sound; the packets that are full now.

        Sound at another rate than 48 kHz leaves the resampler some milliseconds later, with its
        right pts.
        """
        packets = [] if tick == self._next_tick else self._restart(tick)
        self._next_tick = tick + 1
        self._pending_T = np.concatenate([self._pending_T, self._at_48k(sound_T)])
        return packets + self._full()

    def _restart(self, tick: int) -> list[SoundPacket]:
        """Fill up what is begun with silence, and go on at a tick's place."""
        rest: list[SoundPacket] = []
        if len(self._pending_T):
            self._pending_T = np.pad(self._pending_T, (0, PACKET_SAMPLES - len(self._pending_T)))
            rest = self._full()
        start = int(tick_time_s(tick, self.fps) * SOUND_RATE)
        # Never back over what was packed: a packet's pts must rise.
        self._next_pts = start if self._next_pts is None else max(start, self._next_pts)
        if self.sample_rate != SOUND_RATE:
            self._soxr = soxr.ResampleStream(self.sample_rate, SOUND_RATE, 1, dtype="int16")
        return rest

    def _at_48k(self, sound_T: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
        """The samples at 48 kHz that became computable."""
        if self._soxr is None:
            return sound_T
        return np.asarray(self._soxr.resample_chunk(sound_T), np.int16)

    def _full(self) -> list[SoundPacket]:
        """Take whole packets out of what is pending."""
        packets = []
        while len(self._pending_T) >= PACKET_SAMPLES and self._next_pts is not None:
            packets.append(SoundPacket(self._pending_T[:PACKET_SAMPLES], self._next_pts))
            self._pending_T = self._pending_T[PACKET_SAMPLES:]
            self._next_pts += PACKET_SAMPLES
        return packets
