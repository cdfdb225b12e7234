"""The batch queue as servers and the command line use it: a `JobQueue` over a store and a folder.

Nothing here renders or imports torch; `job_worker` does the jobs, in this or any other process
that has the same database and the same folder.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from services.job_files import BLOCK_BYTES, FileRules, JobFiles
from services.job_queue import (
    Job,
    JobConflict,
    JobPage,
    JobRefused,
    JobRequest,
    JobState,
    QueueFull,
)
from services.job_request import fetched
from services.job_states import QueueRules
from services.job_store import JobStore

MAX_OPEN_JOBS = 10_000
MAX_PAGE = 500
LOOK_BYTES = 64 << 20
POLL_S = 0.25
RETRY_S = 5.0
P = ParamSpec("P")
T = TypeVar("T")


def open_queue(
    folder: Path,
    url: str = "",
    *,
    files: FileRules | None = None,
    rules: QueueRules | None = None,
    can_sign: bool = True,
) -> "StoredJobQueue":
    """The queue in a data folder; its database lies there too unless `url` names another.

    `can_sign` is False where it is known that no worker has a certificate.

    Raises:
        QueueFull: the database cannot be reached.
    """
    kept = JobFiles(folder, files or FileRules())
    try:
        store = JobStore(url or f"sqlite:///{folder.resolve() / 'jobs.sqlite'}", rules=rules)
    except SQLAlchemyError as error:
        raise _away(error) from error
    return StoredJobQueue(store, kept, can_sign=can_sign)


class StoredJobQueue:
    """A `JobQueue`; each call works in a thread, so that no event loop waits for a database."""

    def __init__(
        self,
        store: JobStore,
        files: JobFiles,
        *,
        can_sign: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Serve the jobs of a store, whose files lie in a folder."""
        self.store, self.files, self._clock = store, files, clock
        self._can_sign = can_sign

    def close(self) -> None:
        """Let go of the database."""
        self.store.close()

    async def submit(self, request: JobRequest, idempotency_key: str = "", owner: str = "") -> Job:
        """Take a job once its inputs are looked at and kept, or give the key's.

        Raises:
            JobRefused: an input or a choice cannot be used; names the field.
            JobConflict: the key stands for another request.
            QueueFull: there are too many jobs, or no room.
        """
        return await self._call(self._submit, request, idempotency_key, owner)

    def _submit(self, request: JobRequest, key: str, owner: str) -> Job:
        known = self.store.find_key(request, key, owner) if key else None
        if known is not None:
            return known
        if self.store.count((JobState.QUEUED, JobState.RUNNING)) >= MAX_OPEN_JOBS:
            raise QueueFull(f"{MAX_OPEN_JOBS} jobs wait already", retry_after_s=60.0)
        if request.sign and not self._can_sign:
            raise JobRefused(
                "sign", "sign: this server has no certificate (jobs.sign_chain): leave sign out"
            )
        self.files.require_room()
        kept = fetched(request, self.files)
        return self.store.add(kept, self._clock(), key=key, owner=owner, asked=request)[0]

    async def get(self, job_id: str, owner: str = "") -> Job:
        """What is known of a job now."""
        return (await self._call(self.store.get, job_id, owner)).job

    async def list(
        self,
        page_token: str = "",
        page_size: int = 50,
        states: tuple[JobState, ...] = (),
        owner: str = "",
    ) -> JobPage:
        """A page of jobs, newest first."""
        size = max(1, min(page_size, MAX_PAGE))
        return await self._call(self.store.page, page_token, size, states, owner)

    async def watch(self, job_id: str, owner: str = "") -> AsyncGenerator[Job, None]:
        """The job now and after each change, until it has ended."""
        version = -1
        while True:
            record = await self._call(self.store.get, job_id, owner)
            if record.version != version:
                version = record.version
                yield record.job
            if record.job.state.is_terminal:
                return
            await asyncio.sleep(POLL_S)

    async def cancel(self, job_id: str, owner: str = "") -> Job:
        """Stop a job; whoever works on it notices within a second."""
        record = await self._call(self.store.cancel, job_id, self._clock(), owner)
        if record.num_leases == 0:
            await self._call(self.files.forget_work, job_id)
        return record.job

    async def save_input(self, name: str, chunks: AsyncIterator[bytes], owner: str = "") -> str:
        """Keep an upload; returns the word to name it by.

        Raises:
            JobRefused: it is too large.
            QueueFull: there is no room.
        """
        del owner  # inputs are named by their checksum: who knows it has the content
        await self._call(self.files.require_room)
        writing = self.files.begin_input()
        digest, size, look_again_at = hashlib.sha256(), 0, LOOK_BYTES
        try:
            with writing.open("wb") as file:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > self.files.rules.max_input_bytes:
                        limit = self.files.rules.max_input_bytes >> 20
                        raise JobRefused("data", f"{name[:80]} is over {limit} MiB: cut it")
                    if size >= look_again_at:
                        await self._call(self.files.require_room)
                        look_again_at = size + LOOK_BYTES
                    digest.update(chunk)
                    await asyncio.to_thread(file.write, chunk)
            return self.files.end_input(writing, name, digest.hexdigest())
        except OSError as error:
            raise QueueFull(f"{name[:80]} cannot be kept: {error}", retry_after_s=60.0) from error
        finally:
            writing.unlink(missing_ok=True)

    async def open_result(
        self, job_id: str, offset: int = 0, *, preview: bool = False, owner: str = ""
    ) -> AsyncIterator[bytes]:
        """The finished film's bytes from an offset on, or the preview clip's.

        Raises:
            JobConflict: there is none yet, or none any more.
        """
        path = await self._call(self._result, job_id, preview, owner)
        try:
            with path.open("rb") as file:
                file.seek(offset)
                while block := await asyncio.to_thread(file.read, BLOCK_BYTES):
                    yield block
        except OSError as error:
            raise JobConflict(f"job {job_id}: its file cannot be read any more") from error

    def _result(self, job_id: str, preview: bool, owner: str) -> Path:
        job = self.store.get(job_id, owner).job
        if not preview and job.state is not JobState.SUCCEEDED:
            raise JobConflict(f"job {job_id} is {job.state.value}: there is no film (yet)")
        path = self.files.preview(job_id) if preview else self.files.film(job_id)
        if not path.is_file():
            raise JobConflict(f"job {job_id} has no {'preview' if preview else 'film'} here")
        return path

    async def _call(self, work: Callable[P, T], *rest: P.args, **named: P.kwargs) -> T:
        """Do blocking work in a thread.

        Raises:
            QueueFull: the database is away.
        """
        try:
            return await asyncio.to_thread(work, *rest, **named)
        except SQLAlchemyError as error:
            raise _away(error) from error


def _away(error: Exception) -> QueueFull:
    """The database's failure, without what only the server's holder may know."""
    kind = type(error).__name__
    return QueueFull(f"the job database cannot be reached ({kind})", retry_after_s=RETRY_S)
