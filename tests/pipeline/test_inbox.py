"""Whose chunk is next, in virtual time: deadlines first, then fair shares, nobody held back."""

import heapq
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from pipeline.deadline_queue import CREDIT
from pipeline.inbox import Inbox
from pipeline.message import Message
from pipeline.step_cost import BatchProfile

pytestmark = pytest.mark.unit

MS = 1_000_000


def work(epoch: int, chunk: int, due_ms: float = 0.0) -> Message:
    due_ns = int(due_ms * MS)
    return Message(kind="work", session=f"s{epoch}", epoch=epoch, chunk=chunk, due_ns=due_ns)


class Bench:
    """One stage in virtual time: `cost_ms` by session, and sources that fill windows."""

    def __init__(self, cost_ms: dict[int, float], horizon_s: float = 2.0) -> None:
        self.inbox = Inbox(64, horizon_s=horizon_s)
        self.cost_ms, self.now_ms = cost_ms, 0.0
        self.sent: dict[int, int] = defaultdict(int)
        self.done_ms: dict[int, list[float]] = defaultdict(list)
        self.spent_ms: dict[int, float] = defaultdict(float)
        self._later: list[tuple[float, int, float]] = []
        for epoch in cost_ms:
            self.inbox.open(epoch, -1)

    def send(self, epoch: int, due_ms: float = 0.0) -> None:
        size = round(self.cost_ms[epoch])  # dearer chunks are larger
        tensors = {"latents_CTHW": torch.zeros(1, 1, 1, size)}
        self.inbox.put(replace(work(epoch, self.sent[epoch], due_ms), tensors=tensors))
        self.sent[epoch] += 1

    def send_at(self, at_ms: float, epoch: int, due_ms: float = 0.0) -> None:
        heapq.heappush(self._later, (at_ms, epoch, due_ms))

    def run(self, until_ms: float, on_done: Callable[[int], None]) -> None:
        """Serve until then; `on_done` hears whose chunk was done."""
        while self.now_ms < until_ms:
            while self._later and self._later[0][0] <= self.now_ms:
                _, epoch, due_ms = heapq.heappop(self._later)
                self.send(epoch, due_ms)
            message = self.inbox.take(int(self.now_ms * MS))
            if message is None:
                if not self._later:
                    return
                self.now_ms = self._later[0][0]
                continue
            cost_ms = self.cost_ms[message.epoch]
            self.now_ms += cost_ms
            self.inbox.spent(message.epoch, cost_ms)
            self.spent_ms[message.epoch] += cost_ms
            self.done_ms[message.epoch].append(self.now_ms)
            on_done(message.epoch)


def spread(values: list[float]) -> float:
    return max(values) / min(values)


def test_eight_renders_that_run_ahead_get_the_same_number_of_chunks() -> None:
    bench = Bench(dict.fromkeys(range(1, 9), 7.0))
    for epoch in range(1, 9):
        for _ in range(epoch):  # windows of one chunk to eight
            bench.send(epoch)
    bench.run(5000.0, bench.send)
    assert spread([len(bench.done_ms[epoch]) for epoch in range(1, 9)]) <= 1.05


def test_renders_of_dear_and_cheap_chunks_get_the_same_compute() -> None:
    bench = Bench({1: 3.0, 2: 12.0, 3: 31.0})
    for epoch in (1, 2, 3) * 2:
        bench.send(epoch)
    bench.run(20_000.0, bench.send)
    assert spread(list(bench.spent_ms.values())) <= 1.02


def gained_ms(bench: Bench, until_ms: float) -> list[float]:
    before = dict(bench.spent_ms)
    bench.run(until_ms, bench.send)
    return [bench.spent_ms[epoch] - before.get(epoch, 0.0) for epoch in bench.cost_ms]


def test_who_comes_later_claims_nothing_for_the_past() -> None:
    bench = Bench({1: 10.0, 2: 10.0, 3: 10.0})
    for epoch in (1, 2) * 2:
        bench.send(epoch)
    for _ in range(2):
        bench.send_at(3000.0, 3)
    bench.run(3000.0, bench.send)
    assert spread(gained_ms(bench, 4500.0)) <= 1.05


def test_who_comes_back_catches_up_but_not_on_a_long_absence() -> None:
    bench = Bench({1: 10.0, 2: 10.0, 3: 10.0})
    for epoch in (1, 2, 3) * 2:
        bench.send(epoch)
    bench.run(600.0, bench.send)
    away = {1: True, 2: True, 3: False}
    bench.run(900.0, lambda epoch: bench.send(epoch) if away[epoch] else None)
    for _ in range(2):
        bench.send(3)
    assert spread(gained_ms(bench, 1500.0)) > 1.3  # caught up on 10 chunks
    assert spread(list(bench.spent_ms.values())) <= 1.1
    bench.run(60_000.0, lambda epoch: bench.send(epoch) if away[epoch] else None)
    for _ in range(2):
        bench.send(3)
    others, *_, back = gained_ms(bench, 64_000.0)
    assert 10 * CREDIT - 40.0 <= back - others <= 10 * CREDIT + 40.0


def test_a_session_that_is_fed_slowly_does_not_hold_the_others_back() -> None:
    bench = Bench({1: 10.0, 2: 10.0, 3: 10.0})
    for epoch in (1, 2) * 3:
        bench.send(epoch)
    for index in range(10):
        bench.send_at(300.0 * index, 3)
    bench.run(3000.0, lambda epoch: bench.send(epoch) if epoch != 3 else None)
    assert len(bench.done_ms[3]) == 10
    assert len(bench.done_ms[1]) + len(bench.done_ms[2]) >= 289  # all the time there was


def test_live_sessions_keep_their_deadlines_whatever_runs_ahead_beside_them() -> None:
    """Six live sessions take 5/8 of the stage; two renders get all that is left, in halves."""
    bench = Bench(dict.fromkeys(range(1, 9), 50.0))
    for epoch in range(1, 7):
        for index in range(40):
            at_ms = 480.0 * index + 80.0 * epoch
            bench.send_at(at_ms, epoch, due_ms=at_ms + 400.0)
    for epoch in (7, 8) * 3:
        bench.send(epoch)
    bench.run(40 * 480.0, lambda epoch: bench.send(epoch) if epoch > 6 else None)
    for epoch in range(1, 7):
        lateness = [
            done - (480.0 * index + 80.0 * epoch + 400.0)
            for index, done in enumerate(bench.done_ms[epoch])
        ]
        assert len(lateness) >= 39
        assert max(lateness) <= 0.0
    assert spread([len(bench.done_ms[7]), len(bench.done_ms[8])]) <= 1.05
    assert bench.spent_ms[7] + bench.spent_ms[8] >= 40 * 480.0 - 6 * 40 * 50.0 - 100.0


def test_what_is_due_soon_goes_first_and_what_is_due_beyond_the_horizon_waits_its_turn() -> None:
    inbox = Inbox(4, horizon_s=1.0)
    for epoch in (1, 2, 3, 4):
        inbox.open(epoch, -1)
    for message in (work(1, 0), work(2, 0, 9000), work(3, 0, 900), work(4, 0, 500)):
        inbox.put(message)
    order = [m.epoch for m in iter(inbox.take, None)]
    assert order == [4, 3, 2, 1]
    for message in (work(2, 1, 9500), work(1, 1)):
        inbox.put(message)
    inbox.spent(2, 30.0)
    inbox.spent(2, 30.0)
    inbox.spent(2, 30.0)
    assert [m.epoch for m in iter(inbox.take, None)] == [1, 2]


def test_of_a_session_that_failed_nothing_is_computed_any_more() -> None:
    inbox = Inbox(8)
    for epoch in (1, 2):
        inbox.open(epoch, -1)
        for chunk in range(3):
            inbox.put(work(epoch, chunk))
    inbox.fail(1)
    inbox.fail(9)
    assert not inbox.put(work(1, 3))
    assert [m.epoch for m in iter(inbox.take, None)] == [2, 2, 2]
    assert inbox.positions() == {"1": 3, "2": 2}


def test_chunks_of_one_size_go_together_while_that_pays() -> None:
    inbox = Inbox(8, profile=BatchProfile(ratios=(1.0, 1.3, 1.6)))
    for epoch, side in ((1, 2), (2, 2), (3, 4), (4, 2)):
        inbox.open(epoch, -1)
        for chunk in range(2):
            latents = {"latents_CTHW": torch.zeros(2, 3, side, side)}
            inbox.put(Message(kind="work", session="", epoch=epoch, chunk=chunk, tensors=latents))
    assert [m.epoch for m in inbox.take_batch(0, 2)] == [1, 2]
    assert [m.epoch for m in inbox.take_batch(0, 4)] == [3]
    assert [(m.epoch, m.chunk) for m in inbox.take_batch(0, 4)] == [(4, 0), (1, 1), (2, 1)]


def test_a_chunk_that_the_machine_held_up_is_not_charged_to_its_session() -> None:
    inbox, served = Inbox(64), []
    for epoch in (1, 2):
        inbox.open(epoch, -1)
        for chunk in range(40):
            inbox.put(work(epoch, chunk))
    for index in range(60):
        message = inbox.take()
        assert message is not None
        served.append(message.epoch)
        inbox.spent(message.epoch, 9000.0 if index in (0, 17) else 10.0)
    assert served.count(1) == served.count(2) == 30
