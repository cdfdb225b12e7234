"""Takes jobs off the queue one after the other, and has each done in a process of its own.

This process holds the lease, hears how far the other one is, and kills it when the job is
cancelled or taken away: nothing finished is lost by that. It never imports torch.
"""

import contextlib
import json
import logging
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from services.job_files import JobFiles
from services.job_order import ORDER, Order
from services.job_queue import Job, JobError, JobState, JobUnknown
from services.job_states import JobRecord, Lease, LeaseLost, Progress, Result
from services.job_store import JobStore
from services.provenance import Signing

HEARTBEAT_S = 0.5
IDLE_S = 0.5
SWEEP_S = 60.0
MAX_LINE_BYTES = 1 << 16
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """How a worker works; `drain_s` is how long a segment may take to end when it is to stop."""

    segment_s: Fraction = Fraction(20)
    signing: Signing | None = None
    wants_preview: bool = True
    drain_s: float = 30.0
    ttl_s: float = 7 * 86_400.0
    threads: int = 1


class JobWorker:
    """One worker; `run` returns when `stop` is set and its job is given back."""

    def __init__(
        self,
        store: JobStore,
        files: JobFiles,
        settings: WorkerSettings,
        *,
        name: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Work as `name`; leases are by `clock`."""
        self._store, self._files, self._settings = store, files, settings
        self._name, self._clock = name, clock
        self.stop = threading.Event()
        self._drain_s = settings.drain_s
        self._swept_at_s = 0.0

    @property
    def drain_s(self) -> float:
        """How long a segment may take to end."""
        return self._drain_s

    def leave_at_once(self) -> None:
        """Do not wait for the segment in work."""
        self._drain_s = 0.0

    def run(self, *, until_idle: bool = False) -> None:
        """Do jobs until told to stop, or, if asked so, until there is none to do now."""
        while not self.stop.is_set():
            try:
                is_busy = self.run_one()
            except SQLAlchemyError:
                is_busy = False  # the database is away: what was running waits for its lease's end
            self._sweep()
            if not is_busy:
                if until_idle and not self._has_open_jobs():
                    return
                self.stop.wait(IDLE_S)

    def _has_open_jobs(self) -> bool:
        return self._store.count((JobState.QUEUED, JobState.RUNNING)) > 0

    def run_one(self) -> bool:
        """Do the oldest job that waits; returns whether there was one."""
        taken = self._store.lease(self._name, self._clock())
        if taken is None:
            return False
        record, lease = taken
        try:
            process = self._started(record)
        except OSError as error:
            self._store.fail(
                lease, "STORAGE", _unstartable(error), self._clock(), is_blameless=True
            )
            return True
        try:
            _Shift(self, process, record, lease).watch()
        except LeaseLost:
            self._end(process)
            self._clean(lease)
        finally:
            self._end(process)
        return True

    def _started(self, record: JobRecord) -> "subprocess.Popen[bytes]":
        """The process that does a job."""
        settings, work = self._settings, self._files.work(record.job.id)
        order = Order(
            job_id=record.job.id,
            request=record.job.request,
            data=self._files.folder.resolve(),
            rules=self._files.rules,
            segment_s=settings.segment_s,
            signing=settings.signing,
            wants_preview=settings.wants_preview,
        )
        work.mkdir(parents=True, exist_ok=True)
        path = work / "order.json"
        path.write_bytes(ORDER.dump_json(order))
        program = ["-m", "services.render_job", str(path), "--parent", str(os.getpid())]
        threads = str(settings.threads)
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"}
        return subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, *program], stdout=subprocess.PIPE, env=environment
        )

    def _end(self, process: "subprocess.Popen[bytes]") -> None:
        """Nothing of the process is left afterwards; all it finished is on the disk."""
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def _clean(self, lease: Lease) -> None:
        """Remove what a job left that was cancelled or forgotten; another worker's stays."""
        try:
            ended = self._store.get(lease.job_id).job.state.is_terminal
        except JobUnknown:
            ended = True
        if ended:
            self._files.forget_work(lease.job_id)

    def _sweep(self) -> None:
        """Forget jobs and inputs whose time is over, now and then."""
        now_s = self._clock()
        if now_s - self._swept_at_s < SWEEP_S:
            return
        self._swept_at_s = now_s
        try:
            self._forget_outlived(now_s)
        except (SQLAlchemyError, OSError) as error:
            log.warning("what is outlived stays for now: %s", " ".join(str(error).split()))

    def _forget_outlived(self, now_s: float) -> None:
        """Remove ended jobs and their files, and inputs that no open job needs."""
        for job_id in self._store.remove_outlived(now_s, self._settings.ttl_s):
            self._files.forget(job_id)
        for job in self._open_jobs():
            request = job.request
            for word in (request.portrait, request.audio, request.captions):
                with contextlib.suppress(JobError):
                    self._files.input(word)
        self._files.forget_inputs(now_s - self._settings.ttl_s)

    def _open_jobs(self) -> Iterator[Job]:
        token = ""
        while True:
            page = self._store.page(token, 200, (JobState.QUEUED, JobState.RUNNING))
            yield from page.jobs
            token = page.next_page_token
            if not token:
                return


class _Shift:
    """One job's process, watched from its start to its end."""

    def __init__(
        self,
        worker: JobWorker,
        process: "subprocess.Popen[bytes]",
        record: JobRecord,
        lease: Lease,
    ) -> None:
        self._worker, self._process, self._record, self._lease = worker, process, record, lease
        self._store, self._clock = worker._store, worker._clock
        self._expires_at_s = lease.expires_at_s
        self._beat_at_s = time.monotonic()
        self._told_to_end_at_s: float | None = None
        self._rest = b""

    def watch(self) -> None:
        """Until the job is done, failed or given back.

        Raises:
            LeaseLost: it is not this worker's any more.
        """
        if self._process.stdout is None:
            raise AssertionError("the process was started with a pipe")
        os.set_blocking(self._process.stdout.fileno(), False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while True:
                is_readable = bool(selector.select(timeout=HEARTBEAT_S / 2))
                self._beat()
                if is_readable and not self._hear():
                    return
                if self._is_to_leave():
                    self._give_back()
                    return

    def _beat(self) -> None:
        """Hold the job; a database that is away for a while is no reason to stop."""
        now_s = time.monotonic()
        if now_s - self._beat_at_s < HEARTBEAT_S:
            return
        self._beat_at_s = now_s
        try:
            record = self._store.renew(self._lease, self._clock())
        except SQLAlchemyError:
            if self._clock() >= self._expires_at_s:
                raise LeaseLost("the database is away for longer than the lease") from None
            return
        if record.lease is not None:
            self._expires_at_s = record.lease.expires_at_s

    def _is_to_leave(self) -> bool:
        """Whether the worker stops and its process has had time enough to end its segment."""
        if not self._worker.stop.is_set():
            return False
        if self._told_to_end_at_s is None:
            self._told_to_end_at_s = time.monotonic()
            self._process.send_signal(signal.SIGTERM)
        spent_s = time.monotonic() - self._told_to_end_at_s
        return spent_s >= self._worker.drain_s

    def _hear(self) -> bool:
        """Take what the process says; returns whether more may follow."""
        if self._process.stdout is None:
            raise AssertionError("the process was started with a pipe")
        data = self._process.stdout.read() or b""
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-MAX_LINE_BYTES:]
        for line in lines:
            if not self._take(_parsed(line)):
                return False
        if not data and self._process.poll() is not None:
            self._lose()
            return False
        if not data:
            time.sleep(HEARTBEAT_S / 10)  # the pipe is closed, the process about to end
        return True

    def _take(self, message: Mapping[str, Any]) -> bool:
        """Do what a message says; returns whether more may follow."""
        # Without the database for a while a render goes on: the next report says more anyway.
        if "progress" in message:
            with contextlib.suppress(SQLAlchemyError):
                self._store.progress(self._lease, Progress(**message["progress"]))
        elif "preview" in message:
            with contextlib.suppress(SQLAlchemyError):
                self._store.preview(self._lease, str(message["preview"]))
        elif "done" in message:
            result = Result(**message["done"])
            self._settle(lambda: self._store.succeed(self._lease, result, self._clock()))
            return False
        elif "failed" in message:
            self._fail(message["failed"])
            return False
        elif "drained" in message:
            self._give_back()
            return False
        return True

    def _lose(self) -> None:
        """Note that the process ended without a word; our own SIGTERM may have come that early."""
        status = self._process.returncode
        if self._told_to_end_at_s is not None and status == -signal.SIGTERM:
            self._give_back()
            return
        self._fail({"reason": "WORKER_LOST", "detail": f"the render ended with {status}"})

    def _fail(self, failure: Mapping[str, Any]) -> None:
        self._settle(lambda: self._store.fail(self._lease, now_s=self._clock(), **failure))

    def _give_back(self) -> None:
        self._settle(lambda: self._store.give_back(self._lease, self._clock()))

    def _settle(self, change: Callable[[], JobRecord]) -> None:
        """Have the store know the end, once the database is there; forget what no one needs then.

        Raises:
            LeaseLost: the job is another's by now, or the database is away for too long.
        """
        while True:
            try:
                record = change()
                break
            except SQLAlchemyError:
                if self._clock() >= self._expires_at_s:
                    raise LeaseLost("the database is away for longer than the lease") from None
                time.sleep(HEARTBEAT_S)
        if record.job.state.is_terminal:
            self._worker._files.forget_work(self._lease.job_id)


def _unstartable(error: OSError) -> str:
    """Why no process was started for a job, and the remedy."""
    reason = error.strerror or type(error).__name__
    return (
        f"the render cannot be started ({reason}): see that the data folder can be written and has "
        "room, and the job goes on by itself"
    )


def _parsed(line: bytes) -> Mapping[str, Any]:
    """A line as a message; what libraries print there says nothing to us."""
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


def worker_name(index: int = 0) -> str:
    """A name that no other worker has."""
    return f"{os.uname().nodename}:{os.getpid()}:{index}"


def default_folder() -> Path:
    """Where jobs are kept unless somebody says otherwise."""
    return Path.home() / ".local" / "share" / "viva" / "jobs"
