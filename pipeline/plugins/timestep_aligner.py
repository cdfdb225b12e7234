"""Tells the network another noise level than the latents have, one number for each step."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.catalog import is_bare_name, model_path
from pipeline.plugins.contract import PlainPlugin, StepContext

if TYPE_CHECKING:
    from pipeline.plan import Plan

TABLE_NAME = "timesteps.json"
MAX_TABLE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class TimestepTable:
    """What the network is told at each of some steps: `told[k]` where latents are at `sigmas[k]`.

    Raises:
        ValueError: they are not as many, or no noise levels.
    """

    sigmas: tuple[float, ...]
    told: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse what no plan could use."""
        if len(self.sigmas) != len(self.told) or not self.told:
            raise ValueError(f"{len(self.told)} levels for {len(self.sigmas)} steps: give one each")
        for level in (*self.sigmas, *self.told):
            if not 0.0 <= level <= 1.0:
                raise ValueError(f"level {level} must lie in [0, 1]")

    def to_json(self) -> str:
        """The table as the file holds it."""
        return json.dumps({"sigmas": list(self.sigmas), "told": list(self.told)}) + "\n"


@dataclass(frozen=True, kw_only=True)
class TimestepAligner(PlainPlugin):
    """Corrects few-step sampling by the level that each step tells the network.

    A network that takes large steps does better if it is told a level within the step than the one
    at its beginning. The levels come from `sigmas`, one for each step of the plan, or from `table`:
    a file that `viva train timesteps` wrote, or the name of a model that brings one. Costs
    nothing. Source: Timestep Aligner (design page "algorithms", entry 24), here without its
    training: the levels are fitted.

    Raises:
        ValueError: neither or both are given, or the table cannot be read.
    """

    name = "timestep_aligner"

    sigmas: tuple[float, ...] = ()
    table: str = ""

    def __post_init__(self) -> None:
        """Refuse what says nothing or says it twice."""
        if bool(self.sigmas) == bool(self.table):
            raise ValueError("give either sigmas, one for each step, or a table")
        if self.table:
            read_table(self.table)
        else:
            TimestepTable(sigmas=self.sigmas, told=self.sigmas)

    @property
    def told(self) -> tuple[float, ...]:
        """What the network is told at each step of the plan."""
        return read_table(self.table).told if self.table else self.sigmas

    def check(self, plan: "Plan") -> None:
        """Refuse levels that were fitted to other steps."""
        levels = tuple(step.sigma_in for step in plan.steps)
        if len(self.told) != len(levels):
            raise ValueError(
                f"{len(self.told)} levels for a plan of {len(levels)} steps: give one for each"
            )
        if self.table and any(
            abs(a - b) > 1e-6 for a, b in zip(read_table(self.table).sigmas, levels, strict=True)
        ):
            raise ValueError(
                f"table {self.table} was fitted to other noise levels than the plan's: "
                "fit one with viva train timesteps"
            )

    def network_sigma(self, ctx: StepContext) -> float:
        """The fitted level of the step."""
        return self.told[ctx.leg.index]


@lru_cache(maxsize=16)  # asked for at every step of every chunk
def read_table(name: str) -> TimestepTable:
    """The table in a file, or the one of the model of that name.

    Raises:
        ValueError: there is none, or it holds something else.
    """
    path = model_path(name) / TABLE_NAME if is_bare_name(name) else Path(name)
    try:
        too_large = path.stat().st_size > MAX_TABLE_BYTES
        held = {} if too_large else json.loads(path.read_text(encoding="utf-8"))
        sigmas, told = ([float(level) for level in held[key]] for key in ("sigmas", "told"))
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"table {path} cannot be read ({reason}): name another") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"table {path} does not hold lists of sigmas and told: write it with "
            "viva train timesteps"
        ) from error
    return TimestepTable(sigmas=tuple(sigmas), told=tuple(told))
