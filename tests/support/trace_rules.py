"""The rules of the trace event format, as far as our traces use it; complains of the first breach.

After "Trace Event Format" (Google): phases M, X, C, i, flows s/t/f, asynchronous slices b/e.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

Event = Mapping[str, Any]

_NEEDED = {
    "M": {"name", "pid", "args"},
    "X": {"name", "cat", "pid", "tid", "ts", "dur"},
    "C": {"name", "pid", "ts", "args"},
    "i": {"name", "pid", "tid", "ts", "s"},
    "s": {"name", "cat", "id", "pid", "tid", "ts"},
    "t": {"name", "cat", "id", "pid", "tid", "ts"},
    "f": {"name", "cat", "id", "pid", "tid", "ts", "bp"},
    "b": {"name", "cat", "id", "pid", "ts"},
    "e": {"name", "cat", "id", "pid", "ts"},
}
_METADATA = {"process_name", "process_sort_index", "thread_name"}


def require_valid_trace(trace: Mapping[str, Any]) -> None:
    """Fail unless a trace keeps all rules."""
    events: list[Event] = json.loads(json.dumps(trace, allow_nan=False))["traceEvents"]
    for event in events:
        _require_fields(event)
    moments = [event["ts"] for event in events if event["ph"] != "M"]
    assert moments == sorted(moments), "events are not in the order of time"
    slices = [event for event in events if event["ph"] == "X"]
    _require_nesting(slices)
    _require_flows([event for event in events if event["ph"] in "stf"], slices)
    _require_pairs([event for event in events if event["ph"] in "be"])
    named = {e["pid"] for e in events if e["ph"] == "M" and e["name"] == "process_name"}
    assert {e["pid"] for e in events if e["ph"] != "M"} <= named | {1}, "a process has no name"


def _require_fields(event: Event) -> None:
    assert event["ph"] in _NEEDED, f"phase {event['ph']} is unknown"
    missing = _NEEDED[event["ph"]] - set(event)
    assert not missing, f"{event} lacks {missing}"
    if event["ph"] == "M":
        assert event["name"] in _METADATA
    else:
        assert event["ts"] >= 0
    if event["ph"] == "X":
        assert event["dur"] >= 0
    if event["ph"] == "C":
        assert event["args"]
        assert all(isinstance(value, int | float) for value in event["args"].values())
    if event["ph"] == "i":
        assert event["s"] in "gpt"


def _require_nesting(slices: Iterable[Event]) -> None:
    """Slices of one row lie beside or inside each other."""
    open_until: dict[tuple[int, int], list[float]] = {}
    for event in slices:
        stack = open_until.setdefault((event["pid"], event["tid"]), [])
        while stack and stack[-1] <= event["ts"] + 1e-6:
            stack.pop()
        end = event["ts"] + event["dur"]
        assert not stack or end <= stack[-1] + 1e-6, f"{event} overlaps another slice"
        stack.append(end)


def _require_flows(points: Iterable[Event], slices: Iterable[Event]) -> None:
    """Each arrow begins once, ends once, never goes back in time, and touches slices."""
    rows: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for event in slices:
        row = rows.setdefault((event["pid"], event["tid"]), [])
        row.append((event["ts"], event["ts"] + event["dur"]))
    ways: dict[tuple[str, str, str], list[Event]] = {}
    for point in points:
        ways.setdefault((point["cat"], point["name"], point["id"]), []).append(point)
        row = rows.get((point["pid"], point["tid"]), [])
        assert any(begin <= point["ts"] <= end for begin, end in row), f"{point} touches nothing"
    for way in ways.values():
        phases = "".join(point["ph"] for point in way)
        assert phases == "s" + "t" * (len(way) - 2) + "f", f"an arrow of {phases}"


def _require_pairs(events: Iterable[Event]) -> None:
    """Asynchronous slices begin and end in turn."""
    is_open: dict[tuple[str, str], bool] = {}
    for event in events:
        key = event["cat"], event["id"]
        assert is_open.get(key, False) == (event["ph"] == "e"), f"{event} is out of turn"
        is_open[key] = event["ph"] == "b"
    assert not any(is_open.values()), "an asynchronous slice never ends"
