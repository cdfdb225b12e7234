"""Reads plans from YAML: small files, every field known, or one line that says why not."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from pipeline.catalog import is_bare_name, plan_path, shipped_plans
from pipeline.errors import PlanError
from pipeline.plan import Plan
from pipeline.plan_conflicts import require_no_conflict
from pipeline.plan_schedule import Schedule
from pipeline.segments import with_adapters_beside

# The longest plan imaginable is a tenth of this; reading YAML takes about a second per 100 kB.
MAX_PLAN_BYTES = 1 << 16


def load_plan(name: str) -> Plan:
    """The plan of that shipped name, or in the file of that path.

    Paths of adapters are relative to the plan's own folder.

    Raises:
        PlanError: nothing is found there, or the file does not describe a plan.
    """
    path = plan_path(name)
    return with_adapters_beside(parse_plan(_read(path, name), source=str(path)), path.parent)


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
        values = _parse_yaml(text)
        as_json = json.dumps(_unfolded(values))
    except ValidationError as error:
        raise PlanError(f"plan {source}: {_first_complaint(error, 'schedule')}") from error
    except PlanError as error:
        raise PlanError(f"plan {source}: {error}") from error
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise PlanError(f"plan {source} is not plain YAML ({reason}): fix its syntax") from error
    try:
        plan = TypeAdapter(Plan).validate_json(as_json, strict=True)
        require_no_conflict(plan)
    except ValidationError as error:
        raise PlanError(f"plan {source}: {_first_complaint(error)}") from error
    except PlanError as error:
        raise PlanError(f"plan {source}: {error}") from error
    return plan


def _unfolded(values: Any) -> Any:
    """A plan's values with the stages that its schedule stands for; others as they are.

    Raises:
        PlanError: both are given.
        ValidationError: the schedule is none.
    """
    if not isinstance(values, dict) or "schedule" not in values:
        return values
    if "stages" in values:
        raise PlanError("schedule and stages both list the steps: keep one of them")
    rest = {key: value for key, value in values.items() if key != "schedule"}
    schedule = TypeAdapter(Schedule).validate_json(json.dumps(values["schedule"]), strict=True)
    return {**rest, "stages": schedule.expanded(new_function_at=_level_of_segments(values))}


def _level_of_segments(values: dict[str, Any]) -> float:
    """The level from which on steps have another adapter; 0, where no step starts, without."""
    segments = values.get("segments")
    level = segments.get("t_mid") if isinstance(segments, dict) else None
    return float(level) if isinstance(level, int | float) else 0.0


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


def _first_complaint(error: ValidationError, *within: str) -> str:
    """The first thing wrong with a plan, or with a field within it, as `field: what to do`."""
    details: Any = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in (*within, *details["loc"]))
    message = str(details["msg"]).removeprefix("Value error, ")
    if details["type"] == "dataclass_type":
        message = "must be a mapping of fields; see configs/plans/pocket.yaml"
    if not field and details["type"] != "value_error":
        field = "the whole file"
    return " ".join(f"{field}: {message}".removeprefix(": ").split())
