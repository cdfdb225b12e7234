"""Jobs in a database that several servers share: SQLite in a file, or PostgreSQL by URL.

Every change is one short transaction that reads the job, has `job_states` say what becomes of it,
and writes it back; on SQLite it begins as a writer (`BEGIN IMMEDIATE`), on PostgreSQL rows are
locked, and those that another server holds are passed over (`FOR UPDATE SKIP LOCKED`).

Several servers measure leases by their own clocks: keep these within a second or two.
"""

import contextlib
import hashlib
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter

from services.job_queue import Job, JobConflict, JobPage, JobRequest, JobState, JobUnknown
from services.job_states import (
    JobRecord,
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
    previewed,
    progressed,
    renewed,
    succeeded,
)

_BUSY_S = 30.0
_RECORD = TypeAdapter(JobRecord)
_REQUEST = TypeAdapter(JobRequest)
_metadata = sa.MetaData()
# What is asked for has a column; all that is known lies in `record`, as JSON.
_jobs = sa.Table(
    "viva_jobs",
    _metadata,
    sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("id", sa.String(32), nullable=False, unique=True),
    sa.Column("owner", sa.String(256), nullable=False),
    sa.Column("key", sa.String(256), nullable=True),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("available_at_s", sa.Double, nullable=False),
    sa.Column("lease_ends_at_s", sa.Double, nullable=True),
    sa.Column("ended_at_s", sa.Double, nullable=False),
    sa.Column("record", sa.Text, nullable=False),
    sa.UniqueConstraint("owner", "key", name="viva_jobs_key"),
    sa.Index("viva_jobs_state", "state", "available_at_s"),
)


def request_digest(request: JobRequest) -> str:
    """The same for requests that ask for the same."""
    return hashlib.sha256(_REQUEST.dump_json(request)).hexdigest()


class JobStore:
    """Durable jobs; any thread may call, and any number of processes share one database.

    Raises (every method):
        sqlalchemy.exc.SQLAlchemyError: the database cannot be reached, or its disk is full.
    """

    def __init__(self, url: str, *, rules: QueueRules | None = None) -> None:
        """Open the database, for instance `sqlite:///jobs.sqlite`; make its table if missing."""
        self.rules = rules or QueueRules()
        self._engine = _engine(url)
        with contextlib.suppress(sa.exc.IntegrityError, sa.exc.ProgrammingError):
            _metadata.create_all(self._engine)  # two servers may start at once
        with self._engine.connect() as connection:
            connection.execute(sa.select(_jobs.c.number).limit(1))

    def close(self) -> None:
        """Let go of all connections."""
        self._engine.dispose()

    def add(
        self,
        request: JobRequest,
        now_s: float,
        *,
        key: str = "",
        owner: str = "",
        asked: JobRequest | None = None,
    ) -> tuple[Job, bool]:
        """A queued job, and whether it is a new one: the same key gives the same job.

        `asked` is the request as the caller wrote it, where inputs have been fetched meanwhile.

        Raises:
            JobConflict: the key stands for another request.
        """
        job = Job(id=uuid.uuid4().hex, state=JobState.QUEUED, request=request, created_at_s=now_s)
        digest = request_digest(asked or request)
        record = JobRecord(job=job, owner=owner, key=key, digest=digest, available_at_s=now_s)
        try:
            with self._engine.begin() as connection:
                connection.execute(_jobs.insert().values(**_columns(record)))
        except sa.exc.IntegrityError:
            return self._same(asked or request, record), False
        return job, True

    def find_key(self, request: JobRequest, key: str, owner: str) -> Job | None:
        """The job that was taken under a key, if there is one.

        Raises:
            JobConflict: it was for another request.
        """
        chosen = sa.and_(_jobs.c.owner == owner, _jobs.c.key == key)
        with self._reading() as connection:
            row = connection.execute(sa.select(_jobs.c.record).where(chosen)).first()
        if row is None or not key:
            return None
        known = _record(row.record)
        if known.digest != request_digest(request):
            raise JobConflict(
                f"idempotency key {key[:40]!r} stands for another request: choose another key"
            )
        return known.job

    def _same(self, asked: JobRequest, record: JobRecord) -> Job:
        """The job that has the record's key."""
        known = self.find_key(asked, record.key, record.owner)
        if known is None:
            raise JobConflict(f"job {record.job.id} came and went at once: submit it again")
        return known

    def get(self, job_id: str, owner: str = "") -> JobRecord:
        """What is known of a job.

        Raises:
            JobUnknown: there is none, or it is another owner's.
        """
        with self._reading() as connection:
            return _found(connection, job_id, owner, lock=False)

    def page(
        self, token: str, size: int, states: tuple[JobState, ...] = (), owner: str = ""
    ) -> JobPage:
        """Some jobs, newest first; the token is one that an earlier page gave, or empty."""
        chosen = sa.select(_jobs.c.number, _jobs.c.record).order_by(_jobs.c.number.desc())
        if token:
            if not token.isdecimal() or len(token) > 18:
                raise JobUnknown(
                    f"page {token[:40]!r} is none that was given: start from the first"
                )
            chosen = chosen.where(_jobs.c.number < int(token))
        if states:
            chosen = chosen.where(_jobs.c.state.in_([s.value for s in states]))
        if owner:
            chosen = chosen.where(_jobs.c.owner == owner)
        with self._reading() as connection:
            rows = connection.execute(chosen.limit(size + 1)).all()
        jobs = tuple(_record(row.record).job for row in rows[:size])
        return JobPage(jobs=jobs, next_page_token=str(rows[size - 1].number) if rows[size:] else "")

    def count(self, states: tuple[JobState, ...]) -> int:
        """How many jobs are in these states."""
        chosen = sa.select(sa.func.count()).where(_jobs.c.state.in_([s.value for s in states]))
        with self._reading() as connection:
            return int(connection.execute(chosen).scalar_one())

    def lease(self, worker: str, now_s: float) -> tuple[JobRecord, Lease] | None:
        """The oldest job that waits, now in this worker's hands; None if there is none.

        Jobs whose workers fell silent wait again.
        """
        with self._engine.begin() as connection:
            self._reap(connection, now_s)
            chosen = _jobs.c.state == JobState.QUEUED.value
            chosen = sa.and_(chosen, _jobs.c.available_at_s <= now_s)
            record = _oldest(connection, chosen)
            if record is None:
                return None
            taken = leased(record, worker, now_s, self.rules)
            _write(connection, taken)
        if taken.lease is None:
            raise AssertionError("a leased job has a lease")
        return taken, taken.lease

    def _reap(self, connection: sa.Connection, now_s: float) -> None:
        """Take back what silent workers hold."""
        chosen = _jobs.c.state == JobState.RUNNING.value
        chosen = sa.and_(chosen, _jobs.c.lease_ends_at_s <= now_s)
        while (record := _oldest(connection, chosen)) is not None:
            _write(connection, abandoned(record, now_s, self.rules))

    def renew(self, lease: Lease, now_s: float) -> JobRecord:
        """Hold a job for longer.

        Raises:
            LeaseLost: it is no longer this worker's. (So do all below that take a lease.)
        """
        return self._change(lease, lambda record: renewed(record, now_s, self.rules))

    def progress(self, lease: Lease, progress: Progress) -> JobRecord:
        """Note how far the job is."""
        return self._change(lease, lambda record: progressed(record, progress))

    def preview(self, lease: Lease, url: str) -> JobRecord:
        """Note where the job's preview clip lies."""
        return self._change(lease, lambda record: previewed(record, url))

    def give_back(self, lease: Lease, now_s: float) -> JobRecord:
        """Leave the job to another worker."""
        return self._change(lease, lambda record: given_back(record, now_s))

    def fail(
        self,
        lease: Lease,
        reason: str,
        detail: str,
        now_s: float,
        *,
        for_good: bool = False,
        is_blameless: bool = False,
    ) -> JobRecord:
        """Note that the job failed; it is tried again unless `for_good`, or too often."""

        def change(record: JobRecord) -> JobRecord:
            return failed(
                record,
                reason,
                detail,
                now_s,
                self.rules,
                for_good=for_good,
                is_blameless=is_blameless,
            )

        return self._change(lease, change)

    def succeed(self, lease: Lease, result: Result, now_s: float) -> JobRecord:
        """Note where the job's film lies."""
        return self._change(lease, lambda record: succeeded(record, result, now_s))

    def cancel(self, job_id: str, now_s: float, owner: str = "") -> JobRecord:
        """Stop a job for good; one that has ended stays what it is.

        Raises:
            JobUnknown: there is none, or it is another owner's.
        """
        with self._engine.begin() as connection:
            record = cancelled(_found(connection, job_id, owner, lock=True), now_s)
            _write(connection, record)
        return record

    def remove_outlived(self, now_s: float, ttl_s: float) -> list[str]:
        """Forget jobs that ended longer ago than `ttl_s`; returns their names."""
        ends = [state.value for state in JobState if state.is_terminal]
        chosen = sa.and_(_jobs.c.state.in_(ends), _jobs.c.ended_at_s + ttl_s <= now_s)
        with self._engine.begin() as connection:
            removed = connection.execute(_jobs.delete().where(chosen).returning(_jobs.c.id))
            return list(removed.scalars())

    def _change(self, lease: Lease, change: Callable[[JobRecord], JobRecord]) -> JobRecord:
        """Have a job changed by who holds it."""
        with self._engine.begin() as connection:
            try:
                record = _found(connection, lease.job_id, "", lock=True)
            except JobUnknown as error:
                raise LeaseLost(f"job {lease.job_id} is not there any more") from error
            changed = change(held(record, lease))
            _write(connection, changed)
        return changed

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        """A connection that holds up no writer."""
        with self._engine.connect() as connection:
            yield connection.execution_options(viva_reads=True)


def _engine(url: str) -> sa.Engine:
    """Connections to the database, in the manner of its kind."""
    if not url.startswith("sqlite"):
        return sa.create_engine(url, pool_pre_ping=True)
    engine = sa.create_engine(url, connect_args={"timeout": _BUSY_S})
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    """Have readers and a writer work side by side, and leave `BEGIN` to us."""
    connection.isolation_level = None
    for words in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={int(_BUSY_S * 1000)}"):
        connection.execute(f"PRAGMA {words}")


def _begin_sqlite(connection: sa.Connection) -> None:
    """Begin as a writer, so that two do not wait for each other in vain."""
    reads = connection.get_execution_options().get("viva_reads", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _oldest(connection: sa.Connection, chosen: sa.ColumnElement[bool]) -> JobRecord | None:
    """The oldest job of these that no other transaction holds, locked."""
    query = sa.select(_jobs.c.record).where(chosen).order_by(_jobs.c.number).limit(1)
    row = connection.execute(query.with_for_update(skip_locked=True)).first()
    return None if row is None else _record(row.record)


def _found(connection: sa.Connection, job_id: str, owner: str, *, lock: bool) -> JobRecord:
    """A job by its name, if its owner asks; the empty owner is whoever holds the server."""
    query = sa.select(_jobs.c.record).where(_jobs.c.id == job_id)
    row = connection.execute(query.with_for_update() if lock else query).first()
    record = None if row is None else _record(row.record)
    if record is None or (owner and record.owner != owner):
        raise JobUnknown(f"there is no job {job_id[:64]!r}: viva jobs list shows which there are")
    return record


def _write(connection: sa.Connection, record: JobRecord) -> None:
    """Put a changed job in its place."""
    chosen = _jobs.c.id == record.job.id
    connection.execute(_jobs.update().where(chosen).values(**_columns(record)))


def _columns(record: JobRecord) -> dict[str, Any]:
    """A job's row, all but its number."""
    return {
        "id": record.job.id,
        "owner": record.owner,
        "key": record.key or None,
        "state": record.job.state.value,
        "available_at_s": record.available_at_s,
        "lease_ends_at_s": None if record.lease is None else record.lease.expires_at_s,
        "ended_at_s": record.job.ended_at_s,
        "record": _RECORD.dump_json(record).decode(),
    }


def _record(text: str) -> JobRecord:
    return _RECORD.validate_json(text)
