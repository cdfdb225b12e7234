"""The plug-ins that plans can name."""

import importlib
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from pipeline.errors import PlanError
from pipeline.plugins.contract import Plugin

if TYPE_CHECKING:
    from pipeline.plan import Plan

# Where each plug-in's class is: a dataclass whose fields are its options in a plan.
PLUGINS: dict[str, tuple[str, str]] = {
    "adaptive": ("pipeline.plugins.adaptive", "Adaptive"),
    "bypass": ("pipeline.plugins.bypass", "Bypass"),
    "clusca": ("pipeline.plugins.clusca", "ClusCa"),
    "forecast": ("pipeline.plugins.forecast", "Forecast"),
    "omegance": ("pipeline.plugins.omegance", "Omegance"),
    "preview": ("pipeline.plugins.preview", "Preview"),
    "sortblock": ("pipeline.plugins.sortblock", "SortBlock"),
    "taocache": ("pipeline.plugins.taocache", "TaoCache"),
    "taylorseer": ("pipeline.plugins.taylorseer", "TaylorSeer"),
    "teacache": ("pipeline.plugins.teacache", "TeaCache"),
    "timestep_aligner": ("pipeline.plugins.timestep_aligner", "TimestepAligner"),
}


def make_plugins(plan: "Plan") -> tuple[Plugin, ...]:
    """The plan's plug-ins in its order, each with its options.

    Raises:
        PlanError: one is unknown, an option is wrong, or they cannot work in this plan.
    """
    named = [spec.name for spec in plan.plugins]
    for name in named:
        if named.count(name) > 1:
            raise PlanError(f"plan {plan.name}: plug-in {name} is named twice: keep one of them")
    plugins = tuple(_make(plan, spec.name, dict(spec.options)) for spec in plan.plugins)
    deciding = [plugin.name for plugin in plugins if plugin.skips]
    if len(deciding) > 1:
        raise PlanError(
            f"plan {plan.name}: plug-ins {' and '.join(deciding)} would both decide which steps "
            "run: keep one of them"
        )
    for plugin in plugins:
        try:
            plugin.check(plan)
        except ValueError as error:
            raise PlanError(f"plan {plan.name}: plug-in {plugin.name}: {error}") from error
    return plugins


def _make(plan: "Plan", name: str, options: dict[str, Any]) -> Plugin:
    if name not in PLUGINS:
        known = ", ".join(sorted(PLUGINS)) or "none"
        raise PlanError(f"plan {plan.name}: plug-in {name!r} is unknown: use one of {known}")
    module, cls = PLUGINS[name]
    kind = getattr(importlib.import_module(module), cls)
    known_options = [option.name for option in fields(kind)]
    for option in options:
        if option not in known_options:
            raise PlanError(
                f"plan {plan.name}: plug-in {name}: option {option!r} is unknown: use one of "
                f"{', '.join(known_options) or 'none'}"
            )
    try:
        made: Plugin = TypeAdapter(kind).validate_python(options)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "options"
        message = str(first["msg"]).removeprefix("Value error, ")
        raise PlanError(f"plan {plan.name}: plug-in {name}: {field}: {message}") from error
    return made
