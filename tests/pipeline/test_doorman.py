"""Letting sessions into a running chain: never more than fit, however many ask at once."""

import math
import threading

import pytest

from pipeline.admission import DeviceCapacity, Ledger
from pipeline.device import parse_devices
from pipeline.doorman import FIRST_RETRY_S, ChainCapacity, Doorman
from pipeline.errors import ChainFull
from pipeline.planner import PlacementRequest, place
from pipeline.step_cost import Ema, modelled_costs
from tests.support.planning import plan_of, work_of

pytestmark = pytest.mark.unit

UNKNOWN = [Ema(), Ema()]


def paces(*values_ms: float) -> list[Ema]:
    return [Ema(value_ms=value_ms, num_samples=9) for value_ms in values_ms]


def doorman(slots: int, stage_devices: tuple[str, ...] = ("a", "b")) -> Doorman:
    devices = tuple(DeviceCapacity(name=n, busy_ms=0.0, slots=slots) for n in set(stage_devices))
    capacity = ChainCapacity(ledger=Ledger(devices=devices), stage_devices=stage_devices)
    return Doorman(capacity)


def test_of_many_that_ask_at_once_as_many_are_let_in_as_there_is_room_for() -> None:
    door, barrier = doorman(slots=5), threading.Barrier(16)
    refused: list[ChainFull] = []

    def ask(index: int) -> None:
        barrier.wait()
        try:
            door.admit(f"s{index}", math.inf, UNKNOWN)
        except ChainFull as error:
            refused.append(error)

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(door.ledger.seats) == 5
    assert len(refused) == 11
    assert all("has room for 5 sessions and 5 are in" in str(error) for error in refused)
    assert refused[0].retry_after_s == FIRST_RETRY_S


def test_measured_times_say_how_many_live_sessions_fit() -> None:
    door = doorman(slots=99)
    for index in range(4):
        door.admit(f"live{index}", 480.0, paces(20.0, 90.0))
    with pytest.raises(ChainFull, match=r"b would be busy 94% .*90 ms for every 480 ms"):
        door.admit("live4", 480.0, paces(20.0, 90.0))
    door.admit("batch", math.inf, paces(20.0, 90.0))  # takes what is left
    door.admit("live4", 480.0, paces(20.0, 70.0))  # the stage became faster


def test_stages_of_one_device_count_together_and_not_before_all_were_measured() -> None:
    door = doorman(slots=99, stage_devices=("a", "a"))
    door.admit("x", 480.0, [Ema(value_ms=450.0, num_samples=9), Ema()])
    with pytest.raises(ChainFull, match="a would be busy 125%"):
        door.admit("y", 480.0, paces(200.0, 100.0))


def test_when_to_ask_again_follows_from_how_long_sessions_stay() -> None:
    now_s = [0.0]
    devices = (DeviceCapacity(name="a", busy_ms=0.0, slots=2),)
    capacity = ChainCapacity(ledger=Ledger(devices=devices), stage_devices=("a",))
    door = Doorman(capacity, clock_s=lambda: now_s[0])
    door.admit("first", math.inf, [Ema()])
    now_s[0] = 30.0
    door.leave("first")
    door.leave("first")
    door.admit("second", math.inf, [Ema()])
    door.admit("third", math.inf, [Ema()])
    with pytest.raises(ChainFull, match="ask again in 15 s") as caught:
        door.admit("fourth", math.inf, [Ema()])
    assert caught.value.retry_after_s == pytest.approx(15.0)


def test_a_placed_chain_counts_the_memory_of_its_devices_and_keeps_its_sessions_when_moved() -> (
    None
):
    work = work_of(4)
    request = PlacementRequest(
        plan=plan_of(4),
        work=work,
        costs=modelled_costs(work),
        cluster=parse_devices("cuda:80GiB x2"),
        decoder="share",
    )
    capacity = ChainCapacity.of(place(request))
    door = Doorman(capacity)
    unmeasured = [Ema()] * len(capacity.stage_devices)
    slots = min(device.slots for device in capacity.ledger.devices)
    for index in range(slots):
        door.admit(f"s{index}", math.inf, unmeasured)
    with pytest.raises(ChainFull, match=f"has room for {slots} sessions and {slots} are in"):
        door.admit("one more", math.inf, unmeasured)
    door.move(ChainCapacity.unplaced(["x", "y"]))
    assert len(door.ledger.seats) == slots
    door.admit("one more", math.inf, UNKNOWN)
