"""When a live session saves time, and when it does better again."""

from collections.abc import Sequence

import pytest

from pipeline.ladder import HOLD, WELL, Ladder

pytestmark = pytest.mark.unit


def climbed(ladder: Ladder, lateness_ms: Sequence[float], *, start_s: float = 0.0) -> list[Ladder]:
    """Where it stands after each of these chunks, one every 480 ms."""
    found = []
    for index, late_ms in enumerate(lateness_ms):
        ladder = ladder.after(late_ms, start_s + 0.48 * index)
        found.append(ladder)
    return found


def rungs(found: list[Ladder]) -> list[int]:
    return [one.rung for one in found]


def test_a_little_late_is_not_late() -> None:
    assert rungs(climbed(Ladder(rungs=(1, 2)), [0, 39, -100, 40])) == [WELL] * 4


def test_each_late_chunk_is_one_rung_and_the_last_one_stays() -> None:
    assert rungs(climbed(Ladder(rungs=(1, 2, 3)), [100] * 5)) == [1, 2, 3, 3, 3]


def test_only_rungs_that_save_time_are_taken() -> None:
    assert rungs(climbed(Ladder(rungs=(2,)), [100, 100])) == [2, 2]
    assert rungs(climbed(Ladder(rungs=()), [100, 100])) == [WELL, WELL]


def test_a_change_is_given_time_to_show() -> None:
    ladder = Ladder(rungs=(1, 2)).after(100, 0.0)
    assert ladder.after(100, 0.3).rung == 1
    assert ladder.after(100, 0.5).rung == 2


def test_hopeless_lateness_holds_the_picture_until_it_is_made_up_for() -> None:
    found = climbed(Ladder(rungs=(1, 2)), [500, 450, 300, 0])
    assert rungs(found) == [HOLD, HOLD, 2, 2]
    assert rungs(climbed(Ladder(rungs=()), [500, -50])) == [HOLD, WELL]


def test_calm_brings_it_back_one_rung_at_a_time() -> None:
    ladder = climbed(Ladder(rungs=(1, 2)), [100, 100])[-1]
    found = rungs(climbed(ladder, [0] * 40, start_s=1.0))
    assert found[0] == 2
    assert found[-1] == WELL
    first, second = found.index(1), found.index(WELL)
    assert 10 <= first <= 12
    assert 10 <= second - first <= 13


def test_a_late_chunk_in_between_starts_the_calm_anew() -> None:
    ladder = climbed(Ladder(rungs=(1,)), [100])[-1]
    assert rungs(climbed(ladder, ([0] * 9 + [100]) * 4, start_s=1.0)) == [1] * 40


def test_a_try_that_failed_is_made_again_later_each_time() -> None:
    ladder, now_s, tries = Ladder(rungs=(1,)).after(100, 0.0), 0.0, []
    since_s = 0.0
    for _ in range(2000):
        now_s += 0.48
        ladder = ladder.after(100 if ladder.rung == WELL else 0, now_s)
        if ladder.rung == WELL:
            tries.append(now_s - since_s)
            since_s = now_s
    assert tries[0] < 6
    assert tries[1] > 9
    assert tries[2] > 19
    assert max(tries) < 63
