"""Extrapolates what a network would give at a step from what it gave at the steps before.

Pure: `Forecaster` is options and a history in plain tensors, which travels with whatever it is the
history of. Positions are step numbers along the way, growing as the noise falls; they need not be
whole or evenly spaced.

Shape legend: N = remembered values, newest last; L = modules of the network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from math import factorial, prod
from typing import Literal

import torch

Basis = Literal["taylor", "newton"]
Granularity = Literal["output", "modules"]

# Differences above this order are rounding noise: published settings end at 4.
MAX_ORDER = 6
_TINY = 1e-12


class StepMode(Enum):
    """How a step's value comes about."""

    FULL = "full"
    FORECAST = "forecast"
    REUSE = "reuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastRule:
    """When a forecaster lets the network run, and how it extrapolates.

    The first `warmup` steps and the last `cooldown` are computed, between them one in `interval`,
    counted from the last computed one. `order` is the highest derivative used; 0 repeats the
    newest value. `basis` "taylor" weighs the newest one-sided derivatives by powers, "newton"
    interpolates exactly, whatever the gaps. `alpha` damps where the value changes faster than it
    used to (0 does not); `layer_exp` gives each module's correction the weight `r ** -layer_exp`,
    r being how large the module's derivative is beside the modules' mean (0 treats all alike), and
    needs `granularity` "modules", whose values have the modules as their first dimension.

    Source: FlashPortrait, adaptive latent prediction (`alpha` 1.5, `layer_exp` -0.5, `interval`
    5, `order` 3, `basis` "taylor"); with both at 0 TaylorSeer. The defaults are what came nearest
    to 30 steps of the pocket model with 12 calls (`benchmarks/forecast.py`).

    Raises:
        ValueError: a number is out of its range.
    """

    order: int = 2
    interval: int = 4
    warmup: int = 2
    cooldown: int = 4
    basis: Basis = "newton"
    alpha: float = 0.0
    layer_exp: float = 0.0
    granularity: Granularity = "output"

    def __post_init__(self) -> None:
        """Refuse what could not be followed."""
        _require_whole("order", self.order, 0, MAX_ORDER)
        _require_whole("interval", self.interval, 1, 64)
        _require_whole("warmup", self.warmup, 1, 64)
        _require_whole("cooldown", self.cooldown, 1, 64)
        if self.basis not in ("taylor", "newton"):
            raise ValueError(f"basis {self.basis!r} is unknown: use taylor or newton")
        if not 0.0 <= self.alpha <= 3.0:
            raise ValueError(f"alpha {self.alpha} must lie in [0, 3]")
        if self.layer_exp not in (-0.5, 0.0, 0.5):
            raise ValueError(f"layer_exp {self.layer_exp} must be -0.5, 0 or 0.5")
        if self.granularity not in ("output", "modules"):
            raise ValueError(f"granularity {self.granularity!r} is unknown: use output or modules")
        if self.layer_exp and self.granularity == "output":
            raise ValueError(
                "layer_exp compares modules: set granularity to modules, or leave it 0"
            )

    def modes(
        self, allowed: Sequence[bool], breaks: Sequence[bool] | None = None
    ) -> tuple[StepMode, ...]:
        """How each step of a way comes about: a matter of the plan alone.

        `allowed` says which steps may be forecast, `breaks` which are another function than the
        step before. The last step and the first after a break are computed whatever is allowed.
        """
        broken = [False] * len(allowed) if breaks is None else breaks
        modes: list[StepMode] = []
        known = since = 0
        for index, (may, is_break) in enumerate(zip(allowed, broken, strict=True)):
            known = 0 if is_break else known
            is_inner = self.warmup <= index < len(allowed) - self.cooldown
            mode = self._mode(known, since, may and is_inner)
            modes.append(mode)
            known += mode is StepMode.FULL
            since = 1 if mode is StepMode.FULL else since + 1
        return tuple(modes)

    def _mode(self, known: int, since: int, may: bool) -> StepMode:
        """What to do with `known` values since the break, the newest of them `since` steps old."""
        if not may or not known or since >= self.interval:
            return StepMode.FULL
        return StepMode.FORECAST if self.order and known > 1 else StepMode.REUSE


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The newest values and where they were seen, newest last, at most `order + 1` of them.

    `rates` holds the sum and the number of all rates of change met so far, float64.
    """

    values: tuple[torch.Tensor, ...] = ()
    positions: tuple[float, ...] = ()
    rates: tuple[float, float] = (0.0, 0.0)

    def __len__(self) -> int:
        """How many values are remembered."""
        return len(self.values)

    @property
    def num_bytes(self) -> int:
        """Bytes of the values."""
        return sum(value.numel() * value.element_size() for value in self.values)


@dataclass(slots=True, kw_only=True)
class Forecaster:
    """A rule, and what was seen since the last break."""

    rule: ForecastRule = field(default_factory=ForecastRule)
    history: History = field(default_factory=History)

    def decide(
        self, index: int, allowed: Sequence[bool], breaks: Sequence[bool] | None = None
    ) -> StepMode:
        """How step `index` of a way comes about; see `ForecastRule.modes`."""
        return self.rule.modes(allowed, breaks)[index]

    def observe(self, position: float, value: torch.Tensor) -> None:
        """See what the network gave; kept in float32.

        Raises:
            ValueError: it does not come after what was seen before, or has another shape.
        """
        self.history = observed(self.rule, self.history, position, value)

    def predict(self, position: float) -> torch.Tensor:
        """What the network would give at a later position.

        Raises:
            ValueError: nothing was seen since the last break.
        """
        return predicted(self.rule, self.history, position)

    def invalidate(self, reason: str) -> None:
        """Forget all that was seen; `reason` is for whoever reads along."""
        if not reason:
            raise ValueError("invalidate needs a reason: say what broke")
        self.history = History()

    def export_state(self) -> dict[str, torch.Tensor]:
        """The history as tensors, empty if nothing was seen; values are not copied."""
        if not len(self.history):
            return {}
        return {
            "values": torch.stack(self.history.values),
            "positions": torch.tensor(self.history.positions, dtype=torch.float64),
            "rates": torch.tensor(self.history.rates, dtype=torch.float64),
        }

    def import_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on from an export.

        Raises:
            ValueError: it holds more than the rule's order needs, or parts are missing.
        """
        if not state:
            self.history = History()
            return
        missing = sorted({"values", "positions", "rates"} - state.keys())
        if missing:
            raise ValueError(f"forecast state lacks {missing[0]}: use what export_state gave")
        values, positions = state["values"], state["positions"].tolist()
        if len(values) != len(positions) or len(values) > self.rule.order + 1:
            raise ValueError(
                f"forecast state of {len(values)} values at {len(positions)} positions does not "
                f"fit order {self.rule.order}: use the options it was exported under"
            )
        total, count = state["rates"].tolist()
        self.history = History(
            values=tuple(values.unbind()), positions=tuple(positions), rates=(total, count)
        )


def observed(rule: ForecastRule, history: History, position: float, value: torch.Tensor) -> History:
    """The history with one value more."""
    value = value.detach().float()
    if not len(history):
        return History(values=(value,), positions=(float(position),))
    if position <= history.positions[-1]:
        raise ValueError(
            f"position {position:g} does not come after {history.positions[-1]:g}: "
            "invalidate the history first"
        )
    if value.shape != history.values[-1].shape:
        raise ValueError(
            f"value of {tuple(value.shape)} after values of {tuple(history.values[-1].shape)}: "
            "invalidate the history first"
        )
    total, count = history.rates
    if rule.alpha:
        total, count = total + _newest_rate(history, position, value), count + 1.0
    kept = rule.order + 1
    return replace(
        history,
        values=(*history.values, value)[-kept:],
        positions=(*history.positions, float(position))[-kept:],
        rates=(total, count),
    )


def predicted(rule: ForecastRule, history: History, position: float) -> torch.Tensor:
    """The extrapolation of a history, of as high an order as it allows."""
    if not len(history):
        raise ValueError(f"nothing to forecast position {position:g} from: compute a step first")
    terms = _terms(rule.basis, history, position)
    if rule.granularity == "modules" and rule.layer_exp:
        terms = [terms[0], *(_weighed(term, rule.layer_exp) for term in terms[1:])]
    damping = _damping(rule.alpha, history)
    made = terms[0].clone()
    for term in terms[1:]:
        made += term / damping
    return made


def _terms(basis: Basis, history: History, position: float) -> list[torch.Tensor]:
    """The newest value, and what each order adds to it."""
    places = history.positions
    table = list(history.values)
    ahead = position - places[-1]
    terms = [table[-1]]
    for order in range(1, len(places)):
        # taylor: each difference over its own newest gap; newton: over all that it spans.
        back = 1 if basis == "taylor" else order
        table = [
            (table[i + 1] - table[i]) / (places[i + order] - places[i + order - back])
            for i in range(len(table) - 1)
        ]
        if basis == "taylor":
            weight = ahead**order / factorial(order)
        else:
            weight = prod(position - place for place in places[-order:])
        terms.append(weight * table[-1])
    return terms


def _newest_rate(history: History, position: float, value: torch.Tensor) -> float:
    """How far the value moved for each unit of position, root mean square."""
    gap = position - history.positions[-1]
    return float((value - history.values[-1]).square().mean().sqrt()) / gap


def _damping(alpha: float, history: History) -> float:
    """The newest rate beside the mean of all so far, to the power `alpha`; 1 without a rate."""
    total, count = history.rates
    if not alpha or not count or len(history) < 2 or total <= _TINY:
        return 1.0
    before = replace(history, values=history.values[:-1], positions=history.positions[:-1])
    rate = _newest_rate(before, history.positions[-1], history.values[-1])
    return max(float((rate / (total / count)) ** alpha), _TINY)


def _weighed(term: torch.Tensor, layer_exp: float) -> torch.Tensor:
    """Each module's correction over its own weight."""
    size_L = term.abs().flatten(1).mean(1)
    ratio_L = (size_L / size_L.mean().clamp(min=_TINY)).clamp(min=_TINY)
    weight_L = ratio_L**layer_exp
    return term / weight_L.view(-1, *[1] * (term.dim() - 1))


def _require_whole(name: str, value: int, low: int, high: int) -> None:
    """Refuse a count outside its range."""
    if not low <= value <= high:
        raise ValueError(f"{name} {value} must lie in {low}..{high}")
