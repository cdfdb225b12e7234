"""A session's place in the engine: when its next chunk is begun, what it costs, how late it is.

Chunks are begun as late as may be: what is made ahead can no longer be spoken in. Times are in
seconds of the engine's clock.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.ladder import HOLD, Ladder
from pipeline.live_due import DueTimes
from pipeline.live_session import LiveSession, LiveSlice

# What a chunk may take beyond its usual time, and the clocks' grain.
SLACK = 1.15
GRAIN_S = 0.05
# How much the latest chunk counts in the usual time.
WEIGHT = 0.2


@dataclass(slots=True, kw_only=True)
class Seat:
    """One session and its times.

    `took_s` is what a chunk usually takes until it is out, `busy_s` how long it keeps the engine.
    One that `is_leaving` begins nothing until its state was exported. From `fresh_index` on nobody
    has said when slices are due: after a beginning or an interrupt, None otherwise.
    """

    name: str
    session: LiveSession
    due: DueTimes
    ladder: Ladder
    took_s: float
    busy_s: float
    begun: list[tuple[int, float]] = field(default_factory=list)
    num_chunks: int = 0
    fresh_index: int | None = 0
    is_leaving: bool = False

    def want(self, until_index: int, due_in_ms: float, at_s: float) -> None:
        """Let slices below an index be released; the viewer said when the next one is due."""
        self.session.want(until_index)
        self.due.said(due_in_ms, at_s)
        if self.fresh_index is not None and self.session.next_index > self.fresh_index:
            self.fresh_index = None

    def interrupt(self, epoch: int, at_s: float) -> None:
        """Drop what is older; the viewer has nothing left to show, so the next slice is due."""
        if epoch > self.session.epoch:
            self.session.interrupt(epoch)
            self.fresh_index = self.session.next_index
            self.due.due_now(self.session.next_index, at_s)

    def begin_at_s(self, others_s: float) -> float | None:
        """When the next chunk is to be begun if others may need the engine for `others_s`.

        None while nothing more is wanted. An utterance that would run dry gets all the time there
        is to bring more of its sound.
        """
        session = self.session
        chunk_frames = session.face.chunk_frames
        index = session.next_unmade
        if (
            self.is_leaving
            or session.until_index == 0
            or index >= session.until_index + chunk_frames
        ):
            return None
        due_s = self.due.due_s(index)
        if due_s is None:
            return None
        if session.timeline.is_speaking and not session.timeline.covers(chunk_frames):
            return due_s - self.took_s - GRAIN_S
        return due_s - self.lead_s(others_s)

    def lead_s(self, others_s: float) -> float:
        """How long before it is due a chunk is usually begun."""
        return SLACK * self.took_s + others_s + GRAIN_S

    def make(self, clock_s: Callable[[], float], others_s: float) -> None:
        """Begin the next chunk, or hold the picture for as long."""
        session, began_s = self.session, clock_s()
        index = session.next_unmade
        if self.ladder.rung == HOLD:
            session.hold(session.face.chunk_frames)
            self._judge(index, began_s)
            return
        due_s = self.due.due_s(index)
        usual_s = began_s if due_s is None else due_s - self.lead_s(others_s)
        session.face.save_time(self.ladder.rung)
        self.begun.append((session.num_out + session.num_under_way, began_s))
        session.begin_chunk(extra_ms=max(0.0, 1000 * (began_s - usual_s)))
        self.num_chunks += 1
        self.busy_s += WEIGHT * (clock_s() - began_s - self.busy_s)
        self.note_out(clock_s())

    def collect(self, now_s: float) -> None:
        """Take what came out of the chain since."""
        if self.session.num_under_way > 0:
            self.session.collect()
            self.note_out(now_s)

    def note_out(self, now_s: float) -> None:
        """Learn from chunks that are out by now how long they take, and how late that was."""
        while self.begun and self.begun[0][0] < self.session.num_out:
            _, began_s = self.begun.pop(0)
            self.took_s += WEIGHT * (now_s - began_s - self.took_s)
            self._judge(self._first_made(), now_s)

    def _first_made(self) -> int:
        """Index of the first slice of the chunk that came out last."""
        session = self.session
        made = session.next_index + len(session.made)
        return max(session.next_index, made - session.face.chunk_frames)

    def _judge(self, index: int, now_s: float) -> None:
        """Climb the ladder by how late a chunk is; what comes first after a beginning never is."""
        due_s = self.due.due_s(index)
        if due_s is not None and self.fresh_index is None:
            self.ladder = self.ladder.after(1000 * (now_s - due_s), now_s)

    def release(self, now_s: float) -> list[LiveSlice]:
        """The slices to be sent now."""
        slices = self.session.release()
        if slices:
            self.due.released(self.session.next_index, now_s)
        return slices
