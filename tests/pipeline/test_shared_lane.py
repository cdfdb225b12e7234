"""A lane keeps order and bytes, never waits, and is refused where it could vanish."""

import os
import random
from collections import deque
from collections.abc import Iterator

import pytest

from pipeline.shared_lane import SharedLane, lane_memory

pytestmark = pytest.mark.unit

ROOM = 1000


@pytest.fixture
def ends() -> Iterator[tuple[SharedLane, SharedLane]]:
    fd = lane_memory(ROOM)
    assert fd is not None
    yield SharedLane(fd), SharedLane(fd)
    os.close(fd)


def taken(lane: SharedLane, place: int, size: int) -> bytes:
    into = bytearray(size)
    lane.take(place, memoryview(into))
    return bytes(into)


def test_what_is_put_is_taken_in_order_however_it_is_cut(
    ends: tuple[SharedLane, SharedLane],
) -> None:
    near, far = ends
    chance = random.Random(0)  # noqa: S311 - a test's sizes
    under_way: deque[tuple[int, bytes]] = deque()
    refused = 0
    for _ in range(5000):
        data = chance.randbytes(chance.randint(1, ROOM // 2))
        place = near.put(data)
        if place is not None:
            under_way.append((place, data))
        refused += place is None
        if under_way and (place is None or chance.random() < 0.4):
            place, data = under_way.popleft()
            assert taken(far, place, len(data)) == data
    assert refused > 100


def test_a_full_lane_says_so_and_has_room_once_it_was_read(
    ends: tuple[SharedLane, SharedLane],
) -> None:
    near, far = ends
    place = near.put(bytes(ROOM))
    assert place == 0
    assert near.put(b"x") is None
    taken(far, place, ROOM)
    assert near.put(b"x") == ROOM
    assert near.put(bytes(ROOM + 1)) is None


def test_bytes_that_cannot_lie_there_are_refused(ends: tuple[SharedLane, SharedLane]) -> None:
    with pytest.raises(ValueError, match="one piece"):
        ends[1].take(ROOM - 1, memoryview(bytearray(2)))


def test_memory_that_can_be_taken_away_is_refused() -> None:
    fd = os.memfd_create("viva-test", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 4096)
    with pytest.raises(OSError, match="sealed"):
        SharedLane(fd)
    os.close(fd)
