"""One session's stream on time: asks the model, keeps the clock, gives a beat each tick.

What is shown and heard is decided in `services.playback`, when by `pipeline.pacing`, and what is
asked for by `services.credit`; here those are carried out. Everything runs in one event loop.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from viva.v1.messages import Degraded, SessionFailed, StageTrace

from pipeline.pacing import Pace, pacing
from services.beat import Event, Position
from services.beat_queue import MAX_BEHIND_S, BeatQueue
from services.clock import Clock, LoopClock
from services.credit import Credit
from services.ledger import MAX_AHEAD_S, Ledger
from services.live_model import LiveEvent, LiveStream, Restarted
from services.playback import Playback
from services.slice import Slice

TARGET_AHEAD_MS = 80
# A model that makes nothing is told again how late it is.
_NAG_TICKS = 6
log = logging.getLogger(__name__)


class Performer:
    """Owns a stream's clock, queue and events; many may subscribe, one session speaks.

    `on_event` is called for every event, in the event loop, and must not block. Nothing is kept of
    sound that was played.
    """

    def __init__(
        self,
        stream: LiveStream,
        *,
        chunk_frames: int,
        clock: Clock | None = None,
        target_ahead_ms: float = TARGET_AHEAD_MS,
        max_ahead_s: int = MAX_AHEAD_S,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        """Perform `stream`, whose model makes `chunk_frames` at once.

        A chunk is asked for so that it comes when `target_ahead_ms` are left of the one before; at
        most `max_ahead_s` of speech wait.
        """
        self.stream, self.fps, self.sample_rate = stream, stream.fps, stream.sample_rate
        self.ledger = Ledger(stream.sample_rate, max_ahead_s=max_ahead_s)
        self.playback = Playback(self.ledger, fps=stream.fps)
        margin_frames = max(1, round(Fraction(target_ahead_ms) * stream.fps / 1000))
        self.credit = Credit(chunk_frames=chunk_frames, fps=stream.fps, margin_frames=margin_frames)
        self.num_reanchors, self.num_unheard = 0, 0
        self._clock, self._on_event = clock or LoopClock(), on_event
        self._queues: set[BeatQueue] = set()
        self._waiting: dict[str, list[asyncio.Future[Position]]] = {}
        self._ready = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._pace: Pace | None = None
        self._is_closed = False

    @property
    def positions(self) -> Mapping[str, Position]:
        """How far every utterance came, by name; the latest that are over, too."""
        return self.ledger.positions()

    @property
    def epoch(self) -> int:
        """How often was interrupted."""
        return self.playback.epoch

    @property
    def is_closed(self) -> bool:
        """Whether nothing will be performed any more."""
        return self._is_closed

    def start(self) -> None:
        """Ask for the first pictures; beats begin with them."""
        self._tasks = [
            asyncio.create_task(self._read(), name=f"slices of {self.stream.session}"),
            asyncio.create_task(self._run(), name=f"beats of {self.stream.session}"),
        ]
        for task in self._tasks:
            task.add_done_callback(self._see)
        self._ask()

    async def started(self) -> None:
        """Wait until there is a picture, or there will be none."""
        await self._ready.wait()

    def speak(self, utterance: str, pcm_T: npt.NDArray[np.int16]) -> None:
        """Take the next sound of an utterance: int16 mono at `sample_rate`.

        Utterances are heard one after the other, in the order in which they were begun. Sound of
        one that was interrupted is dropped.

        Raises:
            LedgerFull: more would wait than is kept; see `room`.
            UtteranceOver: it was ended.
        """
        if self._is_closed or self.ledger.was_interrupted(utterance):
            self.num_unheard += len(pcm_T)
            return
        self.ledger.accept(utterance, pcm_T)
        self._forward()

    def end(self, utterance: str) -> None:
        """No more sound of it will come; twice is no error."""
        if not self._is_closed:
            self.ledger.end(utterance)
            self._forward()

    def interrupt(self, up_to: str | None = None) -> Position:
        """Stop what is said and forget what waits (up to an utterance): how far that came."""
        epoch = self.playback.epoch
        position = self.playback.interrupt(up_to)
        if self.playback.epoch != epoch:
            self.stream.interrupt(self.playback.epoch)
            self._forward()
            self._publish()
            self._ask()
        return position

    def room(self) -> int:
        """How many samples `speak` would take now."""
        return self.ledger.room()

    @property
    def queue_ms(self) -> float:
        """How much speech waits to be heard."""
        return self.ledger.num_waiting * 1000 / self.sample_rate

    @property
    def ahead_frames(self) -> int:
        """How many pictures wait."""
        return self.playback.num_queued

    async def played(self, utterance: str) -> Position:
        """Wait until an utterance is over: heard to its end, or interrupted.

        Raises:
            KeyError: nothing is known of it.
        """
        position = self.positions[utterance]
        if position.is_over:
            return position
        future: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(utterance, []).append(future)
        return await future

    def subscribe(self) -> BeatQueue:
        """Beats from the next one on."""
        queue = BeatQueue(
            max_beats=int(MAX_BEHIND_S * self.fps), forget=lambda: self._queues.discard(queue)
        )
        self._queues.add(queue)
        if self._is_closed:
            queue.close()
        return queue

    async def close(self) -> None:
        """End it: subscribers end, what is said is interrupted, the stream is freed."""
        self._end()
        me = asyncio.current_task()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(t for t in self._tasks if t is not me), return_exceptions=True)
        await self.stream.close()

    def _end(self, why: str = "") -> None:
        """Perform no more; with a reason it failed."""
        if self._is_closed:
            return
        self._is_closed = True
        self.playback.interrupt()
        if why:
            tick, epoch = self.playback.tick, self.playback.epoch
            self.playback.events.append(Event(kind="failed", at_tick=tick, epoch=epoch, why=why))
        self._publish()
        self._ready.set()
        for queue in tuple(self._queues):
            queue.close()

    def _see(self, task: asyncio.Task[None]) -> None:
        """A task of ours that broke ends the performance instead of leaving it frozen."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s broke", task.get_name(), exc_info=error)
            self._end("failed")

    async def _read(self) -> None:
        """Take what the model makes, until it is over."""
        async for event in self.stream.events():
            if not self._is_closed:
                self._take(event)
        self._end("closed")

    def _take(self, event: LiveEvent) -> None:
        """Take one thing from the model."""
        match event:
            case Slice():
                self.credit.came(event.index, self._clock.now_ns())
                self.playback.take(event)
                if self.playback.is_ready:
                    self._ready.set()
            case StageTrace():
                self._say_stage(event)
            case Degraded():
                self.playback.degraded(event.level, event.why)
            case Restarted():
                self._restart(event.next_index)
            case SessionFailed():
                self._end(event.reason)
        self._publish()
        self._ask()

    def _restart(self, next_index: int) -> None:
        """Say again what was not heard."""
        self.credit.restart(next_index)
        self.stream.interrupt(self.playback.epoch)
        self.playback.restarted(self.credit.lead_frames + self.credit.margin_frames)
        self._forward()

    def _forward(self) -> None:
        """Give the model what it was not given, utterance by utterance."""
        for entry in self.ledger.entries:
            if entry.num_sent < entry.num_accepted:
                sound_T = entry.unsent()
                entry.num_sent = entry.num_accepted
                self.stream.speak(entry.name, self.playback.epoch, sound_T)
            if not entry.is_ended:
                return
            if not entry.is_end_sent:
                entry.is_end_sent = True
                self.stream.end(entry.name, self.playback.epoch)

    async def _run(self) -> None:
        """Beat when it is time."""
        await self._ready.wait()
        self._pace = Pace(fps=self.fps, anchor_ns=self._clock.now_ns())
        while not self._is_closed:
            decision = pacing(self._pace, self.playback.tick, self._clock.now_ns())
            self._pace = decision.pace
            self.num_reanchors += decision.is_reanchored
            if decision.wait_ns:
                await self._clock.sleep_ns(decision.wait_ns)
                continue
            self._beat()
            await asyncio.sleep(0)

    def _beat(self) -> None:
        """Give everybody the next tick."""
        beat = self.playback.beat()
        for queue in tuple(self._queues):
            queue.put(beat)
        self._forward()
        self._publish()
        self._ask()
        if beat.is_held and beat.tick % _NAG_TICKS == 0:
            self.stream.want(self.credit.until_index, self._due_in_ms())

    def _ask(self) -> None:
        """Ask for chunks that will be needed."""
        now_ns = self._clock.now_ns()
        while not self._is_closed:
            due_in_ms = self._due_in_ms()
            until = self.credit.ask(self.playback.num_queued, now_ns)
            if until is None:
                return
            self.stream.want(until, due_in_ms)

    def _due_in_ms(self) -> float:
        """When the next slice to come is due; negative: so late it is."""
        num_ahead = self.playback.num_queued - self.playback.held_run
        if self._pace is None:
            return float(num_ahead * 1000 / self.fps)
        due_ns = self._pace.due_ns(self.playback.tick + num_ahead)
        return (due_ns - self._clock.now_ns()) / 1e6

    def _say_stage(self, trace: StageTrace) -> None:
        """Tell that a stage had a chunk."""
        self.playback.events.append(
            Event(
                kind="stage",
                at_tick=self.playback.tick,
                epoch=self.playback.epoch,
                stage=trace.stage,
                chunk=trace.chunk,
                began_ms=trace.began_ms,
                ended_ms=trace.ended_ms,
            )
        )

    def _publish(self) -> None:
        """Tell what happened, and whoever waits for an utterance."""
        events, self.playback.events = self.playback.events, []
        for event in events:
            if event.kind in ("speak_ended", "speak_interrupted") and event.utterance is not None:
                for future in self._waiting.pop(event.utterance, []):
                    if not future.done():
                        future.set_result(self.positions[event.utterance])
            if self._on_event is not None:
                self._on_event(event)
