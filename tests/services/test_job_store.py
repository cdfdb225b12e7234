"""Jobs survive, are done once, and obey whoever holds them: on SQLite and on PostgreSQL."""

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import sqlalchemy as sa

from services.job_queue import JobConflict, JobRequest, JobState, JobUnknown
from services.job_states import LeaseLost, Progress, QueueRules, Result
from services.job_store import JobStore
from tests.support.postgres import running_postgres, why_not

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
REQUEST = JobRequest(
    portrait="ada", audio="speech.wav", fps=Fraction(30000, 1001), labels={"a": "b"}
)
RULES = QueueRules(lease_s=10.0, max_failures=3, backoff_s=2.0)
FILM = Result(url="film.mp4", num_bytes=7, sha256="ab")
HALF = Progress(
    num_frames_done=50, num_frames_total=100, num_segments_done=1, num_segments_total=2, fps=12.5
)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    if why_not():
        pytest.skip(why_not())
    with running_postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without jobs."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'jobs.sqlite'}"
    found: str = request.getfixturevalue("postgres_url")
    engine = sa.create_engine(found)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE IF EXISTS viva_jobs")
    engine.dispose()
    return found


@pytest.fixture
def store(url: str) -> Iterator[JobStore]:
    opened = JobStore(url, rules=RULES)
    yield opened
    opened.close()


def test_a_job_is_kept_whole_and_found_again(store: JobStore, url: str) -> None:
    job, is_new = store.add(REQUEST, 100.0, owner="o")
    other = JobStore(url)
    assert is_new
    assert other.get(job.id).job == job
    assert job.request == REQUEST
    assert job.state is JobState.QUEUED
    other.close()


def test_a_key_gives_the_first_job_and_refuses_another_request(store: JobStore) -> None:
    job, _ = store.add(REQUEST, 1.0, key="k", owner="o")
    assert store.add(REQUEST, 2.0, key="k", owner="o") == (job, False)
    assert store.add(REQUEST, 2.0, key="k", owner="other")[1]
    assert store.add(REQUEST, 2.0)[1]
    assert store.add(REQUEST, 2.0)[1]
    with pytest.raises(JobConflict, match="another request"):
        store.add(replace(REQUEST, seed=1), 3.0, key="k", owner="o")


def test_a_job_is_another_owners_secret(store: JobStore) -> None:
    job, _ = store.add(REQUEST, 1.0, owner="o")
    with pytest.raises(JobUnknown):
        store.get(job.id, "p")
    with pytest.raises(JobUnknown):
        store.cancel(job.id, 2.0, "p")
    assert store.page("", 10, owner="p").jobs == ()
    assert store.get(job.id, "o").job == job


def test_the_oldest_job_is_taken_first_and_by_one(store: JobStore) -> None:
    first, _ = store.add(REQUEST, 1.0)
    second, _ = store.add(REQUEST, 2.0)
    taken = [store.lease(f"w{n}", 3.0) for n in range(3)]
    assert [t and t[0].job.id for t in taken] == [first.id, second.id, None]
    assert taken[0] is not None
    assert taken[0][0].job.state is JobState.RUNNING
    assert taken[0][0].job.attempt == 1


def test_a_silent_workers_job_is_taken_over_and_the_late_one_changes_nothing(
    store: JobStore,
) -> None:
    store.add(REQUEST, 0.0)
    late = store.lease("w1", 0.0)
    assert late is not None
    assert store.lease("w2", 9.9) is None
    store.renew(late[1], 9.9)
    assert store.lease("w2", 19.8) is None
    fresh = store.lease("w2", 20.0)
    assert fresh is not None
    assert fresh[0].job.attempt == 2
    lease = late[1]
    calls: list[Callable[[], object]] = [
        lambda: store.renew(lease, 20.0),
        lambda: store.progress(lease, HALF),
        lambda: store.fail(lease, "X", "x", 20.0, for_good=True),
        lambda: store.succeed(lease, FILM, 20.0),
        lambda: store.give_back(lease, 20.0),
    ]
    for call in calls:
        with pytest.raises(LeaseLost):
            call()
    assert store.succeed(fresh[1], FILM, 21.0).job.result_url == "film.mp4"


def test_failures_rest_longer_each_time_and_then_are_for_good(store: JobStore) -> None:
    job, _ = store.add(REQUEST, 0.0)
    for now_s, rest_s in ((0.0, 2.0), (2.0, 4.0)):
        taken = store.lease("w", now_s)
        assert taken is not None
        store.fail(taken[1], "DISK_FULL", "no space", now_s, for_good=False)
        assert store.lease("w", now_s + rest_s - 0.1) is None
    taken = store.lease("w", 6.0)
    assert taken is not None
    store.fail(taken[1], "DISK_FULL", "no space", 6.0, for_good=False)
    ended = store.get(job.id).job
    assert (ended.state, ended.error_reason) == (JobState.FAILED, "DISK_FULL")
    assert ended.ended_at_s == 6.0


def test_a_finished_segment_makes_failures_forgotten(store: JobStore) -> None:
    store.add(REQUEST, 0.0)
    for index in range(RULES.max_failures + 2):
        taken = store.lease("w", 1000.0 * index)
        assert taken is not None, index
        store.progress(taken[1], replace(HALF, num_segments_done=index + 1))
        store.fail(taken[1], "X", "x", 1000.0 * index, for_good=False)


def test_a_job_given_back_waits_for_the_next_worker_at_once(store: JobStore) -> None:
    store.add(REQUEST, 0.0)
    taken = store.lease("w1", 1.0)
    assert taken is not None
    store.give_back(taken[1], 2.0)
    again = store.lease("w2", 2.0)
    assert again is not None
    assert again[0].failures == 0


def test_cancel_takes_the_job_from_its_worker_and_is_for_good(store: JobStore) -> None:
    job, _ = store.add(REQUEST, 0.0)
    taken = store.lease("w", 1.0)
    assert taken is not None
    assert store.cancel(job.id, 2.0).job.state is JobState.CANCELLED
    with pytest.raises(LeaseLost):
        store.renew(taken[1], 2.5)
    assert store.cancel(job.id, 3.0).job.ended_at_s == 2.0
    assert store.lease("w", 4.0) is None


def test_pages_hold_all_jobs_newest_first(store: JobStore) -> None:
    jobs = [store.add(REQUEST, float(n))[0] for n in range(7)]
    store.cancel(jobs[3].id, 9.0)
    names: list[str] = []
    page = store.page("", 3)
    while True:
        names += [job.id for job in page.jobs]
        if not page.next_page_token:
            break
        page = store.page(page.next_page_token, 3)
    assert names == [job.id for job in reversed(jobs)]
    assert [job.id for job in store.page("", 9, (JobState.CANCELLED,)).jobs] == [jobs[3].id]
    assert store.count((JobState.QUEUED,)) == 6
    with pytest.raises(JobUnknown, match="page"):
        store.page("x'; DROP TABLE viva_jobs", 3)


def test_only_jobs_that_ended_long_ago_are_forgotten(store: JobStore) -> None:
    old, young, waiting = (store.add(REQUEST, 0.0)[0] for _ in range(3))
    store.cancel(old.id, 10.0)
    store.cancel(young.id, 20.0)
    assert store.remove_outlived(110.0, ttl_s=100.0) == [old.id]
    with pytest.raises(JobUnknown):
        store.get(old.id)
    assert store.get(young.id)
    assert store.get(waiting.id)


def test_many_threads_take_each_job_once(store: JobStore) -> None:
    jobs = {store.add(REQUEST, 0.0)[0].id for _ in range(24)}
    taken: list[str] = []

    def work(name: str) -> None:
        while (found := store.lease(name, 1.0)) is not None:
            taken.append(found[0].job.id)
            store.succeed(found[1], FILM, 1.0)

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(taken) == Counter(jobs)


def test_two_servers_do_fifty_jobs_once_each_though_one_is_killed(
    store: JobStore, url: str
) -> None:
    jobs = {store.add(REQUEST, 0.0)[0].id for _ in range(50)}
    killed, other = (_start_drainer(url, name) for name in ("w1", "w2"))
    lines = _lines_until(killed, lambda lines: sum(x.startswith("began") for x in lines) >= 12)
    os.kill(killed.pid, signal.SIGKILL)
    lines += killed.communicate()[0].splitlines()
    lines += other.communicate(timeout=60)[0].splitlines()
    done = Counter(line.split()[1] for line in lines if line.startswith("done"))
    begun = Counter(line.split()[1] for line in lines if line.startswith("began"))
    records = [store.get(name).job for name in jobs]
    assert {job.state for job in records} == {JobState.SUCCEEDED}
    assert set(begun) == jobs
    # A kill may fall between a job's end and the line that says so.
    assert len(jobs) - 1 <= len(done)
    assert set(done.values()) == {1}
    assert sum(count > 1 for count in begun.values()) <= 1
    assert {job.result_url for job in records} == {"w1", "w2"}


def _start_drainer(url: str, name: str) -> "subprocess.Popen[str]":
    program = [sys.executable, str(ROOT / "tests/support/job_drainer.py"), url, name, "0.02"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}"}
    return subprocess.Popen(program, stdout=subprocess.PIPE, text=True, env=environment)


def _lines_until(
    process: "subprocess.Popen[str]", enough: Callable[[list[str]], bool]
) -> list[str]:
    assert process.stdout is not None
    lines: list[str] = []
    while not enough(lines):
        line = process.stdout.readline()
        assert line, "the worker ended early"
        lines.append(line.rstrip("\n"))
    return lines
