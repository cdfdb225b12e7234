"""What a user writes on the command line as values: parsed here once, or refused in one line."""

import re
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal, TypeVar, get_args

from pipeline.cast import find_portrait
from pipeline.catalog import model_path
from pipeline.device import Cluster, parse_devices
from pipeline.plan_mode import Mode
from video.crop import Crop, parse_crop
from video.frame_choice import FRAME_CHOICES, FrameChoice

MIN_SIDE_PX, MAX_SIDE_PX = 64, 2048
MIN_FPS, MAX_FPS = 1, 60
MAX_SEED = 2**63 - 1
MAX_RENDER_S = 1_000_000
MAX_STAGES = 64
MAX_SPARES = 16
PORTRAIT_HELP = "A face: PNG, JPEG, WebP, or a name from viva model info."

ChainKind = Literal["local", "ray"]
Strategy = Literal["pack", "spread"]
Choice = TypeVar("Choice", bound=str)

_SIZE = re.compile(r"([0-9]{1,5})[xX]([0-9]{1,5})")
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_RATIO = re.compile(r"[0-9]{1,9}/[0-9]{1,9}")


class OptionError(ValueError):
    """An option cannot be used: one line naming the option and the remedy."""


def parse_size(text: str) -> tuple[int, int]:
    """Width and height in pixels from `WxH`: even, and what a portrait can be."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise OptionError(f"--size {text[:40]!r} is not understood: write WxH such as 512x512")
    width, height = int(match[1]), int(match[2])
    if not all(MIN_SIDE_PX <= side <= MAX_SIDE_PX for side in (width, height)):
        raise OptionError(
            f"--size {text[:40]} is out of range: choose sides of {MIN_SIDE_PX}..{MAX_SIDE_PX}"
        )
    if width % 2 or height % 2:
        even = f"{width + width % 2}x{height + height % 2}"
        raise OptionError(f"--size {text[:40]} is odd: H.264 needs even sides such as {even}")
    return width, height


def parse_fps(text: str) -> Fraction:
    """Pictures per second from `25`, `29.97` or `30000/1001`, exactly as written."""
    word = text.strip()
    if not (_NUMBER.fullmatch(word) or _RATIO.fullmatch(word)):
        raise OptionError(
            f"--fps {text[:40]!r} is not understood: write a number such as 25 or 30000/1001"
        )
    try:
        fps = Fraction(word)
    except ZeroDivisionError:
        raise OptionError(f"--fps {text[:40]} divides by zero: write 30000/1001 or 25") from None
    if not MIN_FPS <= fps <= MAX_FPS:
        raise OptionError(f"--fps {text[:40]} is out of range: choose {MIN_FPS}..{MAX_FPS}")
    return fps


def parse_seconds(text: str) -> Fraction:
    """A positive time in seconds from `90` or `2.5`."""
    word = text.strip()
    seconds = Fraction(word) if _NUMBER.fullmatch(word) else Fraction(0)
    if not 0 < seconds <= MAX_RENDER_S:
        raise OptionError(
            f"--max-seconds {text[:40]!r} is not understood: write seconds above 0 such as 90"
        )
    return seconds


def parse_seed(text: str) -> int:
    """A seed of at most 63 bits."""
    word = text.strip()
    if not re.fullmatch(r"[0-9]{1,19}", word) or int(word) > MAX_SEED:
        raise OptionError(f"--seed {text[:40]!r} is not understood: write an integer 0..{MAX_SEED}")
    return int(word)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainRequest:
    """Where a plan's stages run; None stands for the planner's, the machine's or Ray's own choice.

    `stages` is into how many the steps are cut, `strategy` whether they keep to few nodes,
    `address` a Ray cluster's, `spares` how many workers wait to take a dead one's place.
    """

    kind: ChainKind = "local"
    stages: int | None = None
    devices: Cluster | None = None
    strategy: Strategy = "pack"
    address: str | None = None
    spares: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderRequest:
    """What to render; None stands for the model's own choice, or for no limit.

    `size` is width and height in pixels, `fps` pictures per second. `mode` picks the plan where
    none is named, and refuses one of the other mode. `chain` says where the plan's stages run.
    `preview` is the step after which to show small pictures and stop.
    """

    portrait: Path
    audio: Path
    out: Path
    model: str = "pocket"
    plan: str | None = None
    mode: Mode | None = None
    seed: int = 0
    size: tuple[int, int] | None = None
    fps: Fraction | None = None
    crop: Crop = field(default_factory=Crop)
    frame: FrameChoice = "auto"
    max_seconds: Fraction | None = None
    overwrite: bool = False
    chain: ChainRequest = field(default_factory=ChainRequest)
    trace: Path | None = None
    stats: bool = False
    preview: int | None = None


def parse_mode(text: str) -> Mode:
    """What a plan is for, from `live` or `render`."""
    return choose("--mode", text, get_args(Mode))


def parse_preview(text: str) -> int:
    """A step of a plan, from `0` up."""
    word = text.strip()
    if not re.fullmatch(r"[0-9]{1,4}", word):
        raise OptionError(
            f"--preview {text[:40]!r} is not understood: write the number of a step, from 0"
        )
    return int(word)


def parse_crop_option(text: str) -> Crop:
    """What part of the picture to show, from `auto`, `center`, `none` or `x,y,w,h`."""
    try:
        return parse_crop(text)
    except ValueError as error:
        raise OptionError(f"--crop: {error}") from error


def parse_frame(text: str) -> FrameChoice:
    """What the video shows, from `auto`, `face` or `portrait`."""
    for choice in FRAME_CHOICES:
        if text.strip().lower() == choice:
            return choice
    raise OptionError(f"--frame {text[:40]!r} is not understood: use {', '.join(FRAME_CHOICES)}")


def parse_chain(
    kind: str, *, stages: str, devices: str, strategy: str, address: str, spares: str
) -> ChainRequest:
    """Where the stages run; options that are empty are left to others.

    Raises:
        OptionError, PlanError: one line naming the option and the remedy.
    """
    chosen: ChainKind = choose("--chain", kind, get_args(ChainKind))
    remote = {
        "--devices": devices,
        "--ray-address": address,
        "--spares": spares,
        "--strategy": strategy,
    }
    for option, text in remote.items():
        if text and chosen == "local":
            raise OptionError(f"{option} is for stages in processes of their own: add --chain ray")
    return ChainRequest(
        kind=chosen,
        stages=parse_stages(stages) if stages else None,
        devices=parse_devices(devices) if devices else None,
        strategy=choose("--strategy", strategy, get_args(Strategy)) if strategy else "pack",
        address=address or None,
        spares=_parse_spares(spares) if spares else None,
    )


def choose(option: str, text: str, choices: tuple[Choice, ...]) -> Choice:
    """One of a few words."""
    for choice in choices:
        if text.strip().lower() == choice:
            return choice
    raise OptionError(f"{option} {text[:40]!r} is not understood: use {', '.join(choices)}")


def _parse_spares(text: str) -> int:
    """A number of spare workers from `0` up."""
    word = text.strip()
    if not re.fullmatch(r"[0-9]{1,2}", word) or int(word) > MAX_SPARES:
        raise OptionError(
            f"--spares {text[:40]!r} is not understood: write an integer 0..{MAX_SPARES}"
        )
    return int(word)


def parse_stages(text: str) -> int:
    """A number of stages from `1` up."""
    word = text.strip()
    if not re.fullmatch(r"[0-9]{1,3}", word) or not 1 <= int(word) <= MAX_STAGES:
        raise OptionError(
            f"--stages {text[:40]!r} is not understood: write an integer 1..{MAX_STAGES}"
        )
    return int(word)


def parse_portrait(text: str, model: str) -> Path:
    """The portrait's file from a path, or from a name of the model's cast.

    Raises:
        ModelError: an unknown name, or the model's cast cannot be read.
    """
    require_path("--portrait", text, "face.png")
    return find_portrait(text, model_path(model))


def require_path(option: str, text: str, example: str) -> Path:
    """A path that was given at all."""
    if not text:
        raise OptionError(f"{option} is missing: name a file, such as {option} {example}")
    if "\0" in text:
        raise OptionError(f"{option} {text[:40]!r} is no path: remove the NUL character")
    return Path(text)
