"""One live call: hears the client, sends what the performer plays, and ends in one of few ways."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

import grpc
from viva.v1 import avatar_pb2

from services.beat import Beat, Event, EventKind
from services.control_errors import Refusal
from services.control_flow import Writer, stalled
from services.converse_hearing import Hearing, Requests
from services.converse_media import MediaMaker
from services.converse_order import ConverseOrder
from services.performer import Performer
from services.tts import TextToSpeech

_LATE_BEATS = 3

_KINDS: dict[EventKind, avatar_pb2.EventKind.ValueType] = {
    "speak_started": avatar_pb2.EVENT_KIND_SPEAK_STARTED,
    "speak_ended": avatar_pb2.EVENT_KIND_SPEAK_ENDED,
    "speak_interrupted": avatar_pb2.EVENT_KIND_SPEAK_INTERRUPTED,
    "degraded": avatar_pb2.EVENT_KIND_DEGRADED,
    "restarted": avatar_pb2.EVENT_KIND_RESTARTED,
}
_ENDS = ("speak_ended", "speak_interrupted")
Closing = tuple["avatar_pb2.EndReason.ValueType", str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTerms:
    """How long a call may do what, and how much of its sound may wait."""

    stall_limit_s: float = 10.0
    idle_timeout_s: float = 300.0
    max_duration_s: float = 3600.0
    max_queued_s: int = 120


class ConverseCall:
    """The two halves of a call, from `session_started` on."""

    def __init__(
        self,
        performer: Performer,
        happenings: deque[Event],
        order: ConverseOrder,
        terms: CallTerms,
        *,
        writer: Writer,
        threads: Executor,
        voice: TextToSpeech | None,
        is_draining: Callable[[], bool],
    ) -> None:
        """Join a performer, whose events come in `happenings`, with a client."""
        self._performer, self._happenings = performer, happenings
        self._order, self._terms = order, terms
        self._writer, self._is_draining = writer, is_draining
        self._media = MediaMaker(
            order, fps=performer.fps, sample_rate=performer.sample_rate, threads=threads
        )
        self._hearing = Hearing(
            performer,
            say=writer.write,
            ask_keyframe=self._media.ask_keyframe,
            voice=voice,
        )
        self._stats = avatar_pb2.Stats()
        self._began_s = self._told_stats_s = asyncio.get_running_loop().time()
        self._hearing.agenda.heard_at_s = self._began_s
        self._max_waiting = max(8, int(terms.stall_limit_s * performer.fps))

    async def run(self, requests: Requests) -> None:
        """Talk until all is said and played, and send the status.

        Raises:
            Refusal: the client broke the grammar or does not read, or the model is gone.
        """
        hearing = asyncio.create_task(self._hearing.listen(requests), name="viva grpc hearing")
        playing = asyncio.create_task(self._play(), name="viva grpc playing")
        tasks: set[asyncio.Task[None]] = {hearing, playing}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if hearing.done():
                hearing.result()
            await playing
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _play(self) -> None:
        """Send every beat, and what happened before it, until there is a reason to end."""
        beats = self._performer.subscribe()
        try:
            while (beat := await beats.get()) is not None:
                await self._tell_happenings(beat.tick)
                await self._send(beat, num_waiting=len(beats))
                self._hearing.ticked()
                if (closing := self._closing()) is not None:
                    await self._finish(closing)
                    return
        finally:
            beats.close()
        if beats.is_too_slow:
            raise stalled(self._terms.stall_limit_s)
        failed = [event.why for event in self._happenings if event.kind == "failed"]
        raise Refusal(
            grpc.StatusCode.UNAVAILABLE,
            "WORKER_LOST",
            f"the model is gone: {' '.join(failed) or 'closed'}",
            retry_after_s=5.0,
        )

    async def _send(self, beat: Beat, *, num_waiting: int) -> None:
        """Send a beat's media, and figures when they are due."""
        if num_waiting > self._max_waiting:
            raise stalled(self._terms.stall_limit_s)
        stats = self._stats
        messages = await self._media.messages(beat, is_late=num_waiting > _LATE_BEATS)
        stats.num_pictures += 1
        stats.num_held += beat.is_held
        stats.num_dropped += beat.picture_HWC is None or num_waiting > _LATE_BEATS
        for message in messages:
            stats.sent_bytes += message.ByteSize()
            await self._writer.write(message)
        now_s = asyncio.get_running_loop().time()
        self._note_first_media(beat, now_s)
        every_s = self._order.stats_interval_s
        if every_s and now_s - self._told_stats_s >= every_s:
            self._told_stats_s = now_s
            await self._writer.write(avatar_pb2.ConverseResponse(stats=self._figures()))

    def _note_first_media(self, beat: Beat, now_s: float) -> None:
        """How long the first sound took to come back."""
        heard_s = self._hearing.agenda.first_sound_at_s
        if beat.utterance is not None and not self._stats.first_media_ms and heard_s is not None:
            self._stats.first_media_ms = max(1, round((now_s - heard_s) * 1000))

    def _figures(self) -> avatar_pb2.Stats:
        """The figures now."""
        self._stats.queued_ms = max(0, round(self._performer.queue_ms))
        return self._stats

    async def _tell_happenings(self, until_tick: int) -> None:
        """Say what the performer did, up to a tick."""
        while self._happenings and self._happenings[0].at_tick <= until_tick:
            one = self._happenings.popleft()
            if one.kind not in _KINDS:
                continue
            event = avatar_pb2.Event(
                kind=_KINDS[one.kind],
                utterance=one.utterance or "",
                position_ms=round(one.position_ms or 0),
                at_picture=one.at_tick,
                epoch=one.epoch,
                detail=one.why,
            )
            await self._writer.write(avatar_pb2.ConverseResponse(event=event))

    def _closing(self) -> Closing | None:
        """Why the call ends now; None: it goes on."""
        agenda, now_s = self._hearing.agenda, asyncio.get_running_loop().time()
        is_speaking = bool(self._performer.ledger.entries)
        if agenda.is_complete and not is_speaking and not self._is_behind():
            return avatar_pb2.END_REASON_CLIENT, ""
        if self._is_draining():
            return avatar_pb2.END_REASON_DRAINING, "the server ends"
        if now_s - self._began_s >= self._terms.max_duration_s:
            limit_s = self._terms.max_duration_s
            return avatar_pb2.END_REASON_MAX_DURATION, f"a session lasts at most {limit_s:g} s"
        if is_speaking:
            agenda.heard_at_s = now_s  # who speaks is not idle
        if now_s - agenda.heard_at_s >= self._terms.idle_timeout_s:
            limit_s = self._terms.idle_timeout_s
            return avatar_pb2.END_REASON_IDLE_TIMEOUT, f"nothing was said for {limit_s:g} s"
        return None

    def _is_behind(self) -> bool:
        """Whether the end of an utterance was heard that is not yet sent."""
        return any(event.kind in _ENDS for event in self._happenings)

    async def _finish(self, closing: Closing) -> None:
        """Say the last word."""
        reason, message = closing
        await self._tell_happenings(self._performer.playback.tick)
        if reason != avatar_pb2.END_REASON_CLIENT:
            event = avatar_pb2.Event(kind=avatar_pb2.EVENT_KIND_CLOSING, detail=message)
            await self._writer.write(avatar_pb2.ConverseResponse(event=event))
        status = avatar_pb2.SessionStatus(reason=reason, message=message, stats=self._figures())
        await self._writer.write(avatar_pb2.ConverseResponse(status=status))
