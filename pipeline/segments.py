"""Which adapter works at which noise level: one above a level where motion is settled, one below.

Source: AlignHuman; the level is found by `viva model calibrate` (docs/methods.md).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ConfigDict

if TYPE_CHECKING:
    from pipeline.plan import Plan

ADAPTER_SUFFIX = ".safetensors"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_MAX_PATH = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """Steps that start above level `t_mid` have the adapter `above`, all others `below`.

    A step that starts exactly there is below. None leaves a segment the bare network. Levels are
    those written in the steps, of their own resolution.

    Raises:
        ValueError: a level outside 0..1, or no adapter at all.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    t_mid: float
    above: str | None = None
    below: str | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no two segments."""
        if not 0.0 < self.t_mid < 1.0:
            raise ValueError(f"t_mid {self.t_mid} must lie between 0 and 1")
        if self.above is None and self.below is None:
            raise ValueError("segments name no adapter: give above, below or both")
        for name in (self.above, self.below):
            require_adapter_name(name)

    def adapter(self, sigma: float) -> str | None:
        """The one adapter of a step that starts at this level."""
        return self.above if sigma > self.t_mid else self.below


def one_adapter(value: Any) -> Any:
    """The value of a step's `adapter` as written; several at once are refused.

    Raises:
        ValueError: it is a list.
    """
    if isinstance(value, list):
        raise ValueError(
            f"{len(value)} adapters at once would be summed: exactly one works at a step, name one"
        )
    return value


def require_adapter_name(name: str | None) -> None:
    """Refuse what is neither a name in a model's folder nor the path of a file.

    Raises:
        ValueError: says what to write.
    """
    if name is None or _NAME.fullmatch(name) or is_adapter_path(name):
        return
    raise ValueError(
        f"adapter {name[:80]!r} is no name of letters, digits, '-', '_' or '.', and no path of a "
        f"{ADAPTER_SUFFIX} file"
    )


def is_adapter_path(name: str) -> bool:
    """Whether it stands for a file of its own rather than one in the model's folder."""
    is_text = name.isprintable() and len(name) <= _MAX_PATH
    return is_text and name.endswith(ADAPTER_SUFFIX) and Path(name).stem != ""


def with_adapters_beside(plan: "Plan", folder: Path) -> "Plan":
    """The plan of a file in `folder`, with paths of adapters that hold anywhere."""

    def placed(name: str | None) -> str | None:
        return str((folder / name).absolute()) if name and is_adapter_path(name) else name

    if not any(is_adapter_path(step.adapter or "") for step in plan.steps):
        return plan
    stages = tuple(
        replace(stage, steps=tuple(replace(s, adapter=placed(s.adapter)) for s in stage.steps))
        for stage in plan.stages
    )
    segments = plan.segments
    if segments is not None:
        segments = replace(segments, above=placed(segments.above), below=placed(segments.below))
    return replace(plan, stages=stages, segments=segments)


def adapter_complaints(plan: "Plan") -> Iterator[str]:
    """Why the adapters of a plan's steps are not one at a time, as its segments say."""
    if plan.segments is None:
        return
    for index, step in enumerate(plan.steps):
        wanted = plan.segments.adapter(step.sigma_in)
        if step.adapter not in (None, wanted):
            yield (
                f"step {index} names adapter {step.adapter}, but by the segments it has "
                f"{wanted or 'none'}: one works at a time, so drop adapter or segments"
            )
