"""Measures eight sessions on one chain of Ray actors: deadlines, shares, and each one's pictures.

    python benchmarks/chain_sessions.py [--seconds 40] [--quick]

The actors sleep 40 ms a chunk, so that two cores suffice. Exit status 1 if a limit is not kept.
`--quick` only shows that everything runs; its figures mean little and are not written down.
"""

import argparse
import hashlib
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import psutil
import torch
from chain_load import ray_chain
from chain_stages import FPS, ShowStage, blank_inputs, numbered, sleep_recipes
from chain_stats import CHECK_HEADER, Check, percentile
from report import table, write_report

from pipeline.spans import Span
from pipeline.stage import ChunkWork
from pipeline.staged_chain import StagedChain
from video.chunk import LatentChunk, VideoChunk

SLEEPS_S = [0.04, 0.04, 0.04]
PICTURES = 12
CHUNK_S = float(PICTURES / FPS)
# ChainSettings.latency_s: a live session's pictures are due so long after their sound.
LATENCY_S = 1.0
FAIRNESS = 1.05
SIZE_PX = 64
VALUES = 1024


@dataclass(eq=False)
class Session:
    """One session of a run: what it sent, what came back."""

    name: str
    live: bool
    phase_s: float = 0.0
    num_sent: int = 0
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def work(self, index: int) -> ChunkWork:
        """Chunk `index` of noise of its own."""
        seed = f"{self.name}{index}"
        generator = torch.Generator().manual_seed(random.Random(seed).getrandbits(60))  # noqa: S311 - noise
        latents_CTHW = torch.randn(1, 1, 1, VALUES, generator=generator)
        work = ChunkWork(
            session=self.name,
            latent=LatentChunk(latents_CTHW=latents_CTHW, index=0, start_frame=0, sigma=1.0),
            audio_LCT=torch.zeros(1, 1, 1),
            cond_CTHW=torch.zeros_like(latents_CTHW),
        )
        return numbered(work, index)

    def show(self, pictures: Sequence[VideoChunk]) -> None:
        """Take pictures in."""
        for video in pictures:
            self.digest.update(f"{video.pts}".encode())
            self.digest.update(np.ascontiguousarray(video.frames_THWC).data)

    def is_as_alone(self) -> bool:
        """Whether all pictures are those of a chain that has nobody else."""
        alone, stage = Session(name=self.name, live=False), ShowStage(0.0, None)
        for index in range(self.num_sent):
            alone.show([stage.process(self.work(index))])
        return alone.digest.digest() == self.digest.digest()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A run: its sessions, when each chunk was due (0: never) and out, and how long it took."""

    sessions: list[Session]
    due_ns: dict[tuple[str, int], int]
    out_ns: dict[tuple[str, int], int]
    until_ns: int
    longest_ms: float
    num_replaced: int

    def served(self, session: Session) -> int:
        """Chunks out by the end of the time."""
        outs = (at for (name, _), at in self.out_ns.items() if name == session.name)
        return sum(at <= self.until_ns for at in outs)

    def late_ms(self, session: Session | None = None) -> list[float]:
        """By how much chunks came after their deadlines; negative for those in time."""
        names = [s.name for s in self.sessions if s.live and session in (None, s)]
        return [
            (self.out_ns[key] - due_ns) / 1e6
            for key, due_ns in self.due_ns.items()
            if key[0] in names
        ]


def run(chain: StagedChain, sessions: list[Session], seconds: float) -> Outcome:
    """Let sessions stream side by side for so long, and let out what is under way."""
    cursor, num_before = chain.exit.report(0, 0).cursor, len(chain.controller.replacements)
    chain.controller.spans()
    due_ns: dict[tuple[str, int], int] = {}
    for session in sessions:
        inputs = replace(blank_inputs(session.name, SIZE_PX), live=session.live)
        chain.prepare(inputs)
    began_ns = time.monotonic_ns() + 300_000_000
    until_ns = began_ns + int(seconds * 1e9)

    def feed(session: Session) -> None:
        at_ns = began_ns + int(session.phase_s * 1e9)
        while at_ns < until_ns and time.monotonic_ns() < until_ns:
            time.sleep(max(0.0, (at_ns - time.monotonic_ns()) / 1e9))
            index = session.num_sent
            if session.live:
                due_ns[session.name, index] = at_ns + int(LATENCY_S * 1e9)
                at_ns += int(CHUNK_S * 1e9)
            session.num_sent += 1
            session.show(chain.submit(session.work(index)))
        session.show(chain.drain(session.name))

    threads = [threading.Thread(target=feed, args=(session,)) for session in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = chain.exit.report(cursor, time.monotonic_ns()).records
    out_ns = {(r.session, r.chunk): r.ended_ns for r in records if isinstance(r, Span)}
    for session in sessions:
        chain.reset(session.name)
    return Outcome(
        sessions=sessions,
        due_ns=due_ns,
        out_ns=out_ns,
        until_ns=until_ns,
        longest_ms=max(span.compute_ms for span in chain.controller.spans()),
        num_replaced=len(chain.controller.replacements) - num_before,
    )


def told(outcome: Outcome) -> str:
    """Per session: chunks out, deadlines missed, how late they were."""
    rows = []
    for session in outcome.sessions:
        late_ms = outcome.late_ms(session) if session.live else []
        rows.append(
            [
                session.name,
                str(outcome.served(session)),
                str(sum(ms > 0 for ms in late_ms)) if late_ms else "-",
                f"{percentile(late_ms, 50):.0f}" if late_ms else "-",
                f"{percentile(late_ms, 99):.0f}" if late_ms else "-",
                "yes" if session.is_as_alone() else "NO",
            ]
        )
    header = [
        "session",
        "chunks out",
        "deadlines missed",
        "late p50, ms",
        "late p99, ms",
        "as alone",
    ]
    disturbed = (
        f"\n\nThe longest sleep took {outcome.longest_ms:.0f} ms (the machine's other work); "
        f"{outcome.num_replaced} actors were replaced."
    )
    return table(header, rows) + disturbed


def checks_of(name: str, outcome: Outcome) -> list[Check]:
    """Deadlines of live sessions, shares of renders, and all pictures."""
    checks = []
    late_ms = outcome.late_ms()
    if late_ms:
        missed = sum(ms > 0 for ms in late_ms)
        checks.append(Check(name=f"{name}: missed", value=missed, limit=0, at_least=False))
    renders = [outcome.served(session) for session in outcome.sessions if not session.live]
    if renders:
        apart = max(renders) / max(1, min(renders))
        checks.append(Check(name=f"{name}: shares", value=apart, limit=FAIRNESS, at_least=False))
    alone = sum(session.is_as_alone() for session in outcome.sessions)
    count = len(outcome.sessions)
    checks.append(Check(name=f"{name}: as alone", value=alone, limit=count, at_least=True))
    return checks


def live(count: int) -> list[Session]:
    """Live sessions that began whenever they liked."""
    draws = random.Random(8)  # noqa: S311 - phases
    return [
        Session(name=f"live{index}", live=True, phase_s=draws.random() * CHUNK_S)
        for index in range(count)
    ]


def renders(count: int) -> list[Session]:
    """Sessions that send as fast as they may."""
    return [Session(name=f"render{index}", live=False) for index in range(count)]


RUNS: dict[str, Callable[[], list[Session]]] = {
    "eight renders": lambda: renders(8),
    "eight live sessions, 67 % load": lambda: live(8),
    "six live sessions and two renders": lambda: [*live(6), *renders(2)],
}


def main() -> None:
    """Measure, write it down, and say which limits are kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    seconds = 3.0 if options.quick else options.seconds
    busy_percent = psutil.cpu_percent(1.0)
    checks: list[Check] = []
    parts = []
    with ray_chain(sleep_recipes(SLEEPS_S, None), pictures=PICTURES) as chain:
        for name, make in RUNS.items():
            outcome = run(chain, make(), seconds)
            checks += checks_of(name, outcome)
            parts.append(f"## {name}\n\n{told(outcome)}")
            print(parts[-1], flush=True)
    intro = (
        f"{len(SLEEPS_S)} actors that sleep {1e3 * SLEEPS_S[0]:.0f} ms a chunk; a chunk shows "
        f"{1e3 * CHUNK_S:.0f} ms, a live one is due {1e3 * LATENCY_S:.0f} ms after its sound. Late "
        "is counted from the deadline: negative is in time. Each run takes "
        f"{seconds:.0f} s; others used {busy_percent:.0f} % of the processor before the start."
    )
    verdict = table(CHECK_HEADER, [check.row() for check in checks])
    print(verdict)
    if not options.quick:
        title = "The chain on Ray: eight sessions"
        print(write_report("chain_sessions", title, "\n\n".join([intro, verdict, *parts])))
    sys.exit(0 if all(check.holds for check in checks) else 1)


if __name__ == "__main__":
    main()
