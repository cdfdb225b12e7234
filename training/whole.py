"""From an empty folder to a model folder: `viva train all --recipe NAME --workspace DIR`.

Every step is a command of its own process. What is finished is skipped, what was cut goes on, and
at the end the model's held-out figures are compared with the recipe's bounds.
"""

import argparse
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from training.errors import InputError
from training.figures import judge, run_figures, write_figures
from training.interrupt import Interrupt
from training.recipe import Recipe, load_recipe
from training.steps import Step, plan_steps

EXIT_FAILED = 1
MEASURED_BATCHES = 12


def run(options: argparse.Namespace) -> None:
    """Do what is left of a recipe, within the minutes given.

    Raises:
        InputError: the recipe or the workspace cannot be used.
    """
    recipe = load_recipe(options.recipe)
    workspace: Path = options.workspace
    if recipe.clips.heads + recipe.clips.held_out_heads and options.facekit is None:
        raise InputError(f"recipe {recipe.name} draws 3-D heads: name the face kit, --facekit DIR")
    steps = plan_steps(recipe, workspace.resolve(), options.facekit and options.facekit.resolve())
    if options.list:
        _list(steps, workspace)
        return
    with _alone(workspace):
        _keep_recipe(recipe, workspace)
        if _work(steps, workspace, time.monotonic() + options.minutes * 60.0):
            _judge(recipe, workspace)


def _list(steps: Sequence[Step], workspace: Path) -> None:
    for step in steps:
        state = "done" if _marker(workspace, step).exists() else "to do"
        print(f"{state:<6} {step.name:<20} viva {' '.join(step.command)}")  # noqa: T201 - the result


@contextmanager
def _alone(workspace: Path) -> Iterator[None]:
    """Hold the workspace; a second holder is refused."""
    (workspace / "done").mkdir(parents=True, exist_ok=True)
    with (workspace / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"{workspace}: another command is at work there: wait") from error
        yield


def _keep_recipe(recipe: Recipe, workspace: Path) -> None:
    """Write the recipe into a fresh workspace; in an old one it must be the same."""
    path = workspace / "recipe.json"
    text = recipe.model_dump_json(indent=2, exclude={"about", "bounds"})
    if not path.exists():
        path.write_text(text + "\n")
    elif path.read_text().strip() != text:
        raise InputError(
            f"{workspace} was begun with another recipe, its recipe.json: name a new --workspace"
        )


def _work(steps: Sequence[Step], workspace: Path, deadline_s: float) -> bool:
    """Run the steps that are left; False if time ran out first."""
    for index, step in enumerate(steps, 1):
        marker = _marker(workspace, step)
        if marker.exists():
            continue
        left_min = (deadline_s - time.monotonic()) / 60.0
        if left_min <= 0:
            _say(f"time is up before {step.name}; the same command goes on")
            return False
        _say(f"[{index}/{len(steps)}] {step.name}")
        began_s = time.monotonic()
        _run_step(step.arguments(left_min))
        if not step.is_done():
            _say(f"time is up within {step.name}; the same command goes on")
            return False
        took_s = round(time.monotonic() - began_s, 1)
        marker.write_text(json.dumps({"command": step.command, "took_s": took_s}) + "\n")
        _say(f"[{index}/{len(steps)}] {step.name}: {took_s / 60:.1f} min")
    return True


def _judge(recipe: Recipe, workspace: Path) -> None:
    """Measure, write figures.json, compare with the bounds; exit status 1 outside of them."""
    figures = run_figures(workspace / "runs") | _codec_figures(workspace)
    write_figures(workspace / "figures.json", figures)
    verdicts = judge(figures, recipe.bounds)
    for verdict in verdicts:
        print(verdict)  # noqa: T201 - the result
    print(workspace / "model")  # noqa: T201 - the result
    if not all(verdict.holds for verdict in verdicts):
        _say(f"figures outside their bounds: see {workspace / 'figures.json'}")
        raise SystemExit(EXIT_FAILED)


def _codec_figures(workspace: Path) -> dict[str, float]:
    weights = workspace / "model" / "codec.safetensors"
    words = ["train", "measure", "--clips", str(workspace / "held_out"), "--codec", str(weights)]
    text = _run_step([*words, "--batches", str(MEASURED_BATCHES)], stdout=subprocess.PIPE)
    return {f"codec.{name}": float(value) for name, value in json.loads(text).items()}


def _run_step(arguments: list[str], stdout: int | None = None) -> str:
    """Run one command in a process of its own and return what was captured of its output.

    It has its own process group, so that Ctrl-C reaches it once: through us. Its failure, which it
    has explained itself, is ours.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-m", "training", *arguments]
    with (
        Interrupt() as asked,
        subprocess.Popen(  # noqa: S603 - our own program
            command, env=environment, stdout=stdout, text=True, process_group=0
        ) as process,
    ):
        told = False
        text: str | None = None
        try:
            while process.poll() is None:
                if asked and not told:
                    told = True
                    process.send_signal(asked.signum or signal.SIGTERM)
                try:
                    text, _ = process.communicate(timeout=0.3)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            if process.poll() is None:
                process.kill()
    asked.obey("stopped; the same command goes on")
    if process.returncode:
        raise SystemExit(process.returncode if process.returncode > 0 else EXIT_FAILED)
    return text or ""


def _marker(workspace: Path, step: Step) -> Path:
    return workspace / "done" / f"{step.name.replace(' ', '_')}.json"


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    from training.commands import main

    main("train", "all")
