"""The forecaster: which steps are computed, what is exact, and that a break is forgotten."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.forecaster import Forecaster, ForecastRule, History, StepMode

pytestmark = pytest.mark.unit

SHAPE = (2, 3, 4)
FULL, FORECAST, REUSE = StepMode.FULL, StepMode.FORECAST, StepMode.REUSE

rules = st.builds(
    ForecastRule,
    order=st.integers(0, 4),
    interval=st.integers(1, 7),
    warmup=st.integers(1, 6),
    cooldown=st.integers(1, 4),
    basis=st.sampled_from(["taylor", "newton"]),
    alpha=st.sampled_from([0.0, 0.5, 1.5]),
)
ways = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40)


def tensor(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def polynomial(degree: int, seed: int = 0) -> Callable[[float], torch.Tensor]:
    """A polynomial of that degree in each value."""
    factors = [tensor(seed + i) for i in range(degree + 1)]
    return lambda x: sum(
        (factor * (x / 4) ** i for i, factor in enumerate(factors)), torch.zeros(SHAPE)
    )


def seen(rule: ForecastRule, at: list[float], of: Callable[[float], torch.Tensor]) -> Forecaster:
    forecaster = Forecaster(rule=rule)
    for position in at:
        forecaster.observe(position, of(position))
    return forecaster


@given(rules, ways)
def test_the_last_steps_the_warm_up_and_whatever_may_not_be_forecast_are_computed(
    rule: ForecastRule, way: list[tuple[bool, bool]]
) -> None:
    modes = rule.modes([may for may, _ in way])
    assert modes[-1] is FULL
    assert all(mode is FULL for mode in (*modes[: rule.warmup], *modes[-rule.cooldown :]))
    assert all(mode is FULL for mode, (may, _) in zip(modes, way, strict=True) if not may)


@given(rules, ways)
def test_at_most_interval_less_one_steps_follow_each_other_uncomputed(
    rule: ForecastRule, way: list[tuple[bool, bool]]
) -> None:
    modes = rule.modes([True] * len(way), [is_break for _, is_break in way])
    skipped = 0
    for mode in modes:
        skipped = 0 if mode is FULL else skipped + 1
        assert skipped < rule.interval


@given(rules, ways)
def test_after_a_break_one_step_is_computed_and_the_order_begins_at_0_again(
    rule: ForecastRule, way: list[tuple[bool, bool]]
) -> None:
    is_break = [b for _, b in way]
    modes = rule.modes([may for may, _ in way], is_break)
    for index, mode in enumerate(modes):
        if is_break[index]:
            assert mode is FULL
        begun = max([i for i in range(index + 1) if is_break[i]], default=0)
        known = sum(m is FULL for m in modes[begun:index])
        if mode is FORECAST:
            assert known > 1
        if mode is REUSE:
            assert known == 1 or rule.order == 0


def test_thirty_steps_take_twelve_calls_by_threes_and_nine_by_fives() -> None:
    by_threes = ForecastRule(warmup=3, interval=3, cooldown=1).modes([True] * 30)
    by_fives = ForecastRule(warmup=3, interval=5, cooldown=1).modes([True] * 30)
    assert [i for i, m in enumerate(by_threes) if m is FULL] == [0, 1, *range(2, 30, 3)]
    assert [i for i, m in enumerate(by_fives) if m is FULL] == [0, 1, *range(2, 30, 5), 29]
    default = ForecastRule().modes([True] * 30)
    assert [i for i, m in enumerate(default) if m is FULL] == [
        0,
        1,
        *range(5, 26, 4),
        *range(26, 30),
    ]
    assert Forecaster(rule=ForecastRule()).decide(3, [True] * 30) is FORECAST


@given(rules, ways)
def test_an_interval_of_one_computes_every_step(
    rule: ForecastRule, way: list[tuple[bool, bool]]
) -> None:
    every = ForecastRule(order=rule.order, interval=1, warmup=rule.warmup)
    assert set(every.modes([True] * len(way))) == {FULL}


def test_order_0_is_the_newest_value_as_it_was() -> None:
    forecaster = seen(ForecastRule(order=0), [0, 1, 2.5], polynomial(3))
    assert torch.equal(forecaster.predict(7), polynomial(3)(2.5))
    assert len(forecaster.history) == 1


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=5),
    st.integers(1, 4),
    st.sampled_from(["taylor", "newton"]),
    st.sampled_from([1, 2, 3]),
)
def test_an_affine_sequence_is_foretold_exactly_whatever_the_gaps(
    gaps: list[int], ahead: int, basis: str, order: int
) -> None:
    """A second difference of what is affine is nothing, in either basis."""
    positions = [float(sum(gaps[:i])) for i in range(len(gaps) + 1)]
    forecaster = seen(ForecastRule(order=order, basis=basis), positions, polynomial(1))  # type: ignore[arg-type]  # one of the two
    wanted = polynomial(1)(positions[-1] + ahead)
    assert torch.allclose(forecaster.predict(positions[-1] + ahead), wanted, atol=1e-3)


@settings(deadline=None)
@given(st.integers(0, 4), st.data())
def test_newton_is_exact_on_polynomials_of_its_order_whatever_the_gaps(
    degree: int, data: st.DataObject
) -> None:
    gaps = data.draw(st.lists(st.integers(1, 4), min_size=degree, max_size=degree + 3))
    positions = [sum(gaps[:i]) / 2 for i in range(len(gaps) + 1)]
    rule = ForecastRule(order=degree, basis="newton")
    made = seen(rule, positions, polynomial(degree)).predict(positions[-1] + 1)
    wanted = polynomial(degree)(positions[-1] + 1)
    assert float((made - wanted).abs().max()) < 2e-3 * (1 + float(wanted.abs().max()))


def test_taylor_misses_a_square_that_newton_meets() -> None:
    """One-sided differences are exact to the first degree alone."""
    square = polynomial(2)
    for basis, is_exact in (("taylor", False), ("newton", True)):
        rule = ForecastRule(order=2, basis=basis)  # type: ignore[arg-type]  # one of the two
        made = seen(rule, [0, 1, 2], square).predict(3)
        assert torch.allclose(made, square(3), atol=1e-4) is is_exact


class TaylorSeer:
    """The published recursion, with derivatives updated in place; written for the test."""

    def __init__(self, order: int) -> None:
        self.order, self.factors, self.newest = order, list[torch.Tensor](), 0.0

    def observe(self, position: float, value: torch.Tensor) -> None:
        gap, made = position - self.newest, [value]
        for old in self.factors[: self.order]:
            made.append((made[-1] - old) / gap)
        self.factors, self.newest = made, position

    def predict(self, position: float) -> torch.Tensor:
        ahead = position - self.newest
        terms = [f * ahead**i / math.factorial(i) for i, f in enumerate(self.factors)]
        return sum(terms, torch.zeros(SHAPE))


@pytest.mark.parametrize("order", [0, 1, 2, 3])
@pytest.mark.parametrize("granularity", ["output", "modules"])
def test_without_factors_it_is_taylorseer(order: int, granularity: str) -> None:
    rule = ForecastRule(order=order, basis="taylor", granularity=granularity)  # type: ignore[arg-type]  # one of the two
    forecaster, published = Forecaster(rule=rule), TaylorSeer(order)
    for position in (0, 1, 2, 5, 8, 11, 14):
        forecaster.observe(position, tensor(position))
        published.observe(position, tensor(position))
        for ahead in (1, 2):
            made, wanted = forecaster.predict(position + ahead), published.predict(position + ahead)
            assert torch.allclose(made, wanted, atol=1e-4)


def test_alpha_damps_where_the_value_moves_faster_than_it_used_to() -> None:
    still, moving = torch.zeros(SHAPE), torch.ones(SHAPE)
    steps = {0: still, 1: 0.1 * moving, 2: 1.1 * moving}
    plain = seen(ForecastRule(order=1), [0, 1, 2], lambda x: steps[int(x)]).predict(3)
    damped = seen(ForecastRule(order=1, alpha=1.5), [0, 1, 2], lambda x: steps[int(x)]).predict(3)
    rate = (1.0 / ((0.1 + 1.0) / 2)) ** 1.5
    assert torch.allclose(plain, 2.1 * moving)
    assert torch.allclose(damped, (1.1 + 1.0 / rate) * moving)


def test_an_even_pace_is_not_damped() -> None:
    forecaster = seen(ForecastRule(alpha=1.5), [0, 1, 3], polynomial(1))
    assert torch.allclose(forecaster.predict(5), polynomial(1)(5), atol=1e-5)


@pytest.mark.parametrize("layer_exp", [-0.5, 0.5])
def test_layer_exp_weighs_each_module_by_how_fast_it_is(layer_exp: float) -> None:
    rule = ForecastRule(granularity="modules", layer_exp=layer_exp)
    slope = torch.tensor([1.0, 3.0])[:, None, None].expand(SHAPE)
    forecaster = seen(rule, [0, 1], lambda x: slope * x)
    ratio = torch.tensor([0.5, 1.5])
    wanted = slope[:, 0, 0] + slope[:, 0, 0] / ratio**layer_exp
    assert torch.allclose(forecaster.predict(2)[:, 0, 0], wanted)


def test_nothing_from_before_a_break_is_used() -> None:
    forecaster = seen(ForecastRule(order=2, alpha=1.5), [0, 1, 2], polynomial(2))
    forecaster.invalidate("the resolution changes")
    with pytest.raises(ValueError, match="nothing to forecast position 3 from"):
        forecaster.predict(3)
    forecaster.observe(3, tensor(9))
    assert torch.equal(forecaster.predict(4), tensor(9))
    forecaster.observe(4, tensor(8))
    fresh = seen(forecaster.rule, [3, 4], lambda x: tensor(12 - int(x)))
    assert torch.equal(forecaster.predict(5), fresh.predict(5))


@given(rules, st.integers(0, 6))
def test_an_export_goes_on_as_the_original_does(rule: ForecastRule, num_seen: int) -> None:
    first = seen(rule, [float(i) for i in range(num_seen)], lambda x: tensor(int(x)))
    twin = Forecaster(rule=rule)
    twin.import_state({key: value.clone() for key, value in first.export_state().items()})
    for forecaster in (first, twin):
        forecaster.observe(7, tensor(7))
    assert torch.equal(first.predict(8), twin.predict(8))
    assert first.history.positions == twin.history.positions
    assert first.history.rates == twin.history.rates


@given(rules)
def test_what_is_remembered_is_bounded_and_float32(rule: ForecastRule) -> None:
    forecaster = seen(rule, list(range(20)), lambda x: tensor(int(x)).bfloat16())
    assert len(forecaster.history) == rule.order + 1
    assert forecaster.history.num_bytes == 4 * (rule.order + 1) * math.prod(SHAPE)


def test_values_out_of_order_or_of_another_shape_are_refused() -> None:
    forecaster = seen(ForecastRule(), [3], polynomial(1))
    with pytest.raises(ValueError, match="does not come after 3"):
        forecaster.observe(3, tensor(0))
    with pytest.raises(ValueError, match="invalidate the history first"):
        forecaster.observe(4, torch.zeros(1))
    with pytest.raises(ValueError, match="needs a reason"):
        forecaster.invalidate("")


def test_a_state_that_does_not_fit_is_refused() -> None:
    state = seen(ForecastRule(order=3), [0, 1, 2, 3], polynomial(1)).export_state()
    with pytest.raises(ValueError, match="does not fit order 1"):
        Forecaster(rule=ForecastRule(order=1)).import_state(state)
    with pytest.raises(ValueError, match="lacks positions"):
        Forecaster().import_state({"values": state["values"], "rates": state["rates"]})
    forecaster = Forecaster(history=History(values=(tensor(0),), positions=(0.0,)))
    forecaster.import_state({})
    assert not len(forecaster.history)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("order", -1), ("order", 7), ("interval", 0), ("warmup", 0), ("cooldown", 0),
        ("alpha", -0.1), ("alpha", 9.0), ("layer_exp", 0.25), ("basis", "fourier"),
        ("granularity", "head"),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused_by_name(option: str, value: object) -> None:
    with pytest.raises(ValueError, match=option):
        ForecastRule(**{option: value})  # type: ignore[arg-type]  # wrong on purpose


def test_layer_exp_without_modules_is_refused() -> None:
    with pytest.raises(ValueError, match="set granularity to modules"):
        ForecastRule(layer_exp=0.5)
