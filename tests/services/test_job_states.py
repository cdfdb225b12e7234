"""Whatever happens to a job in whatever order, it is never where it cannot be."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.job_queue import Job, JobRequest, JobState
from services.job_states import (
    TRANSITIONS,
    JobRecord,
    JobStateError,
    Lease,
    LeaseLost,
    Progress,
    QueueRules,
    Result,
    abandoned,
    cancelled,
    failed,
    given_back,
    held,
    leased,
    progressed,
    renewed,
    succeeded,
)

pytestmark = pytest.mark.unit

RULES = QueueRules(lease_s=10.0, max_failures=3, backoff_s=2.0, max_backoff_s=60.0)
FILM = Result(url="u", num_bytes=1, sha256="0")


def fresh() -> JobRecord:
    request = JobRequest(portrait="p", audio="a")
    job = Job(id="j", state=JobState.QUEUED, request=request, created_at_s=0.0)
    return JobRecord(job=job)


def test_ends_are_for_good_and_all_else_leads_somewhere() -> None:
    for state, following in TRANSITIONS.items():
        assert bool(following) != state.is_terminal


def test_a_job_cannot_jump() -> None:
    with pytest.raises(JobStateError, match="queued cannot become succeeded"):
        succeeded(fresh(), FILM, 1.0)
    with pytest.raises(JobStateError, match="cancelled cannot become running"):
        leased(cancelled(fresh(), 1.0), "w", 2.0, RULES)


@pytest.mark.parametrize(("failures", "rest_s"), [(1, 2.0), (2, 4.0), (5, 32.0), (9, 60.0)])
def test_the_rest_doubles_up_to_a_limit(failures: int, rest_s: float) -> None:
    assert RULES.delay_s(failures) == rest_s
    assert RULES.delay_s(10_000) == 60.0


class JobLife(RuleBasedStateMachine):
    """Workers, users and time act on one job at will; old leases are tried again and again."""

    def __init__(self) -> None:
        super().__init__()
        self.record = fresh()
        self.now_s = 1.0
        self.leases: list[Lease] = []
        self.before = self.record
        self.segments = 0

    @rule(seconds=st.floats(0.0, 30.0))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @rule()
    def take(self) -> None:
        lease = self.record.lease
        if lease is not None and lease.expires_at_s <= self.now_s:
            self.record = abandoned(self.record, self.now_s, RULES)
        is_queued = self.record.job.state is JobState.QUEUED
        if is_queued and self.record.available_at_s <= self.now_s:
            self.record = leased(self.record, "w", self.now_s, RULES)
            assert self.record.lease is not None
            self.leases.append(self.record.lease)

    @contextmanager
    def holding(self, which: int) -> Iterator[bool]:
        """Act with one of all the leases there ever were; only the last one may count."""
        if not self.leases:
            yield False
            return
        lease = self.leases[which % len(self.leases)]
        try:
            held(self.record, lease)
        except LeaseLost:
            yield False
        else:
            assert lease.number == self.leases[-1].number
            yield True

    @rule(which=st.integers(0, 30))
    def renew(self, which: int) -> None:
        with self.holding(which) as holds:
            if holds:
                self.record = renewed(self.record, self.now_s, RULES)

    @rule(which=st.integers(0, 30), is_further=st.booleans())
    def advance(self, which: int, is_further: bool) -> None:
        with self.holding(which) as holds:
            if holds:
                self.segments += is_further
                progress = Progress(
                    num_frames_done=self.segments * 10,
                    num_frames_total=0,
                    num_segments_done=self.segments,
                    num_segments_total=0,
                )
                self.record = progressed(self.record, progress)

    @rule(which=st.integers(0, 30), for_good=st.booleans())
    def fail(self, which: int, for_good: bool) -> None:
        with self.holding(which) as holds:
            if holds:
                self.record = failed(self.record, "R", "d", self.now_s, RULES, for_good=for_good)
                assert not for_good or self.record.job.state is JobState.FAILED

    @rule(which=st.integers(0, 30))
    def give_back(self, which: int) -> None:
        with self.holding(which) as holds:
            if holds:
                self.record = given_back(self.record, self.now_s)

    @rule(which=st.integers(0, 30))
    def succeed(self, which: int) -> None:
        with self.holding(which) as holds:
            if holds:
                self.record = succeeded(self.record, FILM, self.now_s)

    @rule()
    def cancel(self) -> None:
        self.record = cancelled(self.record, self.now_s)
        assert self.record.job.state.is_terminal

    @invariant()
    def only_legal_changes(self) -> None:
        before, after = self.before.job.state, self.record.job.state
        # `take` may reap and lease in one go.
        passes = {s for mid in TRANSITIONS[before] for s in TRANSITIONS[mid]}
        assert after is before or after in TRANSITIONS[before] | passes
        assert not before.is_terminal or self.record == self.before
        assert self.record.version >= self.before.version
        self.before = self.record

    @invariant()
    def held_only_while_running(self) -> None:
        job = self.record.job
        assert (self.record.lease is not None) == (job.state is JobState.RUNNING)
        assert job.ended_at_s > 0 or not job.state.is_terminal
        assert self.record.failures <= RULES.max_failures
        assert job.attempt == self.record.num_leases


JobLife.TestCase.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
TestJobLife = JobLife.TestCase
