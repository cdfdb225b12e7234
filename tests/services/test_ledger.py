"""Sound that waits: nothing is lost, nothing is heard twice, and positions are exact."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ledger import MAX_REMEMBERED, Ledger, LedgerFull, UtteranceOver

pytestmark = pytest.mark.unit


@given(
    pieces=st.lists(st.integers(0, 50), max_size=12),
    takes=st.lists(st.integers(0, 70), max_size=12),
    looks=st.lists(st.integers(0, 300), max_size=12),
)
def test_sound_comes_out_as_it_came_in(
    pieces: list[int], takes: list[int], looks: list[int]
) -> None:
    ledger, said_T = Ledger(1000), np.arange(1, sum(pieces) + 1).astype(np.int16)
    ledger.accept("u", said_T[:0])
    for end, size in zip(np.cumsum(pieces), pieces, strict=True):
        ledger.accept("u", said_T[end - size : end])
    entry = ledger.find("u")
    assert entry is not None
    heard: list[int] = []
    for count, look in zip(takes, [*looks, *takes], strict=False):
        start = entry.num_played + look % (entry.num_waiting + 1)
        assert (entry.peek(start) == said_T[start:]).all()
        assert (entry.peek(start, 5) == said_T[start : start + 5]).all()
        entry.num_sent = start
        assert (entry.unsent() == said_T[start:]).all()
        heard += entry.take(count).tolist()
        assert ledger.positions()["u"].played_samples == len(heard)
        assert ledger.num_waiting == len(said_T) - len(heard)
    assert heard == said_T[: len(heard)].tolist()


def test_a_sender_cannot_change_what_it_sent() -> None:
    ledger, said_T = Ledger(1000), np.ones(10, np.int16)
    ledger.accept("u", said_T)
    said_T[:] = 7
    assert ledger.entries[0].take(10).tolist() == [1] * 10


def test_room_is_exact_on_both_sides() -> None:
    ledger = Ledger(1000, max_ahead_s=2)
    ledger.accept("u", np.ones(1999, np.int16))
    assert ledger.room() == 1
    with pytest.raises(LedgerFull):
        ledger.accept("v", np.ones(2, np.int16))
    assert ledger.find("v") is None
    ledger.accept("v", np.ones(1, np.int16))
    assert ledger.room() == 0


def test_what_is_over_stays_over_and_is_remembered_for_a_while() -> None:
    ledger = Ledger(1000)
    for n in range(MAX_REMEMBERED + 1):
        ledger.accept(str(n), np.ones(1, np.int16))
    assert [entry.name for entry in ledger.drop("1")] == ["0", "1"]
    assert ledger.drop("unknown") == []
    with pytest.raises(UtteranceOver):
        ledger.accept("1", np.ones(1, np.int16))
    ledger.end("1")
    assert ledger.find("1") is None
    ledger.drop()
    positions = ledger.positions()
    assert len(positions) == MAX_REMEMBERED
    assert "0" not in positions
    assert positions["1"].was_interrupted
    assert positions["1"].played_ms == 0
