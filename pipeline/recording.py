"""What a chain did, kept for figures and a trace; the oldest is forgotten when there is too much.

Owned by whoever asked for it; one thread adds, and after that any may read.
"""

from collections import deque
from collections.abc import Iterable

from pipeline.collector import Observation
from pipeline.spans import Record
from pipeline.timings import ChainTimings, timings
from pipeline.trace import Mark, Sample, Story

# Two hours of one session in a chain of five nodes; a trace of about 60 MB.
MAX_RECORDS = 1 << 17
MAX_SAMPLES = 1 << 14
MAX_MARKS = 1 << 10


class Recording:
    """The latest records of one chain and what else is to be seen in its trace."""

    def __init__(self, *, max_records: int = MAX_RECORDS, max_samples: int = MAX_SAMPLES) -> None:
        """Begin with nothing."""
        self._names: tuple[str, ...] = ()
        self._all_names: dict[str, None] = {}
        self._records: deque[Record] = deque(maxlen=max_records)
        self._samples: deque[Sample] = deque(maxlen=max_samples)
        self._marks: deque[Mark] = deque(maxlen=MAX_MARKS)
        self._held: dict[str, int] = {}
        self._num_records = 0

    def add(self, seen: Observation) -> None:
        """Note what an observation brings."""
        self.note(seen.names, seen.records)
        for report in seen.reports:
            if report is not None:
                held = sum(num_bytes for _, num_bytes in report.memory_bytes)
                self._sample(report.stage, seen.at_ns, held)
        for one in seen.replacements:
            text = f"{seen.name_of(one)} {one.reason}, replaced in {one.healed_s:.2f} s"
            self._marks.append(Mark(text=text, at_ns=seen.at_ns))

    def note(self, names: tuple[str, ...], records: Iterable[Record]) -> None:
        """Note records of stages `names`, first to last; a chain may be cut anew in between."""
        self._names = names
        self._all_names |= dict.fromkeys(names)
        for record in records:
            self._records.append(record)
            self._num_records += 1

    def _sample(self, stage: str, at_ns: int, memory_bytes: int) -> None:
        """Note how much a stage holds if that has changed."""
        if self._held.get(stage) != memory_bytes:
            self._held[stage] = memory_bytes
            self._samples.append(Sample(stage=stage, at_ns=at_ns, memory_bytes=memory_bytes))

    @property
    def num_records(self) -> int:
        """Records that are kept."""
        return len(self._records)

    def timings(self) -> ChainTimings:
        """The figures of what is kept of the stages as they were cut last."""
        return timings(self._names, self._records)

    def story(self) -> Story:
        """What is kept, to be drawn as a trace."""
        return Story(
            names=tuple(self._all_names),
            records=tuple(self._records),
            samples=tuple(self._samples),
            marks=tuple(self._marks),
            num_dropped=self._num_records - len(self._records),
        )
