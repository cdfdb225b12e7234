"""Measures what each method brings: one run, the same clips and seeds, quality beside cost.

    viva data make --out DIR --count 16 --domain drawn --split validation
    python benchmarks/methods.py --clips DIR [--limit 12] [--only MODE] [--plans GLOB]

Every file in `method_plans/live` and `method_plans/render` is a plan; the first of each folder is
what the others are held against. One thread, so that processor time is comparable. A plan that
cannot be run is reported with the reason. Writes a dated table, and plots beside it.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from method_plots import Point, scatter
from method_runs import PlanRun, distance, pops, run_plan, sharpness
from report import RESULTS, table, write_report

from pipeline.errors import PlanError
from pipeline.model import Model, load_model
from pipeline.plan_parse import load_plan
from training.held_out import HeldOutClip, held_out_clips

PLANS = Path(__file__).resolve().parent / "method_plans"
HEAD = [
    "plan",
    "what it is",
    "passes a chunk",
    "ms a chunk",
    "of plain",
    "latents apart",
    "PSNR, dB",
    "opening follows",
    "amplitude",
    "lag",
    "sharpness",
    "pops",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A plan and what came of it; `refused` says why it could not run."""

    name: str
    what: str
    run: PlanRun | None = None
    refused: str = ""


def measured(model: Model, path: Path, clips: Sequence[HeldOutClip], seed: int) -> Row:
    """Run the plan in a file over all clips."""
    what = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("#").strip()
    try:
        run = run_plan(model, load_plan(str(path)), clips, seed)
    except PlanError as error:
        return Row(name=path.stem, what=what, refused=str(error))
    print(f"{path.stem}: {run.costs.chunk_ms:.1f} ms a chunk", flush=True)
    return Row(name=path.stem, what=what, run=run)


def cells(row: Row, plain: PlanRun) -> list[str]:
    """A row of the table."""
    if row.run is None:
        return [row.name, f"{row.what} **Not run:** {row.refused}", *[""] * (len(HEAD) - 2)]
    run, apart = row.run, distance(row.run, plain)
    per_chunk = run.plan.frames_per_chunk * 4
    return [
        row.name,
        row.what,
        f"{run.costs.evaluations / run.costs.chunks:.2f}",
        f"{_ms_a_latent(run) * 3:.1f}",
        f"{_ms_a_latent(run) / _ms_a_latent(plain):.2f}",
        f"{apart.latents:.3f}",
        f"{apart.psnr_db:.1f}",
        f"{run.sync['opening_corr']:.3f}",
        f"{run.sync['opening_amplitude']:.2f}",
        f"{run.sync['lag_frames']:.0f}",
        f"{sharpness(run):.2f}",
        f"{pops(run, per_chunk):.2f}",
    ]


def _ms_a_latent(run: PlanRun) -> float:
    """Milliseconds of steps for one latent frame, whatever the chunk's length."""
    return run.costs.chunk_ms / run.plan.frames_per_chunk


def section(mode: str, rows: Sequence[Row], name: str) -> str:
    """A mode's table and plots."""
    plain = rows[0].run
    if plain is None:
        raise SystemExit(f"{mode}: the plan that others are held against failed: {rows[0].refused}")
    points = [
        Point(
            name=row.name,
            cost=_ms_a_latent(row.run) / _ms_a_latent(plain),
            sync=row.run.sync["opening_corr"],
            psnr_db=min(distance(row.run, plain).psnr_db, 60.0),
        )
        for row in rows
        if row.run is not None
    ]
    plot = RESULTS / f"methods_{mode}_{name}.svg"
    plot.write_text(scatter(f"{mode}: cost against {rows[0].name}", points), encoding="utf-8")
    return (
        f"## {mode}\n\n{table(HEAD, [cells(row, plain) for row in rows])}\n\n"
        f"![cost and quality]({plot.name})"
    )


def main() -> None:
    """Measure all plans, or those asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, required=True, help="folder of held-out clips")
    parser.add_argument("--limit", type=int, default=12, help="clips at most")
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=["live", "render"])
    parser.add_argument("--plans", default="*.yaml", help="which files, the first always")
    parser.add_argument("--findings", type=Path, help="text to put above the tables")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(options.model)
    clips = list(held_out_clips(options.clips, options.limit))
    sections, today = [], ""
    for mode in (options.only,) if options.only else ("live", "render"):
        first, *others = sorted((PLANS / mode).glob("*.yaml"))
        chosen = [first, *(path for path in others if path.match(options.plans))]
        rows = [measured(model, path, clips, options.seed) for path in chosen]
        sections.append(section(mode, rows, options.model))
    findings = options.findings.read_text(encoding="utf-8") if options.findings else today
    body = f"{len(clips)} held-out clips, the same sound and noise for all plans.\n\n{LEGEND}"
    print(write_report("methods", "The methods", "\n\n".join([body, findings, *sections])))


LEGEND = (
    "Milliseconds are processor time of all steps for 3 latent frames (0.48 s of video) on one "
    "thread. What is far from the plain plan is not therefore bad: latents and PSNR say how far, "
    "opening (correlation with the truth), amplitude and lag (frames) whether it speaks as well. "
    "Pops: change of the picture at chunk borders against elsewhere."
)

if __name__ == "__main__":
    main()
