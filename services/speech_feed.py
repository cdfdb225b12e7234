"""A session's ear: sound of any rate becomes utterances at the session's rate.

Utterances have names; sound without a name belongs to the current one. An utterance keeps the rate
that it began with. Sound is bounded: what would wait too long is refused, never dropped unsaid.

Shape legend: T = samples.
"""

import asyncio
import itertools
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soxr

from services.problem import Problem
from services.studio import Performing, Played

MIN_RATE, MAX_RATE = 8000, 48_000
# How often a text that waits for room looks for it.
ROOM_POLL_S = 0.1
NAME = re.compile(r"[A-Za-z0-9_.:\-]{1,64}")

Samples = npt.NDArray[np.int16]


@dataclass(slots=True)
class _Utterance:
    """One that was begun: its rate, and what brings it to the session's."""

    rate: int
    resampler: soxr.ResampleStream | None
    is_text: bool


class SpeechFeed:
    """Gives sound to a performer: several utterances may be begun, each is spoken in its turn."""

    def __init__(self, performing: Performing, *, sample_rate: int, max_queued_s: float) -> None:
        """Speak through `performing`, whose sound is at `sample_rate`."""
        self._performing, self._rate, self._max_queued_s = performing, sample_rate, max_queued_s
        self._names = itertools.count(1)
        self._begun: dict[str, _Utterance] = {}
        self._current: str | None = None
        self._voicing = asyncio.Lock()
        self.num_interrupts = 0

    def speak(self, pcm: bytes, *, sample_rate: int, utterance: str | None) -> str:
        """Take sound (s16le mono) and return the name of its utterance.

        Another name than the current one's ends the current one.

        Raises:
            Problem: 400 `bad_field`, 409 `busy` when too much waits already.
        """
        self._check(pcm, sample_rate, utterance)
        if self._current is not None and utterance not in (None, self._current):
            self.end(self._current)
        name = self._current = utterance or self._current or self.fresh_name()
        self._take(name, pcm, sample_rate, is_text=False)
        return name

    def end(self, utterance: str | None) -> str | None:
        """End an utterance (default: the current one); its name, or None where there is none."""
        name = utterance or self._current
        begun = self._begun.pop(name, None) if name is not None else None
        if name is None or begun is None:
            return None
        self._hand_on(name, _resampled(begun, np.zeros(0, np.int16), last=True))
        self._performing.end(name)
        if name == self._current:
            self._current = None
        return name

    def interrupt(self) -> Played:
        """Stop what is said, and forget what was begun."""
        self.stop()
        return self._performing.interrupt()

    def stop(self) -> None:
        """Forget what was begun; streams that are being voiced end."""
        self.num_interrupts += 1
        self._begun.clear()
        self._current = None

    async def voice(
        self,
        pieces: AsyncGenerator[bytes, None],
        *,
        sample_rate: int,
        utterance: str,
        before: int,
        lasts_s: float,
    ) -> None:
        """Speak a stream of sound as one utterance, until it ends or is interrupted.

        `before` is `num_interrupts` when it was asked for: an interrupt since then is for it, too.
        It begins once there is room for the `lasts_s` that it lasts at most.

        Streams wait for each other. The stream is closed in any case.

        Raises:
            Problem: as `speak`.
        """
        async with aclosing(pieces) as stream, self._voicing:
            while before == self.num_interrupts and self._is_full(lasts_s):  # noqa: ASYNC110 # no event
                await asyncio.sleep(ROOM_POLL_S)
            if before != self.num_interrupts:
                return
            try:
                async for pcm in stream:
                    if before != self.num_interrupts:
                        return
                    self._take(utterance, pcm, sample_rate, is_text=True)
            finally:
                if before == self.num_interrupts:
                    self.end(utterance)

    def forget(self, utterance: str) -> None:
        """The performer is done with an utterance, by itself or because it ran dry for long."""
        self._begun.pop(utterance, None)
        if utterance == self._current:
            self._current = None

    def fresh_name(self) -> str:
        """A name that no utterance of this session has had."""
        return f"u_{next(self._names)}"

    def checked_name(self, utterance: str | None) -> str:
        """A name for one more utterance: as wished, if it is one and not in use.

        Raises:
            Problem: 400 `bad_field`.
        """
        if utterance is None:
            return self.fresh_name()
        if not NAME.fullmatch(utterance) or utterance in self._begun:
            raise Problem(400, "bad_field", f"utterance: a fresh name of {NAME.pattern}")
        return utterance

    def _check(self, pcm: bytes, sample_rate: int, utterance: str | None) -> None:
        """Refuse what is no sound."""
        if len(pcm) % 2:
            raise Problem(400, "bad_field", "audio: half a sample: send s16le mono")
        if not MIN_RATE <= sample_rate <= MAX_RATE:
            raise Problem(400, "bad_field", f"sample_rate: choose {MIN_RATE}..{MAX_RATE}")
        if utterance is not None and not NAME.fullmatch(utterance):
            raise Problem(400, "bad_field", f"utterance: a name is {NAME.pattern}")
        begun = self._begun.get(utterance or self._current or "")
        if begun is not None and begun.rate != sample_rate:
            raise Problem(400, "bad_field", f"sample_rate: the utterance began with {begun.rate}")
        if begun is not None and begun.is_text:
            raise Problem(400, "bad_field", "utterance: this one is a text: take another name")

    def _take(self, name: str, pcm: bytes, sample_rate: int, *, is_text: bool) -> None:
        """Hand sound on, at the session's rate."""
        self._refuse_flood(len(pcm) / 2 / sample_rate)
        begun = self._begun.get(name)
        if begun is None:
            resampler = (
                None
                if sample_rate == self._rate
                else soxr.ResampleStream(sample_rate, self._rate, 1, dtype="int16")
            )
            begun = self._begun[name] = _Utterance(sample_rate, resampler, is_text)
        samples_T = np.frombuffer(pcm, dtype="<i2").astype(np.int16)
        self._hand_on(name, _resampled(begun, samples_T, last=False))

    def _is_full(self, more_s: float) -> bool:
        """Whether more than that would wait too long; with nothing waiting anything may begin."""
        queued_s = self._performing.load().queue_ms / 1000
        return queued_s > 0 and queued_s + more_s > self._max_queued_s

    def _refuse_flood(self, more_s: float) -> None:
        """Refuse sound that would wait too long."""
        if self._performing.load().queue_ms / 1000 + more_s > self._max_queued_s:
            raise Problem(
                409,
                "busy",
                f"more than {self._max_queued_s:g} s of speech would wait: send it later",
                retry_after_s=1,
            )

    def _hand_on(self, name: str, samples_T: Samples) -> None:
        """Give samples to the performer, if there are any."""
        if len(samples_T):
            self._performing.speak(name, samples_T)


def _resampled(begun: _Utterance, samples_T: Samples, *, last: bool) -> Samples:
    """Sound at the session's rate, as far as it can be computed."""
    if begun.resampler is None:
        return samples_T
    return np.asarray(begun.resampler.resample_chunk(samples_T, last=last), dtype=np.int16)
