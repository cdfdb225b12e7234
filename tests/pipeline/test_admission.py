"""Letting sessions in: never beyond room or time, whoever asks at the same moment."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.admission import DeviceCapacity, Grant, Ledger, Refusal, free_phase_ms

pytestmark = pytest.mark.unit


def ledger(busy_ms: float, slots: int) -> Ledger:
    devices = (
        DeviceCapacity(name="fast", busy_ms=busy_ms / 2, slots=slots + 1),
        DeviceCapacity(name="slow", busy_ms=busy_ms, slots=slots),
    )
    return Ledger(devices=devices)


def let_in(start: Ledger, count: int, chunk_ms: float = 480.0) -> Ledger:
    for index in range(count):
        answer = start.ask(f"s{index}", chunk_ms)
        assert isinstance(answer, Grant), answer
        taken = start.take(answer)
        assert taken is not None
        start = taken
    return start


def test_sessions_fit_up_to_the_load_of_the_slowest_device() -> None:
    full = let_in(ledger(busy_ms=60.0, slots=99), 6)
    refusal = full.ask("one more", 480.0)
    assert isinstance(refusal, Refusal)
    assert refusal.reason.startswith("slow would be busy 88% of the time (60 ms for every 480 ms")
    assert ledger(60.0, 99).num_more(480.0) == 6
    assert full.num_more(480.0) == 0


def test_sessions_fit_up_to_the_room_on_every_device() -> None:
    refusal = let_in(ledger(busy_ms=1.0, slots=3), 3).ask("one more", 480.0)
    assert isinstance(refusal, Refusal)
    assert refusal.reason.startswith("slow has room for 3 sessions and 3 are in")


def test_of_two_grants_from_one_ledger_only_the_first_holds() -> None:
    start = let_in(ledger(busy_ms=1.0, slots=2), 1)
    first, second = start.ask("a", 480.0), start.ask("b", 480.0)
    assert isinstance(first, Grant)
    assert isinstance(second, Grant)
    after = start.take(first)
    assert after is not None
    assert after.take(second) is None
    assert isinstance(after.ask("b", 480.0), Refusal)


def test_a_session_is_let_in_once_and_its_seat_is_free_when_it_leaves() -> None:
    full = let_in(ledger(busy_ms=1.0, slots=2), 2)
    assert isinstance(full.ask("s0", 480.0), Refusal)
    freed = full.leave("s0")
    assert isinstance(freed.ask("s0", 480.0), Grant)
    assert freed.leave("nobody") is freed


Asked = tuple[str, int, float]


@given(
    st.floats(1.0, 200.0),
    st.integers(0, 5),
    st.lists(
        st.tuples(
            st.sampled_from(["ask", "take", "leave"]),
            st.integers(0, 7),
            st.sampled_from([240.0, 480.0, 960.0]),
        ),
        max_size=60,
    ),
)
def test_no_order_of_asking_taking_and_leaving_goes_beyond_what_there_is(
    busy_ms: float, slots: int, events: list[Asked]
) -> None:
    current, grants = ledger(busy_ms, slots), list[Grant]()
    for action, number, chunk_ms in events:
        if action == "ask":
            answer = current.ask(f"s{number}", chunk_ms)
            grants += [answer] if isinstance(answer, Grant) else []
        elif action == "leave":
            current = current.leave(f"s{number}")
        elif grants:
            current = current.take(grants.pop(number % len(grants))) or current
        names = [seat.session for seat in current.seats]
        assert len(set(names)) == len(names)
        for device in current.devices:
            assert len(names) <= device.slots
            assert current.load(device) <= current.max_load + 1e-6


@given(st.integers(1, 32))
def test_phases_of_equal_sessions_stay_apart(count: int) -> None:
    phases: list[float] = []
    for _ in range(count):
        phases.append(free_phase_ms(phases, 480.0))
    phases.sort()
    gaps = [b - a for a, b in zip(phases, [*phases[1:], phases[0] + 480.0], strict=True)]
    # Halving the widest gap leaves none narrower than half of an even share.
    assert min(gaps) >= 480.0 / count / 2 - 1e-6
