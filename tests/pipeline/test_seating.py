"""What processes may take of a cluster: parts of devices, nodes, spares, and what is left."""

import pytest

from pipeline.device import parse_devices
from pipeline.errors import ChainError
from pipeline.placement import Placement
from pipeline.planner import PlacementRequest, place
from pipeline.seating import (
    NodeRoom,
    Seating,
    choose_nodes,
    cluster_of,
    even_seating,
    reseated,
    seat_placement,
)
from pipeline.step_cost import modelled_costs
from tests.support.planning import plan_of, work_of

pytestmark = pytest.mark.unit


def placed(devices: str, num_stages: int | None = None, flops: float = 4e13) -> Placement:
    work = work_of(4, flops)
    return place(
        PlacementRequest(
            plan=plan_of(4),
            work=work,
            costs=modelled_costs(work),
            cluster=parse_devices(devices),
            num_stages=num_stages,
        )
    )


def room(name: str, *, cpus: float = 0, gpus: float = 0, free: float = 1.0) -> NodeRoom:
    total = {"CPU": cpus, "GPU": gpus, "memory": 16 * 2**30}
    left = {kind: count * free for kind, count in total.items()}
    return NodeRoom(node_id=name, address=f"10.0.0.{name}", total=total, free=left)


def test_a_card_each_is_reserved_whole() -> None:
    seating = seat_placement(placed("cuda:80GiB x5"))
    assert seating.needs == {"CPU": 5.0, "GPU": 5.0}
    assert [(seat.bundle, seat.num_gpus) for seat in seating.seats] == [(i, 1.0) for i in range(5)]


def test_stages_that_share_a_card_share_its_bundle_in_equal_parts() -> None:
    seating = seat_placement(placed("cuda:400GiB", num_stages=4))
    assert seating.needs == {"CPU": 1.0, "GPU": 1.0}
    assert {(s.bundle, s.num_cpus, s.num_gpus) for s in seating.seats} == {(0, 0.2, 0.2)}


def test_thirds_add_up_to_no_more_than_the_whole() -> None:
    seating = seat_placement(placed("cuda:400GiB", num_stages=2))
    assert sum(seat.num_gpus for seat in seating.seats) <= 1.0
    assert {seat.num_gpus for seat in seating.seats} == {0.3333}


@pytest.mark.parametrize(("num_cores", "cores"), [(5, [0, 1, 2, 3, 4]), (8, [None] * 5)])
def test_processes_stay_on_their_cores_if_the_chain_uses_them_all(
    num_cores: int, cores: list[int | None]
) -> None:
    seating = seat_placement(placed("cpu:5:99GiB"), num_cores=num_cores)
    assert [seat.core for seat in seating.seats] == cores


def test_stages_that_share_a_core_are_not_kept_on_it() -> None:
    seating = seat_placement(placed("cpu:1:400GiB", num_stages=2), num_cores=1)
    assert {seat.core for seat in seating.seats} == {None}


def test_a_spare_can_take_any_role() -> None:
    on_cores = even_seating(2).with_spares(2)
    assert on_cores.needs == {"CPU": 4.0}
    assert [spare.bundle for spare in on_cores.spares] == [2, 3]
    on_cards = seat_placement(placed("cuda:80GiB x5")).with_spares(1)
    assert on_cards.needs == {"CPU": 6.0, "GPU": 6.0}
    assert on_cards.spares[0].num_gpus == 1.0


def test_each_of_the_planners_nodes_gets_the_fullest_node_that_has_room() -> None:
    seating = seat_placement(placed("cuda:80GiB x3 / cuda:80GiB x2"))
    rooms = [room("1", cpus=16, gpus=8), room("2", cpus=8, gpus=3), room("3", cpus=8, gpus=2)]
    assert choose_nodes(seating, rooms) == {"node0": "2", "node1": "3"}


def test_a_node_that_is_known_is_the_only_one() -> None:
    seating = seat_placement(placed("cpu:5:99GiB"))
    rooms = [room("1", cpus=5), room("2", cpus=9)]
    assert choose_nodes(seating, rooms, {"node0": "2"}) == {"node0": "2"}
    with pytest.raises(ChainError, match="5 CPU in one node"):
        choose_nodes(seating, [rooms[0], room("2", cpus=9, free=0.5)], {"node0": "2"})


@pytest.mark.parametrize(
    ("seating", "says"),
    [
        (seat_placement(placed("cpu:5:99GiB")), "needs 5 CPU in one node"),
        (seat_placement(placed("cuda:80GiB x5")), "needs 5 CPU and 5 GPU in one node"),
        (even_seating(9), r"needs 9 CPU, and .* \(node 10.0.0.1 has 4 CPU, 2 CPU free; node"),
    ],
)
def test_too_small_a_cluster_is_refused_with_the_arithmetic(seating: Seating, says: str) -> None:
    with pytest.raises(ChainError, match=says) as error:
        choose_nodes(seating, [room("1", cpus=4, free=0.5), room("2", cpus=4)])
    assert "\n" not in str(error.value)


def test_stages_go_where_there_is_room_in_all() -> None:
    assert choose_nodes(even_seating(8), [room("1", cpus=4), room("2", cpus=4)]) == {}


def test_what_is_left_of_a_cluster_is_shared_by_neighbours() -> None:
    seating = reseated(even_seating(4), [room("1", cpus=2)])
    assert [seat.bundle for seat in seating.seats] == [0, 0, 1, 1]
    assert {seat.num_cpus for seat in seating.seats} == {0.5}
    whole = reseated(even_seating(4), [room("1", cpus=9)])
    assert [seat.bundle for seat in whole.seats] == [0, 1, 2, 3]


def test_stages_on_cards_stay_on_cards() -> None:
    cards = seat_placement(placed("cuda:80GiB x5"))
    seating = reseated(cards, [room("1", cpus=9, gpus=2)])
    assert seating.needs == {"CPU": 2.0, "GPU": 2.0}
    assert [seat.bundle for seat in seating.seats] == [0, 0, 0, 1, 1]
    with pytest.raises(ChainError, match="9 CPU and 0 GPU free"):
        reseated(cards, [room("1", cpus=9)])


def test_a_cluster_is_its_free_devices() -> None:
    rooms = [room("1", cpus=2), room("2", cpus=8, gpus=2), room("3", cpus=8, free=0.25)]
    cluster = cluster_of(rooms, {"2": [80 << 30, 80 << 30]})
    named = [f"{device.node}/{device.name}" for device in cluster.devices]
    assert named == [
        "node0/cpu:0",
        "node0/cpu:1",
        "node1/cuda:0",
        "node1/cuda:1",
        "node2/cpu:0",
        "node2/cpu:1",
    ]
    assert cluster.devices[0].memory_bytes == 8 << 30
    with pytest.raises(ChainError, match="no device free"):
        cluster_of([room("1", cpus=0.5)], {})
