"""Jobs are done by processes that may be killed, cancelled or drained at any moment."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import psutil
import pytest

from services.job_files import FileRules
from services.job_queue import Job, JobRequest, JobState
from services.job_states import QueueRules
from services.job_worker import JobWorker, WorkerSettings
from services.jobs import StoredJobQueue, open_queue
from tests.support.job_inputs import frame_digest, write_sound

pytestmark = pytest.mark.stream

SETTINGS = WorkerSettings(segment_s=Fraction(1, 2), wants_preview=False)
RULES = QueueRules(lease_s=2.0, backoff_s=0.1)
PATIENCE_S = 200.0
FACE = Path(__file__).parents[2] / "configs/models/pocket/portraits/ada.png"


@pytest.fixture
def queue(tmp_path: Path, tiny_model: Path) -> Iterator[StoredJobQueue]:
    roots = (tmp_path, tiny_model.parent, FACE.parent)
    opened = open_queue(tmp_path / "data", files=FileRules(roots=roots), rules=RULES)
    yield opened
    opened.close()


@pytest.fixture
def request_of(tmp_path: Path, tiny_model: Path) -> Callable[[float], JobRequest]:
    def make(seconds: float) -> JobRequest:
        sound = write_sound(tmp_path / f"{seconds}.wav", seconds)
        return JobRequest(
            portrait=str(FACE),
            audio=str(sound),
            model=str(tiny_model),
            frame="face",
            width=64,
            height=64,
        )

    return make


@contextmanager
def working(queue: StoredJobQueue, settings: WorkerSettings = SETTINGS) -> Iterator[JobWorker]:
    worker = JobWorker(queue.store, queue.files, settings, name="w")
    thread = threading.Thread(target=worker.run, name="worker")
    thread.start()
    try:
        yield worker
    finally:
        worker.stop.set()
        thread.join()


def wait_for(queue: StoredJobQueue, job_id: str, enough: Callable[[Job], bool]) -> Job:
    deadline_s = time.monotonic() + PATIENCE_S
    while not enough(job := queue.store.get(job_id).job):
        assert not job.state.is_terminal, job
        assert time.monotonic() < deadline_s, job
        time.sleep(0.05)
    return job


def render_processes() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if is_render(child)]


def is_render(process: psutil.Process) -> bool:
    """Whether it renders; one that has ended, collected or not, does not."""
    try:
        return "services.render_job" in process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


def test_a_job_whose_process_is_killed_again_and_again_ends_as_if_nothing_had_been(
    queue: StoredJobQueue, request_of: Callable[[float], JobRequest]
) -> None:
    calm, killed = (asyncio.run(queue.submit(request_of(1.7))) for _ in range(2))
    with working(queue):
        wait_for(queue, calm.id, lambda job: job.state is JobState.SUCCEEDED)
        for segments in (0, 2):
            enough = lambda job, n=segments: job.num_segments_done >= n and job.num_frames_total  # noqa: E731
            wait_for(queue, killed.id, enough)
            for process in render_processes():
                process.kill()
        ended = wait_for(queue, killed.id, lambda job: job.state is JobState.SUCCEEDED)
    assert ended.attempt == 3
    films = [queue.files.film(job.id) for job in (calm, killed)]
    assert frame_digest(films[0]) == frame_digest(films[1])
    assert films[0].read_bytes() == films[1].read_bytes()
    assert not queue.files.work(killed.id).exists()
    assert asyncio.run(whole_result(queue, killed.id)) == films[1].read_bytes()


async def whole_result(queue: StoredJobQueue, job_id: str) -> bytes:
    return b"".join([piece async for piece in queue.open_result(job_id)])


def test_cancel_ends_the_work_within_two_seconds(
    queue: StoredJobQueue, request_of: Callable[[float], JobRequest]
) -> None:
    job = asyncio.run(queue.submit(request_of(60.0)))
    with working(queue):
        wait_for(queue, job.id, lambda job: job.num_frames_done > 0)
        began_s = time.monotonic()
        assert asyncio.run(queue.cancel(job.id)).state is JobState.CANCELLED
        while render_processes():
            assert time.monotonic() < began_s + 2.0
            time.sleep(0.02)
    assert not queue.files.work(job.id).exists()
    assert not queue.files.film(job.id).exists()


def test_a_worker_that_is_to_end_ends_its_segment_and_gives_the_job_back(
    queue: StoredJobQueue, request_of: Callable[[float], JobRequest]
) -> None:
    job = asyncio.run(queue.submit(request_of(60.0)))
    with working(queue):
        wait_for(queue, job.id, lambda job: job.num_segments_done >= 1)
    left = queue.store.get(job.id)
    assert left.job.state is JobState.QUEUED
    assert left.failures == 0
    manifests = list((queue.files.work(job.id) / "segments").glob("*.manifest"))
    assert len(manifests) >= left.job.num_segments_done
    assert not list((queue.files.work(job.id) / "segments").glob("*.mp4.writing"))


def test_a_render_does_not_outlive_its_killed_worker(
    queue: StoredJobQueue, request_of: Callable[[float], JobRequest], tmp_path: Path
) -> None:
    job = asyncio.run(queue.submit(request_of(60.0)))
    viva = ["viva", "jobs", "work", "--data", str(tmp_path / "data"), "--segment-s", "0.5"]
    program = [str(Path(sys.executable).parent / viva[0]), *viva[1:]]
    with subprocess.Popen(program, stderr=subprocess.PIPE) as worker:
        try:
            wait_for(queue, job.id, lambda job: job.num_frames_done > 0)
            children = psutil.Process(worker.pid).children(recursive=True)
        finally:
            worker.kill()
    assert children
    gone, alive = psutil.wait_procs(children, timeout=5)
    assert gone
    assert not alive
    assert queue.store.get(job.id).job.state is JobState.RUNNING
    time.sleep(RULES.lease_s)
    taken = queue.store.lease("next", time.time() + 15)
    assert taken is not None
    assert taken[0].job.attempt == 2


def test_a_job_that_cannot_be_done_fails_with_a_reason(
    queue: StoredJobQueue, request_of: Callable[[float], JobRequest]
) -> None:
    job = asyncio.run(queue.submit(request_of(0.6)))
    for path in (queue.files.folder / "inputs").iterdir():
        path.write_bytes(b"no sound any more")
    with working(queue):
        deadline_s = time.monotonic() + PATIENCE_S
        while not (ended := queue.store.get(job.id).job).state.is_terminal:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
    assert (ended.state, ended.error_reason) == (JobState.FAILED, "INPUT_UNREADABLE")
    assert "\n" not in ended.error_detail
