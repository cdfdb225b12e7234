"""What may happen to a job, and what it is afterwards: pure, with the time passed in.

A worker holds a job by a lease with a number. Whoever acts for the job shows the number, so that a
worker that was taken for dead and comes back changes nothing any more.
"""

from dataclasses import dataclass, replace

from services.job_queue import Job, JobError, JobState

_S = JobState
TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    _S.QUEUED: frozenset({_S.RUNNING, _S.CANCELLED}),
    _S.RUNNING: frozenset({_S.QUEUED, _S.SUCCEEDED, _S.FAILED, _S.CANCELLED}),
    _S.SUCCEEDED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
}


class JobStateError(RuntimeError):
    """A job was to become what it cannot become from where it is: a fault of the program."""


class LeaseLost(JobError):
    """The job is another's by now, or was cancelled: whoever works on it stops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRules:
    """How patient a queue is; times in seconds.

    A job fails for good after `max_failures` in a row without a segment finished between them.
    """

    lease_s: float = 15.0
    max_failures: int = 5
    backoff_s: float = 2.0
    max_backoff_s: float = 300.0

    def delay_s(self, failures: int) -> float:
        """How long a job rests after so many failures in a row: twice as long each time."""
        return min(self.max_backoff_s, self.backoff_s * 2.0 ** min(failures - 1, 30))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A job that a worker holds until a time."""

    job_id: str
    worker: str
    number: int
    expires_at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """A job with what only the queue knows of it.

    `digest` says whether two requests ask for the same; `version` rises with every change;
    `num_leases` is the number of the last lease.
    """

    job: Job
    owner: str = ""
    key: str = ""
    digest: str = ""
    available_at_s: float = 0.0
    failures: int = 0
    lease: Lease | None = None
    num_leases: int = 0
    version: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a render is."""

    num_frames_done: int
    num_frames_total: int
    num_segments_done: int
    num_segments_total: int
    fps: float = 0.0
    eta_s: float = -1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Where the finished film lies, and what it is."""

    url: str
    num_bytes: int
    sha256: str


def leased(record: JobRecord, worker: str, now_s: float, rules: QueueRules) -> JobRecord:
    """The job in a worker's hands."""
    number = record.num_leases + 1
    job = record.job
    begun = replace(
        job,
        started_at_s=job.started_at_s or now_s,
        attempt=job.attempt + 1,
        error_reason="",
        error_detail="",
    )
    lease = Lease(job_id=job.id, worker=worker, number=number, expires_at_s=now_s + rules.lease_s)
    return _changed(record, _S.RUNNING, begun, lease=lease, num_leases=number)


def held(record: JobRecord, lease: Lease) -> JobRecord:
    """The record, if the lease still holds its job; a late worker nobody has replaced holds it.

    Raises:
        LeaseLost: it does not.
    """
    own = record.lease
    if record.job.state is not _S.RUNNING or own is None or own.number != lease.number:
        raise LeaseLost(f"job {record.job.id} is {record.job.state.value}, not this worker's")
    return record


def renewed(record: JobRecord, now_s: float, rules: QueueRules) -> JobRecord:
    """The job, held for longer; nothing that watchers see changes."""
    if record.lease is None:
        raise JobStateError("a lease that nobody holds cannot be renewed")
    return replace(record, lease=replace(record.lease, expires_at_s=now_s + rules.lease_s))


def progressed(record: JobRecord, progress: Progress) -> JobRecord:
    """The job further on; a finished segment makes earlier failures forgotten."""
    job = record.job
    is_further = progress.num_segments_done > job.num_segments_done
    further = replace(
        job,
        num_frames_done=progress.num_frames_done,
        num_frames_total=progress.num_frames_total,
        num_segments_done=progress.num_segments_done,
        num_segments_total=progress.num_segments_total,
        fps=progress.fps,
        eta_s=progress.eta_s,
    )
    failures = 0 if is_further else record.failures
    return replace(record, job=further, failures=failures, version=record.version + 1)


def previewed(record: JobRecord, url: str) -> JobRecord:
    """The job with its preview clip."""
    job = replace(record.job, preview_url=url)
    return replace(record, job=job, version=record.version + 1)


def given_back(record: JobRecord, now_s: float) -> JobRecord:
    """The job for another worker at once: this one stops, the job is not to blame."""
    return _changed(record, _S.QUEUED, record.job, available_at_s=now_s)


def failed(
    record: JobRecord,
    reason: str,
    detail: str,
    now_s: float,
    rules: QueueRules,
    *,
    for_good: bool = False,
    is_blameless: bool = False,
) -> JobRecord:
    """The job after a failure: queued again after a rest, or failed for good.

    A blameless one (no space on the disk) is tried for ever, with ever longer rests.
    """
    failures = record.failures + 1
    if is_blameless:
        failures = min(failures, rules.max_failures - 1)
    job = replace(record.job, error_reason=reason, error_detail=detail)
    if for_good or failures >= rules.max_failures:
        return _changed(record, _S.FAILED, _ended(job, now_s), failures=failures)
    rest_s = rules.delay_s(failures)
    return _changed(record, _S.QUEUED, job, available_at_s=now_s + rest_s, failures=failures)


def abandoned(record: JobRecord, now_s: float, rules: QueueRules) -> JobRecord:
    """The job after its worker fell silent; one that kills its workers fails in the end."""
    return failed(
        record,
        "WORKER_LOST",
        "the worker stopped answering: the job goes on from its last whole segment",
        now_s - rules.delay_s(record.failures + 1),
        rules,
    )


def succeeded(record: JobRecord, result: Result, now_s: float) -> JobRecord:
    """The job with its film."""
    job = replace(
        record.job,
        result_url=result.url,
        result_bytes=result.num_bytes,
        result_sha256=result.sha256,
        eta_s=0.0,
    )
    return _changed(record, _S.SUCCEEDED, _ended(job, now_s))


def cancelled(record: JobRecord, now_s: float) -> JobRecord:
    """The job stopped for good; one that has ended stays what it is."""
    if record.job.state.is_terminal:
        return record
    return _changed(record, _S.CANCELLED, _ended(record.job, now_s))


def _ended(job: Job, now_s: float) -> Job:
    return replace(job, ended_at_s=now_s)


def _changed(
    record: JobRecord,
    state: JobState,
    job: Job,
    *,
    lease: Lease | None = None,
    available_at_s: float | None = None,
    failures: int | None = None,
    num_leases: int | None = None,
) -> JobRecord:
    """The record in another state.

    Raises:
        JobStateError: the table has no such change.
    """
    if state not in TRANSITIONS[record.job.state]:
        before = record.job.state.value
        raise JobStateError(f"a job that is {before} cannot become {state.value}")
    return replace(
        record,
        job=replace(job, state=state),
        lease=lease,
        available_at_s=record.available_at_s if available_at_s is None else available_at_s,
        failures=record.failures if failures is None else failures,
        num_leases=record.num_leases if num_leases is None else num_leases,
        version=record.version + 1,
    )
