"""A trace keeps the format's rules, shows every chunk, and never grows without end."""

from dataclasses import replace

import pytest

from pipeline.recording import Recording
from pipeline.trace import Mark, Sample, Story, chrome_trace
from tests.support.made_records import MS, pipelined, sending, span
from tests.support.trace_rules import require_valid_trace

pytestmark = pytest.mark.unit

NAMES = ("s0", "s1", "s2")


def story(num_chunks: int = 20) -> Story:
    samples = tuple(Sample(stage="s1", at_ns=t * MS, memory_bytes=100 * t) for t in (5, 9))
    return Story(
        names=NAMES,
        records=tuple(pipelined(num_chunks, (10, 40, 20))),
        samples=samples,
        marks=(Mark(text="1-s1 died", at_ns=300 * MS),),
    )


def test_it_keeps_the_rules_of_the_format() -> None:
    require_valid_trace(chrome_trace(story()))


def test_every_chunk_is_a_slice_in_every_stage_and_one_arrow_through_all() -> None:
    events = chrome_trace(story())["traceEvents"]
    names = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert list(names.values()) == ["source", *NAMES, "sink"]
    worked = [(names[e["pid"]], e["args"]["chunk"]) for e in events if e.get("cat") == "compute"]
    assert sorted(worked) == sorted((s, c) for s in (*NAMES, "sink") for c in range(20))
    arrow = [
        (e["ph"], names[e["pid"]]) for e in events if e.get("id") == "1/7" and e["ph"] in "stf"
    ]
    assert arrow == [("s", "s0"), ("t", "s1"), ("t", "s2"), ("f", "sink")]
    (mark,) = [e for e in events if e["ph"] == "i"]
    assert (mark["name"], mark["ts"]) == ("1-s1 died", 300_000)


def test_counters_follow_the_queue_and_the_state() -> None:
    events = chrome_trace(story())["traceEvents"]
    depths = [e["args"]["chunks"] for e in events if e["name"] == "waiting" and e["pid"] == 3]
    assert max(depths) > 5
    assert depths[-1] == min(depths) == 0
    held = [(e["ts"], e["args"]["bytes"]) for e in events if e["name"] == "state held"]
    assert held == [(5000, 500), (9000, 900)]


def test_what_was_done_twice_after_a_fault_breaks_no_rule() -> None:
    again = [span("s1", chunk, 900, 900 + chunk, 901 + chunk) for chunk in (4, 5, 6)]
    again += [span("s1", 30, 1, 1, 2)]  # and one whose beginning nobody saw
    more = replace(story(), records=(*story().records, *again, sending("gone", 1, 1, 2)))
    require_valid_trace(chrome_trace(more))


def test_a_trace_of_nothing_is_a_trace() -> None:
    require_valid_trace(chrome_trace(Story(names=NAMES, records=())))


@pytest.mark.parametrize("breach", ["overlap", "arrow", "wait", "order"])
def test_the_rules_notice_a_breach(breach: str) -> None:
    """A detector needs a planted case."""
    trace = chrome_trace(story())
    events = trace["traceEvents"]
    if breach == "overlap":
        next(e for e in events if e["ph"] == "X" and e["dur"])["dur"] += 35_000
    elif breach == "order":
        events.append({**events[-1], "ts": 0.0})
    else:
        events.remove(next(e for e in events if e["ph"] == {"arrow": "f", "wait": "e"}[breach]))
    with pytest.raises(AssertionError):
        require_valid_trace(trace)


def test_a_recording_forgets_the_oldest_and_says_how_many() -> None:
    recording = Recording(max_records=100)
    records = pipelined(200, (1, 1, 1))
    recording.note(NAMES, records)
    kept = recording.story()
    assert kept.records == tuple(records[-100:])
    assert (
        kept.num_dropped == len(records) - 100 == chrome_trace(kept)["otherData"]["records_dropped"]
    )
    require_valid_trace(chrome_trace(kept))
