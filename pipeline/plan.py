"""Which denoising steps run, in what order, cut into which stages.

A plan is data (`configs/plans/*.yaml`, read by `pipeline/plan_parse.py`, refused by
`pipeline/plan_rules.py`); the unrolled chain it describes is defined in
docs/structure.md. Every placement of one plan gives the same numbers.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict

from pipeline.plan_mode import Mode
from pipeline.plan_rules import require_coherent
from pipeline.route import Leg, ShortRoute, legs_through
from pipeline.segments import Segments, one_adapter, require_adapter_name
from pipeline.sink_rules import SinkDistance, SinkRefresh
from pipeline.window_spec import WindowSpec
from video.rope import RopeKind, RopeScaling

Rule = Literal["euler", "renoise"]

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
    adapter: Annotated[str | None, BeforeValidator(one_adapter)] = None
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
        require_adapter_name(self.adapter)


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
    (None leaves it where it is, two numbers draw it anew for each step of each chunk); with
    `sink_refresh` generated latents take its place. `rope` places the tokens of steps of another
    resolution than `known_resolution`, the one that the network was trained at. `decoder` is the
    device of the decode stage. `short` lets later
    chunks take fewer steps. `plugins` are at work in every step, in this order. With `windows`,
    chunks are their strides and see what lies in a window instead of a ring. `mode` says whether
    somebody may watch as it is made (live), or only when all is done (render). `segments` give
    steps their adapters by noise level.

    Raises:
        ValueError: the steps do not descend from 1 to 0 without gaps, or the sizes do not fit.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: str
    stages: tuple[StageSpec, ...]
    frames_per_chunk: int = 3
    window_frames: int = 12
    sink_distance: SinkDistance = 15
    sink_refresh: SinkRefresh | None = None
    rope: RopeKind = "positions"
    known_resolution: float = 1.0
    decoder: str | None = None
    short: ShortRoute | None = None
    plugins: tuple[PluginSpec, ...] = ()
    windows: WindowSpec | None = None
    mode: Mode = "live"
    segments: Segments | None = None

    def __post_init__(self) -> None:
        """Refuse a plan that no chain could run."""
        _require_name("name", self.name)
        require_coherent(self)
        if self.segments is not None:
            stages = tuple(_adapted(stage, self.segments) for stage in self.stages)
            object.__setattr__(self, "stages", stages)

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

    def rope_scaling(self, resolution: float) -> RopeScaling:
        """Where the tokens of a step of this resolution lie for the network."""
        return RopeScaling.of(self.rope, resolution, self.known_resolution)

    def first_step(self, stage_index: int) -> int:
        """Index, among all steps, of the first step of a stage."""
        return sum(len(stage.steps) for stage in self.stages[:stage_index])


def _adapted(stage: StageSpec, segments: Segments) -> StageSpec:
    """The stage with each step's adapter as the segments give it."""
    steps = tuple(replace(s, adapter=segments.adapter(s.sigma_in)) for s in stage.steps)
    return replace(stage, steps=steps)


def _require_name(what: str, name: str) -> None:
    """Refuse names that could not stand in a path or a log line."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{what} {name!r} must be letters, digits, '-', '_' or '.', 64 at most")
