"""Which chunk a stage takes next: earliest deadline first, one chunk a session. Pure decisions.

What nobody waits for yet comes after all that is due, and whoever had the least compute goes
first: so sessions that run ahead of real time share what the others leave.

Sources: design page "distributed", section 7.4; for chunks that are all there, earliest deadline
first keeps every deadline that any order keeps (Jackson, 1955); the shares are start-time fair
queueing (Goyal, Vin and Cheng, 1996).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipeline.step_cost import BatchProfile

# A sender that is held up for a moment catches up; one that was away for long bursts no longer.
CREDIT = 16.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyChunk:
    """A chunk that waits in a stage; those of equal `shape` could run as one batch.

    A deadline of infinity says that nobody waits for it.
    """

    session: str
    chunk: int
    deadline_ms: float
    service_ms: float
    shape: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """Who had a turn when, counted in turns, and how much compute ahead of need.

    `share` holds that compute by session, in chunks of the stage's usual size; `floor` is how much
    those who are at it have had. A session that comes starts there, and one that comes back claims
    at most `CREDIT` for the time in which it had nothing to do.
    """

    last: Mapping[str, int]
    count: int = 0
    share: Mapping[str, float] = field(default_factory=dict)
    floor: float = 0.0

    def after(self, sessions: Sequence[str]) -> "Turns":
        """The record after these sessions had a turn."""
        last = {**self.last, **dict.fromkeys(sessions, self.count + 1)}
        return Turns(last=last, count=self.count + 1, share=self.share, floor=self.floor)

    def joined(self, session: str) -> "Turns":
        """The record after a session that had nothing waiting has something again."""
        own = self.share.get(session, self.floor)
        share = max(own, self.floor - CREDIT)
        if self.share.get(session) == share:
            return self
        shares = {**self.share, session: share}
        return Turns(last=self.last, count=self.count, share=shares, floor=self.floor)

    def charged(self, session: str, spent: float) -> "Turns":
        """The record after so much compute for a chunk that nobody waited for yet."""
        share = self.share.get(session, self.floor)
        shares = {**self.share, session: share + spent}
        floor = max(self.floor, share)
        return Turns(last=self.last, count=self.count, share=shares, floor=floor)

    def without(self, session: str) -> "Turns":
        """The record after a session has ended."""
        last = {name: turn for name, turn in self.last.items() if name != session}
        shares = {name: share for name, share in self.share.items() if name != session}
        return replace(self, last=last, share=shares)


NO_TURNS = Turns(last={})


def deadline_ms(start_ms: float, chunk: int, chunk_ms: float, latency_ms: float) -> float:
    """When chunk number `chunk` must be done: it shows `latency_ms` after its sound is there.

    It follows from the stream's own time, so a session that sends ahead gains nothing by it.
    """
    return start_ms + (chunk + 1) * chunk_ms + latency_ms


def is_spare(entry: ReadyChunk, now_ms: float, horizon_ms: float) -> bool:
    """Whether a chunk can wait: nobody waits for it, or its deadline lies beyond the horizon."""
    return entry.deadline_ms == math.inf or entry.deadline_ms - now_ms > horizon_ms


def in_order(
    ready: Sequence[ReadyChunk], now_ms: float, turns: Turns, horizon_ms: float = math.inf
) -> list[ReadyChunk]:
    """The first waiting chunk of each session, the most urgent first.

    Deadlines that have passed are all equal, and the session that waited longest for a turn goes
    first: then no session that is late waits for more than one turn of each other one. Chunks
    that can wait come after all others, by their sessions' shares.
    """
    heads: dict[str, ReadyChunk] = {}
    for entry in ready:
        if entry.session not in heads or entry.chunk < heads[entry.session].chunk:
            heads[entry.session] = entry
    return sorted(heads.values(), key=lambda entry: _rank(entry, now_ms, turns, horizon_ms))


def _rank(
    entry: ReadyChunk, now_ms: float, turns: Turns, horizon_ms: float
) -> tuple[bool, float, int, float, str]:
    """What chunks are sorted by; among equals the session whose turn is longest ago, then by name.

    Shares less than a hundredth of a chunk apart are equal.
    """
    spare = is_spare(entry, now_ms, horizon_ms)
    share = turns.share.get(entry.session, turns.floor)
    first = round(share, 2) if spare else max(entry.deadline_ms, now_ms)
    turn = turns.last.get(entry.session, -1)
    return (spare, first, turn, entry.deadline_ms, entry.session)


def next_batch(
    ready: Sequence[ReadyChunk],
    now_ms: float,
    turns: Turns,
    *,
    profile: BatchProfile,
    max_batch: int = 1,
    horizon_ms: float = math.inf,
) -> tuple[ReadyChunk, ...]:
    """What to run now: the most urgent chunk, with others of its shape if that is worth it.

    Others join only while the profile says that the batch is faster than one by one, and while no
    deadline that would be kept one by one breaks. Nothing where nothing waits.
    """
    if len(ready) < 2:
        return tuple(ready)
    order = in_order(ready, now_ms, turns, horizon_ms)
    best: tuple[ReadyChunk, ...] = (order[0],)
    kept = _kept(order, now_ms)
    for entry in order[1:]:
        batch = (*best, entry)
        if len(batch) > max_batch or entry.shape != best[0].shape:
            continue
        if not profile.pays(len(batch)):
            break
        if kept <= _kept_batched(batch, order, now_ms, profile):
            best = batch
    return best


def batch_ms(batch: Sequence[ReadyChunk], profile: BatchProfile) -> float:
    """How long a batch takes."""
    return max(entry.service_ms for entry in batch) * profile.ratio(len(batch))


def _kept(order: Sequence[ReadyChunk], now_ms: float) -> frozenset[str]:
    """Sessions whose waiting chunk is done in time if all run one by one."""
    done_ms, kept = now_ms, set()
    for entry in order:
        done_ms += entry.service_ms
        if done_ms <= entry.deadline_ms:
            kept.add(entry.session)
    return frozenset(kept)


def _kept_batched(
    batch: Sequence[ReadyChunk],
    order: Sequence[ReadyChunk],
    now_ms: float,
    profile: BatchProfile,
) -> frozenset[str]:
    """The same if the batch runs first and the others follow one by one."""
    done_ms = now_ms + batch_ms(batch, profile)
    kept = {entry.session for entry in batch if done_ms <= entry.deadline_ms}
    rest = [entry for entry in order if entry not in batch]
    return frozenset(kept) | _kept(rest, done_ms)
