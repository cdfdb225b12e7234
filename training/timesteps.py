"""Fits what a few-step plan tells the network: `viva train timesteps` writes a small table.

For each step of a plan one number is sought with which the plan's result comes nearest to that of
many steps from the same noise. Nothing of the network changes. Source: Timestep Aligner, as far as
"one number for each step" goes; its search here is by coordinates.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from pipeline.model import Model, load_model
from pipeline.plan import Plan, PluginSpec, StageSpec, Step
from pipeline.plan_parse import load_plan
from pipeline.plugins.timestep_aligner import TimestepTable
from training.caught import CaughtClip, catch_clip, clean_latents, sound_between
from training.errors import InputError

Distance = Callable[[tuple[float, ...]], float]
FIRST_MOVE, LEAST_MOVE = 0.1, 0.01
CHUNK_S = 0.48


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What was found: the levels, and the distance before and with them."""

    told: tuple[float, ...]
    before: float
    after: float


def fit_levels(distance: Distance, start: Sequence[float], max_sweeps: int = 12) -> Fit:
    """Lower `distance` by moving one level at a time, up or down, by ever smaller moves."""
    told, move = tuple(start), FIRST_MOVE
    before = best = distance(told)
    for _ in range(max_sweeps):
        swept = best
        for index in range(len(told)):
            for sign in (-1.0, 1.0):
                level = min(max(told[index] + sign * move, 0.0), 1.0)
                tried = (*told[:index], level, *told[index + 1 :])
                found = best if tried == told else distance(tried)
                if found < best:
                    told, best = tried, found
                    break
        if best == swept:
            move /= 2
        if move < LEAST_MOVE:
            break
    return Fit(told=told, before=before, after=best)


def finer(plan: Plan, parts: int) -> Plan:
    """The plan with each step in so many of equal length, and without its plug-ins."""
    steps: list[Step] = []
    for step in plan.steps:
        levels = np.linspace(step.sigma_in, step.sigma_out, parts + 1)[1:-1].tolist()
        edges = [step.sigma_in, *levels, step.sigma_out]
        steps += [replace(step, sigma_in=a, sigma_out=b) for a, b in pairwise(edges)]
    return replace(
        plan, stages=(StageSpec(name="fine", steps=tuple(steps)),), plugins=(), short=None
    )


def telling(plan: Plan, told: Sequence[float]) -> Plan:
    """The plan that tells the network these levels."""
    spec = PluginSpec(name="timestep_aligner", options={"sigmas": list(told)})
    others = tuple(other for other in plan.plugins if other.name != spec.name)
    return replace(plan, plugins=(*others, spec))


class ToManySteps:
    """How far, as a mean square, a plan's latents lie from those of many steps."""

    def __init__(self, model: Model, plan: Plan, clips: Sequence[CaughtClip], parts: int) -> None:
        """Make the many-step result once."""
        self._model, self._plan, self._clips = model, plan, clips
        self._wanted = clean_latents(model, finer(plan, parts), clips)

    def __call__(self, told: Sequence[float]) -> float:
        """The distance with these levels."""
        made = clean_latents(self._model, telling(self._plan, told), self._clips)
        return float((made - self._wanted).square().mean())


def caught_clips(
    model: Model, plan: Plan, *, count: int, num_chunks: int, seed: int, first_s: float
) -> list[CaughtClip]:
    """Clips of the model's own portraits and speech, from this second of it on.

    Raises:
        InputError: the model brings no portraits or too little speech.
    """
    portraits = sorted((model.folder / "portraits").glob("*.png"))
    speech = model.folder / "speech.flac"
    if not portraits or not speech.is_file():
        raise InputError(f"{model.folder} brings no portraits or speech.flac: use another model")
    last_s = first_s + (num_chunks + 1) * CHUNK_S
    sound = sound_between(speech, first_s, last_s)
    clips = [
        catch_clip(
            model, plan, portraits[(seed + k) % len(portraits)], sound,
            seed=seed + k, num_chunks=num_chunks,
        )
        for k in range(count)
    ]  # fmt: skip
    if any(len(clip.works) < num_chunks for clip in clips):
        raise InputError(f"{speech} is too short for {num_chunks} chunks: ask for fewer")
    return clips


def run(options: argparse.Namespace) -> None:
    """Fit the levels, say what they bring on clips that were not fitted, write the table."""
    model = load_model(options.model)
    plan = load_plan(options.plan or model.config.plan)
    start = tuple(step.sigma_in for step in plan.steps)
    asked = {"count": options.count, "num_chunks": options.chunks}
    fitted = caught_clips(model, plan, **asked, seed=options.seed, first_s=0.0)
    distance = ToManySteps(model, plan, fitted, options.fineness)
    fit = fit_levels(distance, start)
    held_out = caught_clips(
        model, plan, **asked, seed=options.seed + 1000, first_s=(options.chunks + 1) * CHUNK_S
    )
    check = ToManySteps(model, plan, held_out, options.fineness)
    options.out.write_text(TimestepTable(sigmas=start, told=fit.told).to_json(), encoding="utf-8")
    apart = check(start), check(fit.told)
    sys.stdout.write(
        f"told {', '.join(f'{level:.4f}' for level in fit.told)}\n"
        f"mean square distance to {options.fineness} times as many steps: "
        f"fitted clips {fit.before:.5f} -> {fit.after:.5f}, "
        f"others {apart[0]:.5f} -> {apart[1]:.5f}\n"
    )
