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
    "passes",
    "ms",
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
    """A plan's row of the table, and its point in the plots; None for one that could not run."""

    cells: list[str]
    point: Point | None = None


def row_of(name: str, what: str, run: PlanRun, plain: PlanRun) -> Row:
    """What a plan gave, beside the plain one; its pictures are not kept."""
    apart, cost = distance(run, plain), run.costs.ms() / plain.costs.ms()
    per_chunk = run.plan.frames_per_chunk * 4
    cells = [
        name,
        what,
        f"{run.costs.passes():.2f}",
        f"{run.costs.ms():.1f}",
        f"{cost:.2f}",
        f"{apart.latents:.3f}",
        f"{apart.psnr_db:.1f}",
        f"{run.sync['opening_corr']:.3f}",
        f"{run.sync['opening_amplitude']:.2f}",
        f"{run.sync['lag_frames']:.0f}",
        f"{sharpness(run):.2f}",
        f"{pops(run, per_chunk):.2f}",
    ]
    sync, psnr_db = run.sync["opening_corr"], min(apart.psnr_db, 60.0)
    return Row(cells=cells, point=Point(name=name, cost=cost, sync=sync, psnr_db=psnr_db))


def measured(
    model: Model, paths: Sequence[Path], clips: Sequence[HeldOutClip], seed: int
) -> list[Row]:
    """Run the plans in files over all clips; the first is the plain one."""
    rows: list[Row] = []
    plain: PlanRun | None = None
    for path in paths:
        what = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("#").strip()
        try:
            run = run_plan(model, load_plan(str(path)), clips, seed)
        except PlanError as error:
            if plain is None:
                raise
            refused = f"{what} **Not run:** {error}"
            rows.append(Row(cells=[path.stem, refused, *[""] * (len(HEAD) - 2)]))
            continue
        plain = plain or run
        rows.append(row_of(path.stem, what, run, plain))
        print(f"{path.stem}: {run.costs.ms():.1f} ms for 3 latent frames", flush=True)
    return rows


def section(mode: str, rows: Sequence[Row], name: str) -> str:
    """A mode's table and plots."""
    plot = RESULTS / f"methods_{mode}_{name}.svg"
    points = [row.point for row in rows if row.point is not None]
    plot.write_text(scatter(f"{mode}: cost against {points[0].name}", points), encoding="utf-8")
    rows_table = table(HEAD, [row.cells for row in rows])
    return f"## {mode}\n\n{rows_table}\n\n![cost and quality]({plot.name})"


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
    sections = []
    for mode in (options.only,) if options.only else ("live", "render"):
        first, *others = sorted((PLANS / mode).glob("*.yaml"))
        chosen = [path for path in others if path.match(options.plans)]
        rows = measured(model, [first, *chosen], clips, options.seed)
        sections.append(section(mode, rows, options.model))
    findings = options.findings.read_text(encoding="utf-8") if options.findings else ""
    body = f"{len(clips)} held-out clips, the same sound and noise for all plans.\n\n{LEGEND}"
    print(write_report("methods", "The methods", "\n\n".join([body, findings, *sections])))


LEGEND = (
    "Passes of the network and milliseconds (processor time of all steps, one thread) are for 3 "
    "latent frames, 0.48 s of video; a pass over a window counts once. What is far from the "
    "plain plan is not therefore bad: latents and PSNR say how far, opening (correlation with the "
    "truth), amplitude and lag (frames) whether it speaks as well. Pops: change of the "
    "picture at chunk borders against elsewhere."
)

if __name__ == "__main__":
    main()
