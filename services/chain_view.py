"""Draws chains: one as it runs, all that run, and the figures of one that has run."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pipeline.snapshot import ChainSnapshot, HeldChunk, SessionView, StageView
from pipeline.timings import ChainTimings, StageTimings
from services.terminal import printable

BAR_CELLS = 6
# Chunks that wait are drawn one by one up to here.
MAX_DRAWN = 8
STATE_STYLES = {
    "starting": "yellow",
    "running": "green",
    "healing": "bold yellow",
    "draining": "yellow",
    "closed": "dim",
    "failed": "bold red",
}
# Columns of times, all in milliseconds for a chunk.
_FIGURES = ("compute", "wait", "queue", "transfer")


def chain_picture(seen: ChainSnapshot) -> Group:
    """A running chain: its stages one below the other, with what they hold, and its sessions."""
    return Group(_headline(seen), _flow(seen), _stages(seen), *_footer(seen))


def _headline(seen: ChainSnapshot) -> Text:
    return Text.assemble(
        f"chain {seen.chain.name}  ",
        (seen.state, STATE_STYLES.get(seen.state, "")),
        f"  {printable(seen.chain.label)}  {_clock(seen.age_s)}  process {seen.chain.pid}",
        f"  {printable(seen.failure)}" if seen.failure else "",
    )


def _flow(seen: ChainSnapshot) -> Text:
    """The way of a chunk, with those that wait before each stage."""
    line = Text("speech")
    for stage in seen.stages:
        line.append(" ─▶ ", "dim")
        line.append("■" * min(stage.num_waiting, MAX_DRAWN), "yellow")
        line.append(" " if stage.num_waiting else "")
        line.append(stage.name, "red" if stage.is_silent else "bold" if stage.working else "")
    return line.append(" ─▶ ", "dim").append("pictures")


def _stages(seen: ChainSnapshot) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("stage", "works on", "waiting"):
        table.add_column(name, no_wrap=True)
    for name in (*_FIGURES, "busy", "bubble", "state"):
        table.add_column(name, justify="right", no_wrap=True)
    figures = {one.stage: one for one in seen.timings.stages}
    for stage in seen.stages:
        own = figures.get(stage.name)
        held = f"{stage.memory_bytes / 1e6:.1f} MB" if stage.memory_bytes else "-"
        if stage.is_silent:
            table.add_row(stage.name, Text("no answer", "red"), *["-"] * 8)
        else:
            table.add_row(stage.name, _working(stage), _waiting(stage), *_figures(own), held)
    return table


def _working(stage: StageView) -> str:
    held = stage.working[:1]
    more = f" +{len(stage.working) - 1}" if len(stage.working) > 1 else ""
    return "".join(f"{_chunk(one)}, {one.for_ms:.0f} ms{more}" for one in held) or "-"


def _waiting(stage: StageView) -> str:
    shown = ", ".join(map(_chunk, stage.waiting[:2]))
    more = f" +{stage.num_waiting - 2}" if stage.num_waiting > 2 else ""
    unsent = f" ({stage.num_unsent} to send)" if stage.num_unsent else ""
    return f"{shown}{more}{unsent}".strip() or "-"


def _chunk(held: HeldChunk) -> str:
    return f"{printable(held.session)[:12]} {held.chunk}"


def _figures(own: StageTimings | None) -> list[str]:
    """Times for a chunk, and shares of time."""
    if own is None or not own.num_chunks:
        return ["-"] * (len(_FIGURES) + 2)
    times = (own.compute_ms, own.idle_ms, own.queue_ms, own.transfer_ms)
    return [*map(_ms, times), _bar(own.busy), f"{own.bubble:.0%}"]


def _ms(time_ms: float | None) -> str:
    return "-" if time_ms is None else f"{time_ms:.1f}"


def _bar(share: float) -> str:
    full = round(min(1.0, max(0.0, share)) * BAR_CELLS)
    return f"{'▇' * full}{'·' * (BAR_CELLS - full)} {share:.0%}"


def _footer(seen: ChainSnapshot) -> list[RenderableType]:
    lines: list[RenderableType] = [Text(speed(seen.timings))]
    if seen.num_sessions:
        lines += [Text(_session(session)) for session in seen.sessions[:12]]
    more = seen.num_sessions - 12
    if more > 0:
        lines.append(Text(f"and {more} more sessions"))
    if seen.num_replacements:
        last = seen.replacements[-1]
        lines.append(
            Text(
                f"{_count(seen.num_replacements, 'replacement')}, the last: {last.stage} "
                f"{last.reason}, whole again after {last.healed_s:.2f} s"
            )
        )
    return lines


def _session(session: SessionView) -> str:
    name = printable(session.session)[:40]
    under_way = session.submitted - session.completed
    return f"session {name}: {session.completed} chunks out, {under_way} under way{_due(session)}"


def _due(session: SessionView) -> str:
    if session.due_in_ms is None:
        return ""
    if session.due_in_ms < 0:
        return f", next {-session.due_in_ms:.0f} ms late"
    return f", next due in {session.due_in_ms:.0f} ms"


def speed(timings: ChainTimings) -> str:
    """What the stages' figures come to, in one line."""
    if timings.chunks_per_s is None or timings.efficiency is None:
        return f"{_count(timings.num_chunks, 'chunk')}: too few to tell the speed"
    latency = "" if timings.latency_ms is None else f", {timings.latency_ms:.0f} ms from in to out"
    return (
        f"{timings.chunks_per_s:.2f} chunks/s, slowest stage {timings.slowest_ms:.1f} ms, "
        f"efficiency {timings.efficiency:.0%}{latency} (columns: ms for a chunk)"
    )


def stats_table(timings: ChainTimings) -> Group:
    """The figures of a run, one stage a row."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("stage", no_wrap=True)
    for name in ("chunks", *_FIGURES, "busy", "bubble", "sent/chunk"):
        table.add_column(name, justify="right", no_wrap=True)
    for own in timings.stages:
        sent = f"{own.sent_bytes / 1e3:.1f} kB" if own.sent_bytes else "-"
        table.add_row(own.stage, str(own.num_chunks), *_figures(own), sent)
    return Group(table, Text(speed(timings)))


def chains_table(running: Sequence[ChainSnapshot]) -> RenderableType:
    """All chains that run, one a row."""
    if not running:
        return Text("no chain runs here")
    table = Table()
    for name in ("chain", "runs", "state", "stages", "sessions", "chunks/s", "for", "process"):
        table.add_column(name)
    for seen in running:
        rate = seen.timings.chunks_per_s
        table.add_row(
            seen.chain.name,
            printable(seen.chain.label),
            Text(seen.state, STATE_STYLES.get(seen.state, "")),
            str(len(seen.stages)),
            str(seen.num_sessions),
            "-" if rate is None else f"{rate:.2f}",
            _clock(seen.age_s),
            str(seen.chain.pid),
        )
    return table


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
