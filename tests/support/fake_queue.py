"""A batch queue in memory, whose jobs go on when a test says so."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace

from services.job_queue import (
    Job,
    JobConflict,
    JobPage,
    JobRefused,
    JobRequest,
    JobState,
    JobUnknown,
    QueueFull,
)


class FakeQueue:
    """Keeps jobs and uploads; `finish` makes a film of a job."""

    def __init__(self, max_jobs: int = 100) -> None:
        self.max_jobs = max_jobs
        self.jobs: dict[str, Job] = {}
        self.owners: dict[str, str] = {}
        self.keys: dict[str, str] = {}
        self.uploads: dict[str, bytes] = {}
        self.films: dict[str, bytes] = {}
        self.changed = asyncio.Event()

    async def submit(self, request: JobRequest, idempotency_key: str = "", owner: str = "") -> Job:
        if (known := self.keys.get(idempotency_key)) is not None:
            if self.jobs[known].request != request:
                raise JobConflict("the key was used with another request")
            return self.jobs[known]
        if request.audio == "unreadable":
            raise JobRefused("audio", "audio: unreadable is no recording")
        if len(self.jobs) >= self.max_jobs:
            raise QueueFull("the queue is full", retry_after_s=2.5)
        job = Job(id=f"j{len(self.jobs)}", state=JobState.QUEUED, request=request, created_at_s=1.5)
        self.jobs[job.id], self.owners[job.id] = job, owner
        if idempotency_key:
            self.keys[idempotency_key] = job.id
        return job

    async def get(self, job_id: str, owner: str = "") -> Job:
        if job_id not in self.jobs or self.owners[job_id] != owner:
            raise JobUnknown(f"there is no job {job_id}")
        return self.jobs[job_id]

    async def list(
        self,
        page_token: str = "",
        page_size: int = 50,
        states: tuple[JobState, ...] = (),
        owner: str = "",
    ) -> JobPage:
        all_jobs = [
            job
            for job in reversed(self.jobs.values())
            if self.owners[job.id] == owner and (not states or job.state in states)
        ]
        start = int(page_token or 0)
        more = str(start + page_size) if start + page_size < len(all_jobs) else ""
        return JobPage(jobs=tuple(all_jobs[start : start + page_size]), next_page_token=more)

    async def watch(self, job_id: str, owner: str = "") -> AsyncIterator[Job]:
        told: Job | None = None
        while told is None or not told.state.is_terminal:
            # Whoever reads may change the job before it asks for more: the event is of that job.
            job, changed = await self.get(job_id, owner), self.changed
            if job is told:
                await changed.wait()
                continue
            yield job
            told = job

    async def cancel(self, job_id: str, owner: str = "") -> Job:
        job = await self.get(job_id, owner)
        if not job.state.is_terminal:
            self.set(job_id, state=JobState.CANCELLED)
        return self.jobs[job_id]

    async def save_input(self, name: str, chunks: AsyncIterator[bytes], owner: str = "") -> str:
        del owner
        data = b"".join([piece async for piece in chunks])
        self.uploads[f"upload:{name}"] = data
        return f"upload:{name}"

    async def open_result(
        self, job_id: str, offset: int = 0, *, preview: bool = False, owner: str = ""
    ) -> AsyncIterator[bytes]:
        await self.get(job_id, owner)
        if preview or job_id not in self.films:
            raise JobConflict("there is nothing to download yet")
        yield self.films[job_id][offset:]

    def set(self, job_id: str, **fields: object) -> None:
        """Change a job."""
        self.jobs[job_id] = replace(self.jobs[job_id], **fields)  # type: ignore[arg-type]  # by name
        self.changed.set()
        self.changed = asyncio.Event()

    def finish(self, job_id: str, film: bytes) -> None:
        """Let a job succeed."""
        self.films[job_id] = film
        self.set(
            job_id,
            state=JobState.SUCCEEDED,
            result_bytes=len(film),
            result_sha256=hashlib.sha256(film).hexdigest(),
            result_url="store:film",
        )
