"""A placement against the machine that is there: cores, cards, memory."""

import pytest

from pipeline import machine
from pipeline.device import parse_devices
from pipeline.errors import PlanError
from pipeline.machine import require_here, this_machine
from pipeline.placement import Placement
from pipeline.planner import PlacementRequest, place
from pipeline.step_cost import modelled_costs
from tests.support.planning import plan_of, work_of

pytestmark = pytest.mark.unit


def placed(devices: str) -> Placement:
    work = work_of(4)
    return place(
        PlacementRequest(
            plan=plan_of(4),
            work=work,
            costs=modelled_costs(work),
            cluster=parse_devices(devices),
        )
    )


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: (0, 1))
    monkeypatch.setattr(machine, "card_memories", lambda: ())
    monkeypatch.setattr(machine, "machine_memory", lambda: 400 << 30)


@pytest.mark.usefixtures("two_cores")
@pytest.mark.parametrize(
    ("devices", "says"),
    [
        ("cpu:5:99GiB", "placed on cpu:4, which is not there: it needs 5 cpu devices, .* has 2"),
        ("cuda:400GiB", "placed on cuda:0, which is not there: it needs 1 cuda devices, .* has 0"),
        ("cpu:1:99GiB / cpu:4:99GiB", "describes 2 nodes, this machine is one"),
    ],
)
def test_devices_that_are_not_there_are_refused_with_the_arithmetic(
    devices: str, says: str
) -> None:
    with pytest.raises(PlanError, match=says) as error:
        require_here(placed(devices))
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("two_cores")
def test_what_is_here_is_taken() -> None:
    require_here(placed("cpu:2:999GiB"))
    assert [device.name for device in this_machine().devices] == ["cpu:0", "cpu:1"]
    assert {device.memory_bytes for device in this_machine().devices} == {200 << 30}


@pytest.mark.usefixtures("two_cores")
def test_memory_counts_as_it_is_not_as_it_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "machine_memory", lambda: 8 << 30)
    with pytest.raises(PlanError, match=r"needs \d+.\d GiB on its cores, this machine has 8.0 GiB"):
        require_here(placed("cpu:2:999GiB"))


def test_cards_are_planned_for_before_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "card_memories", lambda: (80 << 30, 80 << 30))
    assert [device.name for device in this_machine().devices] == ["cuda:0", "cuda:1"]
    with pytest.raises(PlanError, match="needs 5 cuda devices, this machine has 2"):
        require_here(placed("cuda:80GiB x5"))
    monkeypatch.setattr(machine, "card_memories", lambda: (16 << 30,))
    with pytest.raises(PlanError, match=r"on cuda:0, this machine has 16.0 GiB there"):
        require_here(placed("cuda:99GiB"))
