"""The queue beside a server: its workers come back when they die, and go when it ends."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from services import serve_jobs
from services.deployment import Deployment, DeploymentError, Jobs
from services.job_crew import CrewOrder
from services.serve_jobs import jobs_beside

pytestmark = pytest.mark.stream

PATIENCE_S = 100.0


def crews() -> list[psutil.Process]:
    """The crews at work that have started."""
    found = []
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "services.job_crew" in process.cmdline():
                found.append(process)
    return found


async def until(enough: Callable[[], bool]) -> None:
    """Wait for something that another process does."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not enough():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.05)


def test_workers_that_die_are_followed_by_others_until_the_server_drains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_jobs, "RESTART_S", 0.01)
    deployment = Deployment(jobs=Jobs(data=tmp_path / "jobs", workers=2))

    async def run() -> None:
        draining, ending = asyncio.Event(), asyncio.Event()
        async with jobs_beside(deployment, draining=draining, ending=ending) as queue:
            assert queue is not None
            await until(lambda: len(crews()) == 1)
            first = crews()[0]
            first.kill()
            await until(lambda: [p.pid for p in crews()] not in ([], [first.pid]))
            draining.set()
            await until(lambda: not crews())

    asyncio.run(run())


def test_workers_that_cannot_be_started_are_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(serve_jobs, "RESTART_S", 0.01)
    started, failures = serve_jobs._started, [OSError(24, "Too many open files")]

    async def start(order: CrewOrder) -> asyncio.subprocess.Process:
        if failures:
            raise failures.pop()
        return await started(order)

    monkeypatch.setattr(serve_jobs, "_started", start)
    deployment = Deployment(jobs=Jobs(data=tmp_path / "jobs", workers=1))

    async def run() -> None:
        draining, ending = asyncio.Event(), asyncio.Event()
        async with jobs_beside(deployment, draining=draining, ending=ending):
            await until(lambda: len(crews()) == 1)
            ending.set()

    asyncio.run(run())
    assert "Too many open files" in caplog.text


def test_a_server_without_grpc_or_workers_opens_no_queue(tmp_path: Path) -> None:
    async def run(deployment: Deployment) -> bool:
        never = asyncio.Event()
        async with jobs_beside(deployment, draining=never, ending=never) as queue:
            return queue is not None

    data = tmp_path / "jobs"
    assert not asyncio.run(run(Deployment(jobs=Jobs(data=data))))
    assert not data.exists()
    assert asyncio.run(run(Deployment(grpc_port=0, jobs=Jobs(data=data))))


@pytest.mark.parametrize(
    "jobs",
    [
        {"data": "/dev/null/jobs"},
        {"store": "sqlite:////nowhere/at/all.sqlite"},
        {"store": "no database"},
    ],
)
def test_a_queue_that_cannot_be_opened_is_said_in_one_line(
    tmp_path: Path, jobs: dict[str, str]
) -> None:
    async def run() -> None:
        never = asyncio.Event()
        deployment = Deployment(grpc_port=0, jobs=Jobs.model_validate({"data": tmp_path} | jobs))
        async with jobs_beside(deployment, draining=never, ending=never):
            pytest.fail("it was opened")

    with pytest.raises(DeploymentError, match=r"^jobs: [^\n]+$"):
        asyncio.run(run())


def test_the_password_of_a_database_is_not_shown() -> None:
    deployment = Deployment(jobs=Jobs(store="postgresql://viva:s3same@host/viva"))
    assert "s3same" not in repr(deployment)
