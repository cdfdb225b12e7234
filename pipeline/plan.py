"""Which denoising steps run, in what order, cut into which stages.

A plan is data (`configs/plans/*.yaml`); the unrolled chain it describes is defined in
docs/structure.md. Every placement of one plan gives the same numbers.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from pipeline.catalog import is_bare_name, plan_path, shipped_plans
from pipeline.errors import PlanError
from pipeline.route import LEVEL_TOLERANCE, Leg, ShortRoute, arriving_level, legs_through
from video.hinge import factor

Rule = Literal["euler", "renoise"]

# The longest plan imaginable is a tenth of this; reading YAML takes about a second per 100 kB.
MAX_PLAN_BYTES = 1 << 16
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One denoising step: everything that may change along the noise schedule.

    Sigma 1 is pure noise, 0 is clean. `resolution` scales the latent grid, `adapter` names a LoRA,
    `forecast` allows the step to be extrapolated instead of computed.

    Raises:
        ValueError: a value is out of its range.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    sigma_in: float
    sigma_out: float
    rule: Rule = "euler"
    resolution: float = 1.0
    adapter: str | None = None
    guidance: float = 1.0
    forecast: bool = False

    def __post_init__(self) -> None:
        """Refuse a step that does not lower the noise."""
        if not 0.0 <= self.sigma_out < self.sigma_in <= 1.0:
            raise ValueError(
                f"sigma_in {self.sigma_in} and sigma_out {self.sigma_out} must satisfy "
                "0 <= sigma_out < sigma_in <= 1"
            )
        if self.rule not in ("euler", "renoise"):
            raise ValueError(f"rule {self.rule!r} is unknown: use euler or renoise")
        if not 0.0 < self.resolution <= 1.0:
            raise ValueError(f"resolution {self.resolution} must lie in (0, 1]")
        if not 0.0 <= self.guidance <= 100.0:
            raise ValueError(f"guidance {self.guidance} must lie in [0, 100]")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSpec:
    """A contiguous run of steps on one device; `device` None means the chain's own."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: str
    steps: tuple[Step, ...]
    device: str | None = None

    def __post_init__(self) -> None:
        """Refuse a stage that cannot be addressed or does nothing."""
        _require_name("stage name", self.name)
        if not self.steps:
            raise ValueError(f"stage {self.name} has no steps: list at least one")


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginSpec:
    """A plug-in of a plan by its name in `pipeline/plugins`, with its options."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: str
    options: Mapping[str, bool | int | float | str | list[float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The stages of a chain and the geometry of its chunks, in latent frames.

    `window_frames` is the length of a cache lane's ring, the current chunk included;
    `sink_distance` how far ahead of the current chunk the reference is placed in rotary time
    (None leaves it where it is); `decoder` the device of the decode stage. `short` lets later
    chunks take fewer steps. `plugins` are at work in every step, in this order.

    Raises:
        ValueError: the steps do not descend from 1 to 0 without gaps, or the sizes do not fit.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: str
    stages: tuple[StageSpec, ...]
    frames_per_chunk: int = 3
    window_frames: int = 12
    sink_distance: int | None = 15
    decoder: str | None = None
    short: ShortRoute | None = None
    plugins: tuple[PluginSpec, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a plan that no chain could run."""
        _require_name("name", self.name)
        if not self.stages:
            raise ValueError("stages is empty: list at least one stage")
        names = [stage.name for stage in self.stages]
        repeated = [name for index, name in enumerate(names) if name in names[:index]]
        if repeated:
            raise ValueError(f"stage name {repeated[0]} repeats: give each stage its own")
        _require_descent(self.steps)
        _require_short(self.steps, self.short)
        _require_geometry(self.frames_per_chunk, self.window_frames, self.sink_distance)

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps in order, whatever the cuts."""
        return tuple(step for stage in self.stages for step in stage.steps)

    def legs(self, chunk: int) -> tuple[Leg, ...]:
        """The way of a chunk through the steps: all of them, or the short route's."""
        chosen: tuple[int, ...] = tuple(range(len(self.steps)))
        if self.short is not None and chunk >= self.short.from_chunk:
            chosen = self.short.steps
        return legs_through(self.steps, chosen)

    def first_step(self, stage_index: int) -> int:
        """Index, among all steps, of the first step of a stage."""
        return sum(len(stage.steps) for stage in self.stages[:stage_index])


def _require_name(what: str, name: str) -> None:
    """Refuse names that could not stand in a path or a log line."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{what} {name!r} must be letters, digits, '-', '_' or '.', 64 at most")


def _require_descent(steps: tuple[Step, ...]) -> None:
    """Refuse schedules that do not lead from pure noise to clean without a gap."""
    if steps[0].sigma_in != 1.0:
        raise ValueError(f"the first sigma_in is {steps[0].sigma_in}: start from pure noise, 1.0")
    if steps[-1].sigma_out != 0.0:
        raise ValueError(f"the last sigma_out is {steps[-1].sigma_out}: end clean, at 0.0")
    if steps[-1].resolution != 1.0:
        raise ValueError(
            f"the last step has resolution {steps[-1].resolution}: end at 1, which is decoded"
        )
    for index, (before, after) in enumerate(pairwise(steps)):
        factor(after.resolution / before.resolution)
        arrives = arriving_level(before, after.resolution)
        is_crossing = arrives != before.sigma_out
        if abs(arrives - after.sigma_in) > (LEVEL_TOLERANCE if is_crossing else 0.0):
            crossed = f", {arrives:.7f} after the hinge," if is_crossing else ""
            raise ValueError(
                f"step {index} ends at sigma {before.sigma_out}{crossed} but step {index + 1} "
                f"starts at {after.sigma_in}: make them equal"
            )


def _require_short(steps: tuple[Step, ...], short: ShortRoute | None) -> None:
    """Refuse a short route over steps that are not there, or that ends before the picture does."""
    if short is None:
        return
    if len(short.steps) > len(steps) or short.steps[-1] >= len(steps):
        raise ValueError(
            f"short takes steps {list(short.steps)} of {len(steps)}: choose indices below "
            f"{len(steps)}"
        )
    if steps[short.steps[-1]].resolution != 1.0:
        raise ValueError(
            f"short ends at step {short.steps[-1]}, of a lower resolution: end at full resolution"
        )
    if short.steps[0] != 0:
        raise ValueError("short must begin with step 0, where noise is drawn")


def _require_geometry(chunk: int, window: int, distance: int | None) -> None:
    """Refuse sizes with which the ring could not be addressed."""
    if not 1 <= chunk <= 64:
        raise ValueError(f"frames_per_chunk {chunk} must lie in 1..64")
    if window < chunk or window % chunk or window > 4096:
        raise ValueError(f"window_frames {window} must be a multiple of frames_per_chunk {chunk}")
    if distance is not None and not 0 <= distance <= 4096:
        raise ValueError(f"sink_distance {distance} must lie in 0..4096, or be null")


def load_plan(name: str) -> Plan:
    """The plan of that shipped name, or in the file of that path.

    Raises:
        PlanError: nothing is found there, or the file does not describe a plan.
    """
    path = plan_path(name)
    return parse_plan(_read(path, name), source=str(path))


def _read(path: Path, name: str) -> str:
    """The text of the plan file that `name` stands for, which is small or not a plan."""
    try:
        if not path.is_file():
            known = ", ".join(shipped_plans()) or "none"
            what = "unknown plan" if is_bare_name(name) else "no such plan file"
            raise PlanError(f"{what} {name!r}: use one of {known}, or the path of a YAML file")
        if path.stat().st_size > MAX_PLAN_BYTES:
            raise PlanError(f"plan {path} is larger than {MAX_PLAN_BYTES} bytes: not a plan file")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PlanError(f"plan {path} cannot be read ({reason}): give a text file") from error


def parse_plan(text: str, *, source: str) -> Plan:
    """The plan written in `text`; `source` names it in errors.

    Raises:
        PlanError: names the source, the field and the remedy in one line.
    """
    try:
        as_json = json.dumps(_parse_yaml(text))
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise PlanError(f"plan {source} is not plain YAML ({reason}): fix its syntax") from error
    try:
        return TypeAdapter(Plan).validate_json(as_json, strict=True)
    except ValidationError as error:
        raise PlanError(f"plan {source}: {_first_complaint(error)}") from error


class _PlanLoader(yaml.SafeLoader):
    """Safe YAML less what a plan has no use for: aliases, which can unfold without end."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse an alias before anything is built from it."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # not in the stubs
            raise yaml.MarkedYAMLError(problem="aliases are not read", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key given twice: YAML would keep the last in silence."""
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for key, count in keys.items():
            if count > 1:
                mark = node.start_mark
                raise yaml.MarkedYAMLError(problem=f"{key!r} is given twice", problem_mark=mark)
        return super().construct_mapping(node, deep)


def _parse_yaml(text: str) -> Any:
    """The plain values of a YAML text."""
    return yaml.load(text, _PlanLoader)  # noqa: S506 - a SafeLoader


def _first_complaint(error: ValidationError) -> str:
    """The first thing wrong with a plan as `field: what to do`."""
    details: Any = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in details["loc"]) or "the whole file"
    message = str(details["msg"]).removeprefix("Value error, ")
    if details["type"] == "dataclass_type":
        message = "must be a mapping of fields; see configs/plans/pocket.yaml"
    return " ".join(f"{field}: {message}".split())
