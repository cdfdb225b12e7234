"""What goes wrong around a render: no disk, no database for a while, an end that comes early."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from services import job_worker
from services.job_files import FileRules, JobFiles
from services.job_order import Order
from services.job_queue import JobRequest, JobState
from services.job_states import QueueRules
from services.job_store import JobStore
from services.job_worker import JobWorker, WorkerSettings
from services.render_job import _Watch, outcome

pytestmark = pytest.mark.unit

DONE = {"done": {"url": "film.mp4", "num_bytes": 1, "sha256": "0"}}
HALF = {
    "progress": {
        "num_frames_done": 5,
        "num_frames_total": 10,
        "num_segments_done": 1,
        "num_segments_total": 2,
    }
}
FAILED = {"failed": {"reason": "INPUT_UNREADABLE", "detail": "no sound", "for_good": True}}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    opened = JobStore(f"sqlite:///{tmp_path / 'jobs.sqlite'}", rules=QueueRules(lease_s=5.0))
    yield opened
    opened.close()


@pytest.fixture
def worker(tmp_path: Path, store: JobStore) -> JobWorker:
    return JobWorker(store, JobFiles(tmp_path / "data"), WorkerSettings(drain_s=5.0), name="w")


@pytest.fixture
def job(store: JobStore) -> str:
    return store.add(JobRequest(portrait="ada", audio="a.wav"), time.time())[0].id


def acts(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Have a short program stand for the render."""

    def started(_self: JobWorker, _record: object) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)

    monkeypatch.setattr(JobWorker, "_started", started)


def says(monkeypatch: pytest.MonkeyPatch, *messages: dict[str, Any]) -> None:
    acts(monkeypatch, f"print({chr(10).join(map(json.dumps, messages))!r})")


def fails_once(monkeypatch: pytest.MonkeyPatch, store: JobStore, *names: str) -> None:
    """Have the database be away when a method is called first."""

    def broken(work: Callable[..., Any]) -> Callable[..., Any]:
        left = [OperationalError("away", None, Exception("away"))]

        def call(*rest: Any, **named: Any) -> Any:
            if left:
                raise left.pop()
            return work(*rest, **named)

        return call

    for name in names:
        monkeypatch.setattr(store, name, broken(getattr(store, name)))


def test_a_job_that_cannot_be_started_waits_and_is_not_to_blame(
    worker: JobWorker, store: JobStore, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(_self: JobWorker, _record: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(JobWorker, "_started", started)
    assert worker.run_one()
    record = store.get(job)
    assert (record.job.state, record.job.error_reason) == (JobState.QUEUED, "STORAGE")
    assert "No space left" in record.job.error_detail


def test_a_moment_without_the_database_ends_no_render(
    worker: JobWorker, store: JobStore, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_worker, "HEARTBEAT_S", 0.05)
    says(monkeypatch, HALF, {"preview": "clip.mp4"}, DONE)
    fails_once(monkeypatch, store, "progress", "preview", "succeed")
    assert worker.run_one()
    ended = store.get(job).job
    assert (ended.state, ended.attempt) == (JobState.SUCCEEDED, 1)


def test_what_a_job_needed_is_gone_once_it_has_failed(
    worker: JobWorker, store: JobStore, job: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    work = tmp_path / "data" / "work" / job
    work.mkdir()
    says(monkeypatch, FAILED)
    assert worker.run_one()
    assert store.get(job).job.state is JobState.FAILED
    assert not work.exists()


def test_a_render_that_our_sigterm_ends_early_is_given_back(
    worker: JobWorker, store: JobStore, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    acts(monkeypatch, "import time; time.sleep(60)")
    threading.Timer(0.2, worker.stop.set).start()
    assert worker.run_one()
    record = store.get(job)
    assert (record.job.state, record.job.error_reason) == (JobState.QUEUED, "")
    assert record.failures == 0


def test_old_files_that_cannot_be_removed_stop_no_worker(
    worker: JobWorker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def forget(_self: JobFiles, _before_s: float) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(JobFiles, "forget_inputs", forget)
    worker.run(until_idle=True)
    assert "Read-only file system" in caplog.text


def test_old_jobs_are_forgotten_between_jobs_too(
    worker: JobWorker, store: JobStore, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept: list[bool] = []

    def forget(_self: JobWorker, _now_s: float) -> None:
        swept.append(store.get(job).job.state.is_terminal)
        worker.stop.set()

    monkeypatch.setattr(JobWorker, "_forget_outlived", forget)
    says(monkeypatch, DONE)
    worker.run()
    assert swept == [True]


def test_a_job_to_sign_without_a_certificate_ends_before_it_begins(tmp_path: Path) -> None:
    order = Order(
        job_id="j",
        request=JobRequest(portrait="ada", audio="upload://absent", sign=True),
        data=tmp_path,
        rules=FileRules(),
        segment_s=Fraction(1),
        signing=None,
        wants_preview=False,
    )
    told: list[Any] = []
    ended = outcome(order, _Watch(told.append), told.append)["failed"]
    assert (ended["reason"], ended["for_good"]) == ("INPUT_UNREADABLE", True)
    assert "leave sign out" in ended["detail"]
