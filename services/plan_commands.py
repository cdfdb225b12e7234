"""`viva plan`: what a plan would need and do on given devices, before anything runs."""

import json
import re
from typing import Annotated, Literal, get_args

import typer

from services.options import OptionError, Strategy, choose, parse_fps, parse_size
from services.terminal import drawn, write

DecoderChoice = Literal["auto", "own", "share"]

MAX_SESSIONS = 10_000
MAX_STAGES = 64
_TIME = re.compile(r"[0-9]{1,7}(\.[0-9]{1,6})?")

plan_app = typer.Typer(help="Look at plans and where they fit.", no_args_is_help=True)


def _option(name: str, metavar: str, text: str) -> object:
    """An option whose value is parsed by us, so that errors are ours."""
    return typer.Option(f"--{name}", metavar=metavar, help=text, show_default=False)


@plan_app.command("list")
def plan_list(
    as_json: Annotated[bool, typer.Option("--json", help="Print the names as JSON.")] = False,
) -> None:
    """List the plans that come with the program."""
    from pipeline.catalog import shipped_plans
    from services.plan_report import plan_table

    if as_json:
        write(json.dumps(shipped_plans()) + "\n")
    else:
        write(drawn(plan_table()))


@plan_app.command("show")
def plan_show(  # noqa: PLR0913 - one parameter per option
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="A plan's name, or its file.")],
    model: Annotated[
        str, _option("model", "NAME|DIR|JSON", "Model or its config. (default: pocket)")
    ] = "pocket",
    devices: Annotated[
        str,
        _option("devices", "LIST", "Such as cpu:2 or 'cuda:80GiB x5'. (default: this machine)"),
    ] = "",
    sessions: Annotated[str, _option("sessions", "N", "Sessions at once. (default: 1)")] = "1",
    stages: Annotated[str, _option("stages", "N", "Stages. (default: what is fastest)")] = "",
    size: Annotated[str, _option("size", "WxH", "Pictures. (default: the model's)")] = "",
    fps: Annotated[str, _option("fps", "N", "Pictures a second. (default: the model's)")] = "",
    decoder: Annotated[
        str, _option("decoder", "auto|own|share", "A device of its own? (default: auto)")
    ] = "auto",
    strategy: Annotated[
        str, _option("strategy", "pack|spread", "Few nodes, or all. (default: pack)")
    ] = "pack",
    step_ms: Annotated[
        str, _option("step-ms", "MS[,MS...]", "Measured time of a step, or of each.")
    ] = "",
    decode_ms: Annotated[str, _option("decode-ms", "MS", "Measured time of the decoder.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Draw a plan's chain: its steps, where they would run, and whether that is real time."""
    from pipeline.device import parse_devices
    from services.plan_report import PlanQuestion, answer, as_record, renderable

    question = PlanQuestion(
        plan=plan,
        model=model,
        cluster=parse_devices(devices) if devices else None,
        num_sessions=_parse_count("sessions", sessions, MAX_SESSIONS),
        num_stages=_parse_count("stages", stages, MAX_STAGES) if stages else None,
        size=parse_size(size) if size else None,
        fps=parse_fps(fps) if fps else None,
        decoder=choose("--decoder", decoder, get_args(DecoderChoice)),
        strategy=choose("--strategy", strategy, get_args(Strategy)),
        step_ms=tuple(_parse_ms("step-ms", part) for part in step_ms.split(",")) if step_ms else (),
        decode_ms=_parse_ms("decode-ms", decode_ms) if decode_ms else None,
    )
    found = answer(question)
    write(json.dumps(as_record(found)) + "\n" if as_json else drawn(renderable(found)))


def _parse_count(name: str, text: str, largest: int) -> int:
    """A whole number from `1` up."""
    word = text.strip()
    if not re.fullmatch(r"[0-9]{1,5}", word) or not 1 <= int(word) <= largest:
        raise OptionError(
            f"--{name} {text[:40]!r} is not understood: write an integer 1..{largest}"
        )
    return int(word)


def _parse_ms(name: str, text: str) -> float:
    """A time in milliseconds above zero."""
    word = text.strip()
    if not _TIME.fullmatch(word) or not float(word):
        raise OptionError(
            f"--{name} {text[:40]!r} is not understood: write milliseconds above 0 such as 61.5"
        )
    return float(word)
