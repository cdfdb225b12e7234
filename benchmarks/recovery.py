"""Breaks a running chain of Ray actors again and again: how soon pictures come again, whether they
are those of an undisturbed run, and whether anything leaks.

    python benchmarks/recovery.py [--model pocket] [--stages 2] [--sessions 2] [--kills 20]

Exit status 1 if a session got no picture for more than 5 s after one stage was lost, if a picture
differs, or if anything grows or stays.
"""

import argparse
import random
import signal
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import psutil
import torch
from chain_load import actor_pids
from fault_stream import Outage, Script, Stream, break_chain, digest, script_of, undisturbed
from replay_loss import describe_replay
from report import table, write_report

from pipeline.chain_settings import ChainSettings
from pipeline.cuts import cut_evenly
from pipeline.model import Model, load_model
from pipeline.plan import Plan
from pipeline.plan_parse import load_plan
from pipeline.recipe import DecodeRecipe, DenoiseRecipe, Recipe
from pipeline.staged_chain import StagedChain
from pipeline.supervisor import open_ray_chain

LIMIT_S = 5.0
# Allocators and Ray keep a little more as time goes by; a lost session's lane alone is more.
GROWTH_MB = 60.0
# Chunks between two faults, so that each finds the chain whole and a checkpoint under way.
REST_CHUNKS = 3
# Chunks before the first fault: all checkpoints that there will be are there.
FIRST_CHUNKS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What the driver and the actors hold."""

    driver_mb: float
    actors_mb: float
    num_fds: int
    num_processes: int
    num_files: int

    @classmethod
    def of(cls, chain: StagedChain, folder: Path) -> "Footprint":
        """Look now."""
        driver = psutil.Process()
        actors_mb = sum(psutil.Process(pid).memory_info().rss for pid in actor_pids(chain)) / 1e6
        return cls(
            driver_mb=driver.memory_info().rss / 1e6,
            actors_mb=actors_mb,
            num_fds=driver.num_fds(),
            num_processes=len(driver.children(recursive=True)),
            num_files=sum(1 for path in folder.rglob("*") if not path.is_dir()),
        )

    def row(self, name: str) -> list[str]:
        """A line of the table."""
        return [
            name,
            f"{self.driver_mb:.0f}",
            f"{self.actors_mb:.0f}",
            str(self.num_fds),
            str(self.num_processes),
            str(self.num_files),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is broken: the model, its plan cut into stages, and the sessions."""

    model: Model
    plan: Plan
    scripts: tuple[Script, ...]

    def recipes(self) -> list[Recipe]:
        """The nodes of its chain."""
        name = str(self.model.folder)
        stages: list[Recipe] = [
            DenoiseRecipe(model=name, plan=self.plan, index=i) for i in range(len(self.plan.stages))
        ]
        return [*stages, DecodeRecipe(model=name)]

    @contextmanager
    def stream(self, num_spares: int) -> Iterator[tuple[StagedChain, Stream]]:
        """A chain with all sessions streaming, checked at the end."""
        pictures = self.plan.frames_per_chunk * self.model.codec.frames_per_latent
        settings = ChainSettings(pictures_per_chunk=pictures)
        with open_ray_chain(self.recipes(), settings, num_spares=num_spares) as chain:
            with Stream(chain, self.scripts) as stream:
                stream.flow(FIRST_CHUNKS)
                yield chain, stream
            chain.close()
        self._check(stream)

    def _check(self, stream: Stream) -> None:
        """Compare with an undisturbed run.

        Raises:
            AssertionError: a picture differs, or comes at another time.
        """
        if stream.errors:
            raise stream.errors[0]
        for script in self.scripts:
            made = stream.made[script.name]
            if made != digest(undisturbed(self.model, self.plan, script, len(made))):
                raise AssertionError(f"session {script.name}: pictures differ")
            if not all(before[0] < after[0] for before, after in pairwise(made)):
                raise AssertionError(f"session {script.name}: pts do not grow")


def break_warm(subject: Subject, num_kills: int, seed: int) -> tuple[list[Outage], str]:
    """Faults with a spare worker at hand; how long they took, and what was left behind."""
    rng, outages = random.Random(seed), list[Outage]()  # noqa: S311 - faults, no secrets
    with subject.stream(num_spares=1) as (chain, stream):
        positions = range(chain.controller.num_nodes)
        kill, stop = signal.SIGKILL, signal.SIGSTOP
        singles = [([rng.choice(positions)], kill, "one stage killed") for _ in range(num_kills)]
        stops = [([rng.choice(positions)], stop, "one stage stopped") for _ in _share(num_kills, 7)]
        pairs = [(rng.sample(positions, 2), kill, "two killed") for _ in _share(num_kills, 10)]
        faults = [*singles, *stops, *pairs, (list(positions), kill, "all killed")]
        before = Footprint.of(chain, chain.folder)
        for places, number, what in faults:
            outages.append(break_chain(chain, stream, places, number, what))
            print(outages[-1], flush=True)
            stream.flow(REST_CHUNKS)
        after = Footprint.of(chain, chain.folder)
        usual_s = statistics.median(
            b - a for came in stream.came_s.values() for a, b in pairwise(came)
        )
        num_chunks = sum(map(len, stream.came_s.values()))
    head = ["", "driver MB", "stages MB", "driver's descriptors", "processes", "files"]
    leaks = table(head, [before.row("before the first fault"), after.row("after the last")])
    for name, grown in (
        ("driver memory", after.driver_mb - before.driver_mb > GROWTH_MB),
        ("stage memory", after.actors_mb - before.actors_mb > GROWTH_MB),
        ("descriptors", after.num_fds > before.num_fds + 2),
        ("files", after.num_files > before.num_files),
    ):
        if grown:
            leaks += f"\n\n**LEAK: {name}**"
    notes = f"{num_chunks} chunks in all; without faults a chunk of a session came every "
    return outages, f"{notes}{usual_s:.2f} s (median).\n\n{leaks}"


def break_cold(subject: Subject, num_kills: int, seed: int) -> list[Outage]:
    """Faults with no spare: a process is started, torch imported and the model loaded."""
    rng, outages = random.Random(seed), list[Outage]()  # noqa: S311 - faults, no secrets
    with subject.stream(num_spares=0) as (chain, stream):
        for _ in _share(num_kills, 5):
            place = rng.randrange(chain.controller.num_nodes)
            what = "one stage killed, no spare"
            outages.append(break_chain(chain, stream, [place], signal.SIGKILL, what))
            print(outages[-1], flush=True)
            stream.flow(REST_CHUNKS)
    return outages


def _share(count: int, divisor: int) -> range:
    """A share of the faults, at least one."""
    return range(max(1, count // divisor))


def describe(outages: Sequence[Outage]) -> str:
    """A table by kind of fault."""
    rows = []
    for what in dict.fromkeys(outage.what for outage in outages):
        same = [outage for outage in outages if outage.what == what]
        cells = [_spread([getattr(o, name) for o in same]) for name in _TIMES]
        rows.append([what, str(len(same)), *cells])
    return table(["fault", "times", *_TIMES.values()], rows)


_TIMES = {
    "healed_s": "joined again, s (median, worst)",
    "silence_s": "longest time without a picture, s",
    "through_s": "a chunk sent after the fault is out, s",
}


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f}, {max(values):.2f}"


def main() -> int:
    """Break, measure, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--stages", type=int, default=2)
    parser.add_argument("--sessions", type=int, default=2)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--chunks", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(options.model)
    plan = cut_evenly(load_plan(model.config.plan), options.stages)
    scripts = tuple(
        script_of(model, plan, f"s{i}", options.seed + i, options.chunks)
        for i in range(options.sessions)
    )
    subject = Subject(model=model, plan=plan, scripts=scripts)
    outages, leaks = break_warm(subject, options.kills, options.seed)
    outages += break_cold(subject, options.kills, options.seed)
    single = [o for o in outages if "one stage" in o.what]
    in_time = max(o.silence_s for o in single) <= LIMIT_S
    verdict = "kept" if in_time else "NOT kept"
    body = (
        f"Model {model.config.name}, plan {plan.name} in {options.stages} stages and the decoder "
        f"as Ray actors of one thread each, {options.sessions} sessions as fast as they can, seed "
        f"{options.seed}. All pictures and their times equal an undisturbed run in one process, "
        f"bit for bit.\n\n**Frames again within {LIMIT_S:g} s of the loss of one stage: {verdict} "
        f"(worst {max(o.silence_s for o in single):.2f} s).**\n\n{describe(outages)}\n\n"
        f"## What stays\n\n{leaks}\n\n## Without checkpoints\n\n{describe_replay(model, plan)}"
    )
    print(write_report("recovery", "Recovery of a chain from faults", body))
    return 0 if in_time and "LEAK" not in leaks else 1


if __name__ == "__main__":
    raise SystemExit(main())
