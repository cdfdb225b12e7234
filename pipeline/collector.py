"""Asks the stages of a running chain what they do, without ever waiting long for one of them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.chain_events import Replacement
from pipeline.chain_state import ChainState
from pipeline.clocks import Clocks
from pipeline.host import NodeHandle, Reply
from pipeline.spans import Record, StageReport, machine_id
from pipeline.staged_chain import SessionProgress, StagedChain

# A stage that is silent for so long is shown as silent; its answer may come with a later look.
ANSWER_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """A chain at one moment of the driver's clock, and what happened since the look before.

    `reports` hold None for a stage that gave no answer; their times are of their own machines,
    those of `records` of the driver's.
    """

    at_ns: int
    names: tuple[str, ...]
    state: ChainState
    failure: str
    sessions: tuple[SessionProgress, ...]
    reports: tuple[StageReport | None, ...]
    records: tuple[Record, ...]
    replacements: tuple[Replacement, ...]

    def name_of(self, replacement: Replacement) -> str:
        """Which stage was replaced; by its position alone in a chain that was cut anew since."""
        known = replacement.position < len(self.names)
        return self.names[replacement.position] if known else f"stage {replacement.position}"


@dataclass(slots=True)
class _Seat:
    """What is known of who fills a position: how far its records were read, what it was asked."""

    handle: NodeHandle | None = None
    cursor: int = 0
    reply: Reply | None = None
    asked_ns: int = 0


@dataclass(slots=True)
class _Own:
    """How far the driver's own records were read."""

    entry: int = 0
    exit: int = 0
    replacement: Replacement | None = None


class Collector:
    """Looks at one chain; one thread at a time."""

    def __init__(
        self,
        chain: StagedChain,
        *,
        answer_s: float = ANSWER_S,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Begin before the first record."""
        self._chain, self._answer_s, self._clock_ns = chain, answer_s, clock_ns
        self._clocks = Clocks(machine_id())
        self._seats: list[_Seat] = []
        self._own = _Own()

    def look(self) -> Observation:
        """Ask all stages at once and wait for those that answer soon."""
        chain = self._chain
        until_ns = self._clock_ns() + int(self._answer_s * 1e9)
        # A chain that is being cut anew may have other names than stages for a moment.
        rows = list(zip(chain.names, chain.controller.handles(), strict=False))
        self._seats = [*self._seats, *(_Seat() for _ in rows)][: len(rows)]
        for seat, (_, handle) in zip(self._seats, rows, strict=True):
            self._ask(seat, handle)
        reports = tuple(self._hear(seat, until_ns) for seat in self._seats)
        records = [*self._own_records()]
        for report in reports:
            if report is not None:
                records += [self._clocks.here(r, report.machine) for r in report.records]
        return Observation(
            at_ns=self._clock_ns(),
            names=tuple(name for name, _ in rows),
            state=chain.controller.state,
            failure=chain.controller.keeper.failure,
            sessions=tuple(chain.progress()),
            reports=reports,
            records=tuple(records),
            replacements=self._fresh_replacements(),
        )

    def _ask(self, seat: _Seat, handle: NodeHandle | None) -> None:
        """Have one question under way: more would only pile up where nobody answers."""
        if seat.handle is not handle:
            seat.handle, seat.cursor, seat.reply = handle, 0, None
        if handle is not None and seat.reply is None:
            seat.asked_ns = self._clock_ns()
            seat.reply = handle.call("report", seat.cursor)

    def _hear(self, seat: _Seat, until_ns: int) -> StageReport | None:
        if seat.reply is None:
            return None
        wait_s = max(0.0, (until_ns - self._clock_ns()) / 1e9)
        try:
            report = seat.reply.result(wait_s)
        except Exception:  # noqa: BLE001 - dead, late or not built: all are shown as silent
            return None
        seat.reply, seat.cursor = None, report.cursor
        heard_ns = self._clock_ns()
        self._clocks.answered(
            report.machine, asked_ns=seat.asked_ns, there_ns=report.now_ns, heard_ns=heard_ns
        )
        return report if isinstance(report, StageReport) else None

    def _own_records(self) -> Sequence[Record]:
        """What the driver sent in and got out."""
        now_ns = self._clock_ns()
        entry = self._chain.entry.report(self._own.entry, now_ns)
        out = self._chain.exit.report(self._own.exit, now_ns)
        self._own.entry, self._own.exit = entry.cursor, out.cursor
        return (*entry.records, *out.records)

    def _fresh_replacements(self) -> tuple[Replacement, ...]:
        """Those after the last one seen; the chain forgets its oldest."""
        known = list(self._chain.controller.replacements)
        seen = [index for index, one in enumerate(known) if one is self._own.replacement]
        fresh = known[seen[-1] + 1 :] if seen else known
        self._own.replacement = known[-1] if known else None
        return tuple(fresh)
