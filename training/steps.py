"""The steps of a recipe: which commands make which files of a workspace, and when each is done.

speech, speech_held_out   corpora             runs/{speech,codec,prior,base}   state, log, curves
clips, held_out           /heads and /drawn   parts, painter.safetensors       trained weights
latents*.safetensors      what runs learn on  model                            the result
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from training.recipe import Recipe, Run

HELD_OUT_SEED = 900_001  # far from every training seed
CLIPS_PER_SHARD, UTTERANCES_PER_SHARD = 16, 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One command of a recipe; `is_done` looks whether it has made all it should."""

    name: str
    command: tuple[str, ...]
    is_done: Callable[[], bool]
    sliced: bool = True

    def arguments(self, minutes: float) -> list[str]:
        """The command line behind `viva`, which ends by itself after so long if it can."""
        limit = ["--minutes", f"{minutes:.3f}"] if self.sliced else []
        return [*self.command, *limit]


def plan_steps(recipe: Recipe, workspace: Path, facekit: Path | None) -> list[Step]:
    """All steps in order."""
    return [*_data(recipe, workspace, facekit), *_training(recipe, workspace)]


def _data(recipe: Recipe, workspace: Path, facekit: Path | None) -> list[Step]:
    seed, clips = recipe.seed, recipe.clips
    steps = []
    for name, count, split in (
        ("speech", recipe.speech.utterances, "train"),
        ("speech_held_out", recipe.speech.held_out, "validation"),
    ):
        share = str(recipe.speech.flite_share)
        out = workspace / name
        options = _words(out=out, count=count, seed=seed, split=split, flite_share=share)
        shards = -(-count // UTTERANCES_PER_SHARD)
        steps.append(
            Step(name=name, command=("data", "speech", *options), is_done=_shards(out, shards))
        )
    for domain, count, held_out in (
        ("heads", clips.heads, clips.held_out_heads),
        ("drawn", clips.drawn, clips.held_out_drawn),
    ):
        kit = _words(facekit=facekit) if facekit is not None and domain == "heads" else []
        for folder, number, first_seed, split in (
            ("clips", count, 1, "train"),
            ("held_out", held_out, HELD_OUT_SEED, "validation"),
        ):
            out = workspace / folder / domain
            options = _words(
                out=out, count=number, seed=first_seed + seed, split=split, domain=domain
            )
            step = Step(
                name=f"{folder} {domain}",
                command=("data", "make", *options, *kit),
                is_done=_shards(out, -(-number // CLIPS_PER_SHARD)),
            )
            steps += [step] if number else []
    return steps


def _training(recipe: Recipe, workspace: Path) -> list[Step]:
    runs, parts = workspace / "runs", workspace / "parts"
    core, encoder = runs / "codec" / "core.safetensors", parts / "speech.safetensors"
    painter, model = workspace / "painter.safetensors", workspace / "model"
    mouth = workspace / "mouth.safetensors"
    latents = [workspace / f"{name}.safetensors" for name in ("latents", "latents_held_out")]

    def train(name: str, run: Run, **options: object) -> Step:
        words = _words(**options, run=runs / name, seed=recipe.seed, **run.model_dump())
        done = _trained(runs / name, run.steps)
        return Step(name=f"train {name}", command=("train", name, *words), is_done=done)

    def convert(clips: Path, out: Path) -> Step:
        words = _words(clips=clips, codec=core, speech=encoder, out=out)
        return Step(
            name=out.stem, command=("train", "latents", *words), is_done=out.exists, sliced=False
        )

    sound = {"corpus": workspace / "speech", "held_out": workspace / "speech_held_out"}
    learn = {"latents": latents[0], "held_out": latents[1]}
    mouths: list[Step] = []
    if recipe.mouth is not None:
        mouths = [
            train("painter", recipe.mouth, clips=workspace / "clips", init=painter, out=mouth)
        ]
    painted = mouth if mouths else painter
    assembled = _words(parts=parts, painter=painted, out=model, expression=recipe.expression)
    return [
        train("speech", recipe.encoder, **sound, out=encoder),
        train("codec", recipe.codec, clips=workspace / "clips", out=painter),
        *mouths,
        convert(workspace / "clips", latents[0]),
        convert(workspace / "held_out", latents[1]),
        train("prior", recipe.prior, **learn, codec=core, out=parts),
        train("base", recipe.base, **learn, parts=parts, out=parts / "dit.safetensors"),
        Step(
            name="assemble",
            command=("train", "assemble", *assembled),
            is_done=(model / "codec.safetensors").exists,
            sliced=False,
        ),
    ]


def _words(**options: object) -> list[str]:
    """Options as words of a command line."""
    words: list[str] = []
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return words


def _shards(folder: Path, count: int) -> Callable[[], bool]:
    return lambda: len(list(folder.glob("*.npz"))) >= count


def _trained(run: Path, steps: int) -> Callable[[], bool]:
    return lambda: steps_of(run) >= steps


def steps_of(run: Path) -> int:
    """How many steps a run's saved state has behind it, -1 without one."""
    try:
        with safe_open(run / "state.safetensors", framework="np") as file:
            return int(file.get_tensor("step"))
    except (OSError, SafetensorError):
        return -1
