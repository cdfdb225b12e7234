"""`viva data …` and `viva train …`: which program does what, found without loading any of them.

Every program is a module with `run(options)`; `python -m training.x` is the same command.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

from training import options
from training.errors import InputError, reason

Options = Callable[[argparse.ArgumentParser], None]
GROUPS = {
    "data": "Make and look at training data.",
    "train": "Train the parts of a model, one by one or all of them.",
}
_OURS = frozenset({"audio", "video", "pipeline", "services", "training"})


@dataclass(frozen=True, slots=True)
class Command:
    """One program: the function `module:function` given the parsed options."""

    summary: str
    options: Options
    program: str


COMMANDS = {
    "data": {
        "speech": Command(
            "make speech with exact mouths", options.data_speech, "training.corpus:run"
        ),
        "make": Command("make clips of talking faces", options.data_make, "training.data:make"),
        "align": Command(
            "make speech of recordings and their texts",
            options.data_align,
            "training.recordings:main",
        ),
        "facekit": Command(
            "make the face kit of public files",
            options.data_facekit,
            "training.facekit_import:main",
        ),
        "show": Command("draw a contact sheet", options.data_show, "training.data:show"),
        "portraits": Command(
            "draw the shipped portraits", options.data_portraits, "training.data:portraits"
        ),
    },
    "train": {
        "all": Command(
            "from an empty folder to a model folder", options.train_all, "training.whole:run"
        ),
        "speech": Command("the speech encoder", options.train_speech, "training.speech:run"),
        "codec": Command("the motion codec", options.train_codec, "training.codec:run"),
        "painter": Command("one painter of a codec", options.train_painter, "training.painter:run"),
        "latents": Command(
            "turn clips into latents", options.train_latents, "training.latents:run"
        ),
        "prior": Command("sound to facial motion", options.train_prior, "training.prior:run"),
        "base": Command("the diffusion transformer", options.train_base, "training.base:run"),
        "assemble": Command(
            "put parts together as a model", options.train_assemble, "training.assemble:run"
        ),
        "measure": Command(
            "figures of a codec on held-out clips", options.train_measure, "training.report:run"
        ),
        "timesteps": Command(
            "what few-step plans tell the network",
            options.train_timesteps,
            "training.timesteps:run",
        ),
        "report": Command("draw a run's curves", options.train_report, "training.curves:run"),
    },
}


def build_parser(group: str) -> argparse.ArgumentParser:
    """The parser of one group's commands."""
    parser = options.OneLineParser(prog=f"viva {group}", description=GROUPS[group])
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, command in COMMANDS[group].items():
        child = commands.add_parser(
            name, help=command.summary, description=command.summary, allow_abbrev=False
        )
        command.options(child)
        child.set_defaults(command=command)
    return parser


def dispatch(group: str, arguments: Sequence[str]) -> None:
    """Parse a group's arguments and run the command they name.

    Raises:
        ValueError: a type of ours that says in one line what was wrong and what to do.
    """
    parser = build_parser(group)
    if not arguments:
        parser.print_help()
        return
    parsed = parser.parse_args(arguments)
    module, function = parsed.command.program.split(":")
    try:
        program = getattr(import_module(module), function)
        if function == "main":  # a program that parses the same options itself
            sys.argv = [f"viva {group} {arguments[0]}", *arguments[1:]]
            program()
        else:
            program(parsed)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in _OURS:
            raise
        raise InputError(
            f"viva {group} needs {error.name}: install it with pip install -e '.[train]'"
        ) from error
    except OSError as error:
        raise InputError(f"{error.filename or 'file system'}: {reason(error)}") from error
    except ValueError as error:
        if type(error).__module__.split(".")[0] not in _OURS:
            raise  # a mistake of ours, which deserves its traceback
        raise InputError(str(error)) from error


def main(group: str, *command: str) -> None:
    """Be `viva GROUP COMMAND` with this process's arguments."""
    from services import cli

    sys.argv = ["viva", group, *command, *sys.argv[1:]]
    cli.main()
