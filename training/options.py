"""The options of all data and training commands: one vocabulary, parsed before torch is loaded.

`--out` is what a command writes, `--run` the folder a training run lives in, `--count` how many
things to make; other names say what a command reads. Whatever cannot be is refused here.
"""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from training.errors import InputError, reason

MAX_SEED = 2**63 - 1
Parser = argparse.ArgumentParser


class OneLineParser(argparse.ArgumentParser):
    """A parser that raises what is wrong as one InputError instead of printing its usage."""

    def error(self, message: str) -> NoReturn:
        """Refuse."""
        raise InputError(f"{message}; see {self.prog} --help")


def whole(low: int, high: int) -> Callable[[str], int]:
    """A whole number of that range."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not (low <= value <= high and len(text) < 32 and text.isascii()):
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is no whole number of {low}..{high}")
        return value

    return parse


def number(low: float, high: float) -> Callable[[str], float]:
    """A finite number of that range."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is no number of {low:g}..{high:g}")
        return value

    return parse


def folder(text: str) -> Path:
    """A folder that is there."""
    if not _is(Path.is_dir, text):
        raise argparse.ArgumentTypeError(f"{text!r} is no folder: name one that exists")
    return Path(text)


def file(text: str) -> Path:
    """A file that is there."""
    if not _is(Path.is_file, text):
        raise argparse.ArgumentTypeError(f"{text!r} is no file: name one that exists")
    return Path(text)


def out_folder(text: str) -> Path:
    """A folder that is there or can be made."""
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is no path")
    if _is(Path.exists, text) and not _is(Path.is_dir, text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a folder: name another")
    return Path(text)


def out_file(text: str) -> Path:
    """A path where a file can be written; its folder is made when it is."""
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is no path")
    if _is(Path.is_dir, text):
        raise argparse.ArgumentTypeError(f"{text!r} is a folder: name a file")
    return Path(text)


def _is(question: Callable[[Path], bool], text: str) -> bool:
    """Ask a path; what no file system could hold is nothing."""
    try:
        return bool(text) and question(Path(text))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text[:80]!r}: {reason(error)}") from error


def run_options(parser: Parser, *, steps: int, batch: int, rate: float) -> None:
    """The options of every training run, with this run's defaults."""
    parser.add_argument(
        "--run", type=out_folder, required=True, metavar="DIR", help="the run's state, log, curves"
    )
    parser.add_argument(
        "--steps", type=whole(0, 10**8), default=steps, help=f"steps of the whole run ({steps})"
    )
    _minutes(parser)
    parser.add_argument(
        "--batch", type=whole(1, 4096), default=batch, help=f"examples a step ({batch})"
    )
    _seed(parser, 0)
    _may_read(parser, "--init", file, "weights to begin from, to fine-tune them")
    parser.add_argument(
        "--rate",
        type=number(1e-8, 1),
        default=rate,
        metavar="R",
        help=f"peak learning rate ({rate:g}); a tenth of it to fine-tune",
    )


def _minutes(parser: Parser) -> None:
    parser.add_argument(
        "--minutes",
        type=number(0, 1e9),
        default=1e9,
        metavar="N",
        help="end this slice after so long; the same command goes on (no limit)",
    )


def _seed(parser: Parser, default: int) -> None:
    parser.add_argument(
        "--seed",
        type=whole(0, MAX_SEED),
        default=default,
        metavar="N",
        help=f"same seed, same result ({default})",
    )


def _count(
    parser: Parser, what: str, *aliases: str, default: int | None = None, dest: str = "count"
) -> None:
    parser.add_argument(
        "--count",
        *aliases,
        dest=dest,
        type=whole(1, 10**8),
        required=default is None,
        default=default,
        metavar="N",
        help=what if default is None else f"{what} ({default})",
    )


def _split(parser: Parser) -> None:
    parser.add_argument(
        "--split",
        choices=("train", "validation"),
        default="train",
        help="voices and sentences of training, or those held out from it (train)",
    )


def _reads(
    parser: Parser, name: str, kind: Callable[[str], Path], what: str, *aliases: str
) -> None:
    metavar = "DIR" if kind is folder else "FILE"
    parser.add_argument(name, *aliases, type=kind, required=True, metavar=metavar, help=what)


def _may_read(parser: Parser, name: str, kind: Callable[[str], Path], what: str) -> None:
    parser.add_argument(
        name, type=kind, default=None, metavar="DIR" if kind is folder else "FILE", help=what
    )


def _writes(parser: Parser, kind: Callable[[str], Path], what: str, *, needed: bool = True) -> None:
    parser.add_argument(
        "--out",
        type=kind,
        required=needed,
        default=None,
        metavar="DIR" if kind is out_folder else "FILE",
        help=what,
    )


def data_speech(parser: Parser) -> None:
    """Options of `data speech`."""
    _writes(parser, out_folder, "folder for the shards; finished ones are kept")
    _count(parser, "utterances in all", default=3000)
    _seed(parser, 0)
    _split(parser)
    parser.add_argument(
        "--per-shard", type=whole(1, 10**5), default=250, metavar="N", help="utterances each (250)"
    )
    parser.add_argument(
        "--flite-share",
        type=number(0, 1),
        default=0.25,
        metavar="SHARE",
        help="share of utterances that flite's voices speak, 0 to 1 (0.25)",
    )
    _minutes(parser)


def data_make(parser: Parser) -> None:
    """Options of `data make`."""
    _writes(parser, out_folder, "folder for the shards; finished ones are kept")
    _count(parser, "clips in all", "--clips", dest="clips")
    _seed(parser, 1)
    parser.add_argument(
        "--domain",
        choices=("heads", "drawn"),
        default="heads",
        help="3-D heads or drawings (heads)",
    )
    _may_read(parser, "--facekit", folder, "the heads' shapes; drawings need none")
    _may_read(parser, "--corpus", folder, "speech to perform, instead of fresh utterances")
    parser.add_argument(
        "--first", type=whole(0, 10**8), default=0, metavar="N", help="first clip to make (0)"
    )
    _split(parser)
    _minutes(parser)


def data_align(parser: Parser) -> None:
    """Options of `data align`."""
    _reads(parser, "--audio", folder, "folder of .wav or .flac files, each with a .txt")
    _writes(parser, out_folder, "folder for the shards")
    parser.add_argument(
        "--per-shard", type=whole(1, 10**5), default=250, metavar="N", help="utterances each (250)"
    )
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out recordings that cannot be used"
    )


def data_facekit(parser: Parser) -> None:
    """Options of `data facekit`."""
    _reads(parser, "--ict", folder, "a clone of ICT-VGL/ICT-FaceKit")
    _reads(parser, "--hair", folder, "a clone of makehumancommunity/makehuman-assets")
    _writes(parser, out_folder, "folder for the kit")


def data_show(parser: Parser) -> None:
    """Options of `data show`."""
    parser.add_argument("folder", type=folder, metavar="DIR", help="folder of clips")
    _writes(parser, out_file, "picture to write")
    parser.add_argument("--rows", type=whole(1, 1000), default=12, metavar="N", help="clips (12)")


def data_portraits(parser: Parser) -> None:
    """Options of `data portraits`."""
    _reads(parser, "--facekit", folder, "folder of the face kit")
    parser.add_argument(
        "--out", type=out_folder, default=Path("configs/models/pocket/portraits"), metavar="DIR"
    )


def train_speech(parser: Parser) -> None:
    """Options of `train speech`."""
    _reads(parser, "--corpus", folder, "shards of `data speech`")
    _may_read(parser, "--held-out", folder, "shards to measure on")
    _writes(parser, out_file, "speech.safetensors to write", needed=False)
    run_options(parser, steps=2500, batch=12, rate=2e-3)


def train_codec(parser: Parser) -> None:
    """Options of `train codec`."""
    _reads(parser, "--clips", folder, "shards of `data make`")
    _writes(parser, out_file, "weights to write", needed=False)
    parser.add_argument(
        "--core-shards",
        type=whole(1, 10**6),
        default=40,
        metavar="N",
        help="shards from which the linear core is found (40)",
    )
    _may_read(parser, "--core", file, "a codec's weights whose linear core is kept")
    _may_read(parser, "--begin-from", file, "an earlier codec's weights, taken over as they fit")
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        choices=("portrait", "refiner", "mouth", "eyes"),
        help="train these parts and leave the others as they are (all)",
    )
    run_options(parser, steps=6000, batch=8, rate=1.5e-3)


def train_painter(parser: Parser) -> None:
    """Options of `train painter`."""
    _reads(parser, "--clips", folder, "shards of `data make`")
    _writes(parser, out_file, "weights to write", needed=False)
    parser.add_argument(
        "--region", default="mouth", choices=("mouth", "eyes"), help="what to paint (mouth)"
    )
    parser.add_argument(
        "--passes",
        type=whole(1, 100),
        default=2,
        metavar="N",
        help="how often each clip is looked at, in other colours (2)",
    )
    run_options(parser, steps=6000, batch=8, rate=1.5e-3)


def train_latents(parser: Parser) -> None:
    """Options of `train latents`."""
    _reads(parser, "--clips", folder, "shards of `data make`")
    _reads(parser, "--codec", file, "a codec's weights; its linear core is enough")
    _reads(parser, "--speech", file, "the speech encoder's weights")
    _writes(parser, out_file, "latents to write")


def train_prior(parser: Parser) -> None:
    """Options of `train prior`."""
    _reads(parser, "--latents", file, "what `train latents` wrote")
    _may_read(parser, "--held-out", file, "latents to measure on")
    _reads(parser, "--codec", file, "the codec's weights, as for `train latents`")
    _writes(parser, out_folder, "folder for prior.safetensors and codec.safetensors", needed=False)
    run_options(parser, steps=3000, batch=16, rate=2e-3)


def train_base(parser: Parser) -> None:
    """Options of `train base`."""
    _reads(parser, "--latents", file, "what `train latents` wrote")
    _may_read(parser, "--held-out", file, "latents to measure on")
    _reads(parser, "--parts", folder, "folder that `train prior` wrote", "--prior")
    _writes(parser, out_file, "dit.safetensors to write", needed=False)
    run_options(parser, steps=8000, batch=12, rate=8e-4)


def train_assemble(parser: Parser) -> None:
    """Options of `train assemble`."""
    _reads(parser, "--parts", folder, "folder of codec, dit, prior and speech.safetensors")
    _may_read(parser, "--painter", file, "the codec that `train codec` or `train painter` wrote")
    parser.add_argument(
        "--expression",
        type=number(0.5, 2.0),
        default=1.0,
        metavar="GAIN",
        help="how much larger facial motion shall be than what was learnt (1)",
    )
    _writes(parser, out_folder, "model folder to write")


def train_measure(parser: Parser) -> None:
    """Options of `train measure`."""
    _reads(parser, "--clips", folder, "held-out shards of `data make`")
    _reads(parser, "--codec", file, "the codec's weights")
    parser.add_argument("--sheet", type=out_file, default=None, metavar="FILE", help="picture")
    parser.add_argument(
        "--batches", type=whole(1, 10**6), default=12, metavar="N", help="how much to measure (12)"
    )


def train_timesteps(parser: Parser) -> None:
    """Options of `train timesteps`."""
    parser.add_argument("--model", default="pocket", metavar="NAME|DIR", help="model (pocket)")
    parser.add_argument("--plan", default="", metavar="NAME|FILE", help="plan (the model's)")
    parser.add_argument(
        "--count", type=whole(1, 64), default=4, metavar="N", help="clips to fit to (4)"
    )
    parser.add_argument(
        "--chunks", type=whole(1, 64), default=4, metavar="N", help="chunks of each clip (4)"
    )
    parser.add_argument(
        "--fineness",
        type=whole(2, 64),
        default=8,
        metavar="N",
        help="how many steps for each of the plan's make the result to come near to (8)",
    )
    _seed(parser, 0)
    _writes(parser, out_file, "table to write, such as MODEL/timesteps.json")


def train_report(parser: Parser) -> None:
    """Options of `train report`."""
    parser.add_argument("run", type=folder, metavar="RUN", help="folder of a training run")
    _writes(parser, out_file, "picture to write (RUN/curves.png)", needed=False)


def train_all(parser: Parser) -> None:
    """Options of `train all`."""
    parser.add_argument("--recipe", required=True, metavar="NAME|FILE", help="what to make")
    parser.add_argument(
        "--workspace", type=out_folder, required=True, metavar="DIR", help="where all of it lies"
    )
    _may_read(parser, "--facekit", folder, "folder of the face kit, for clips of 3-D heads")
    _minutes(parser)
    parser.add_argument("--list", action="store_true", help="only say what is finished")
