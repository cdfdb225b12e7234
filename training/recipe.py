"""A recipe: all numbers from an empty folder to a model folder, as a YAML file.

Those that come with the program are named, `training/recipes/NAME.yaml`; others given by path.
"""

import json
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from training.errors import InputError, reason

RECIPES = Path(__file__).parent / "recipes"
MAX_RECIPE_BYTES = 1 << 16

Count = Annotated[int, Field(ge=1, le=10**7)]
Number = Annotated[int, Field(ge=0, le=10**7)]
Rate = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Speech(_Part):
    """How many utterances of training and of held-out voices, and flite's share of them."""

    utterances: Count
    held_out: Count
    flite_share: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0


class Clips(_Part):
    """How many clips of 3-D heads and of drawings, to train on and held out."""

    heads: Number = 0
    drawn: Number = 0
    held_out_heads: Number = 0
    held_out_drawn: Number = 0

    @model_validator(mode="after")
    def _some(self) -> "Clips":
        if not self.heads + self.drawn:
            raise ValueError("heads and drawn are both 0: make some clips")
        if not self.held_out_heads + self.held_out_drawn:
            raise ValueError("held_out_heads and held_out_drawn are both 0: hold some out")
        return self


class Run(_Part):
    """Steps and batch of one training run."""

    steps: Number
    batch: Annotated[int, Field(ge=1, le=4096)]


class CodecRun(Run):
    """A codec's run; the linear core is found from `core_shards` shards."""

    rate: Rate = 1.5e-3
    core_shards: Count = 40


class PainterRun(Run):
    """A painter's run, for which every clip is looked at `passes` times."""

    rate: Rate = 1.5e-3
    passes: Count = 2


class BaseRun(Run):
    """The transformer's run."""

    rate: Rate = 8e-4


class Recipe(_Part):
    """Everything `viva train all` needs to know; `bounds` are figures and where they must lie."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    about: str
    seed: Annotated[int, Field(ge=0, le=2**31)] = 0
    speech: Speech
    clips: Clips
    encoder: Run
    codec: CodecRun
    mouth: PainterRun | None = None
    prior: Run
    base: BaseRun
    expression: Annotated[float, Field(ge=0.5, le=2, allow_inf_nan=False)] = 1.0
    bounds: dict[str, tuple[Finite, Finite]] = {}


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the program."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(name: str) -> Recipe:
    """The recipe of that shipped name, or in the file of that path.

    Raises:
        InputError: nothing is found there, or the file does not describe a recipe.
    """
    shipped = name in shipped_recipes()
    path = RECIPES / f"{name}.yaml" if shipped else Path(name)
    try:
        if not path.is_file():
            known = ", ".join(shipped_recipes())
            raise InputError(f"no recipe {name!r}: use one of {known}, or the path of a YAML file")
        if path.stat().st_size > MAX_RECIPE_BYTES:
            raise InputError(f"{path} is larger than {MAX_RECIPE_BYTES} bytes: not a recipe")
        return parse_recipe(path.read_text(encoding="utf-8"), source=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"recipe {name!r} cannot be read ({reason(error)})") from error


def parse_recipe(text: str, *, source: str) -> Recipe:
    """The recipe written in `text`; `source` names it in errors.

    Raises:
        InputError: names the source, the field and what is wrong with it.
    """
    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise ValueError("aliases are not allowed")  # they can unfold without end
        as_json = json.dumps(yaml.safe_load(text))
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        words = " ".join(str(error).split())
        raise InputError(f"recipe {source} is not plain YAML ({words}): fix its syntax") from error
    try:
        return TypeAdapter(Recipe).validate_json(as_json)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"recipe {source}: {place}: {message}") from error
