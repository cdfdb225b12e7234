"""The queue's border: bad input is refused at submit, by field; nothing else can be read."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from services.job_files import FileRules
from services.job_queue import Job, JobConflict, JobRefused, JobRequest, JobState, QueueFull
from services.jobs import StoredJobQueue, open_queue
from tests.support.job_inputs import write_sound

pytestmark = pytest.mark.unit


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """The folder that jobs may name files of."""
    folder = tmp_path / "shared"
    folder.mkdir()
    return folder


@pytest.fixture
def queue(tmp_path: Path, shared: Path) -> Iterator[StoredJobQueue]:
    rules = FileRules(roots=(shared,), max_input_bytes=100_000)
    opened = open_queue(tmp_path / "data", files=rules)
    yield opened
    opened.close()


@pytest.fixture
def good(shared: Path) -> JobRequest:
    return JobRequest(portrait="ada", audio=str(write_sound(shared / "speech.wav", 1.0)))


def submit(queue: StoredJobQueue, request: JobRequest, key: str = "") -> Job:
    return asyncio.run(queue.submit(request, key))


def test_a_job_keeps_its_inputs_whatever_becomes_of_the_files(
    queue: StoredJobQueue, good: JobRequest
) -> None:
    data = Path(good.audio).read_bytes()
    job = submit(queue, good, "k")
    Path(good.audio).unlink()
    assert queue.files.input(job.request.audio).read_bytes() == data
    assert submit(queue, good, "k") == job
    with pytest.raises(JobConflict):
        submit(queue, replace(good, seed=3), "k")


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("portrait", {"portrait": "nobody"}),
        ("portrait", {"portrait": "{shared}/text.png"}),
        ("portrait", {"portrait": "upload://" + "0" * 64}),
        ("portrait", {"portrait": "{shared}/noise.png"}),
        ("audio", {"audio": ""}),
        ("audio", {"audio": "{shared}/absent.wav"}),
        ("audio", {"audio": "{shared}/text.png"}),
        ("audio", {"audio": "{shared}/cut.wav"}),
        ("audio", {"audio": "{shared}/large.wav"}),
        ("audio", {"audio": "{shared}/../secret.wav"}),
        ("audio", {"audio": "{shared}/link.wav"}),
        ("audio", {"audio": "/etc/passwd"}),
        ("audio", {"audio": "file:///etc/passwd"}),
        ("audio", {"audio": "http://169.254.169.254/latest"}),
        ("audio", {"audio": "s3://bucket/speech.wav"}),
        ("audio", {"audio": "simplecache::file:///etc/passwd"}),
        ("audio", {"audio": "{shared}/speech.wav\0.png"}),
        ("captions", {"captions": "{shared}/text.png"}),
        ("output_url", {"output_url": "/etc/film.mp4"}),
        ("model", {"model": "../../etc"}),
        ("plan", {"plan": "no-such-plan"}),
        ("label", {"label": "x" * 65}),
        ("label", {"label": "two\nlines"}),
        ("loudness_lufs", {"loudness_lufs": 3.0}),
        ("seed", {"seed": -1}),
        ("size", {"width": 63, "height": 64}),
        ("mode", {"mode": "fast"}),
        ("frame", {"frame": "all"}),
        ("labels", {"labels": {"a": "b" * 257}}),
        ("labels", {"labels": {"": "b"}}),
        ("consent", {"consent": "c" * 1025}),
    ],
)
def test_what_cannot_be_rendered_is_refused_by_field_and_in_one_line(
    queue: StoredJobQueue, good: JobRequest, shared: Path, field: str, changes: dict[str, object]
) -> None:
    (shared / "text.png").write_text("neither picture nor sound")
    noise = np.random.default_rng(3).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    Image.fromarray(noise).save(shared / "noise.png")
    data = Path(good.audio).read_bytes()
    (shared / "cut.wav").write_bytes(data[: len(data) // 2])
    (shared / "large.wav").write_bytes(data + bytes(100_000))
    (shared.parent / "secret.wav").write_bytes(data)
    (shared / "link.wav").symlink_to(shared.parent / "secret.wav")
    placed = {
        name: value.replace("{shared}", str(shared)) if isinstance(value, str) else value
        for name, value in changes.items()
    }
    with pytest.raises(JobRefused) as caught:
        submit(queue, replace(good, **placed))  # type: ignore[arg-type]  # by name
    assert caught.value.field == field
    assert "\n" not in str(caught.value)
    assert asyncio.run(queue.list()).jobs == ()


def test_an_upload_is_named_by_what_is_in_it(queue: StoredJobQueue, good: JobRequest) -> None:
    data = Path(good.audio).read_bytes()

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(data), 1000):
            yield data[at : at + 1000]

    async def too_much() -> AsyncIterator[bytes]:
        while True:
            yield bytes(10_000)

    word = asyncio.run(queue.save_input("speech.wav", pieces()))
    assert word.startswith("upload://")
    assert word.endswith(".wav")
    assert submit(queue, replace(good, audio=word)).request.audio == word
    with pytest.raises(JobRefused, match="cut it"):
        asyncio.run(queue.save_input("endless.wav", too_much()))
    assert not list((queue.files.folder / "inputs").glob(".*"))


def test_a_queue_without_room_says_when_to_come_back(
    tmp_path: Path, shared: Path, good: JobRequest
) -> None:
    rules = FileRules(roots=(shared,), max_data_bytes=10)
    queue = open_queue(tmp_path / "small", files=rules)
    with pytest.raises(QueueFull, match="limit") as caught:
        submit(queue, good)
    assert caught.value.retry_after_s > 0
    queue.close()


def test_files_that_go_while_they_are_counted_do_not_count(
    queue: StoredJobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    (queue.files.folder / "work" / "gone").symlink_to("nowhere")  # listed, and then not there
    monkeypatch.setattr(Path, "is_file", lambda _: True)
    queue.files.require_room()


def test_signing_without_a_certificate_is_refused_at_submit(
    tmp_path: Path, shared: Path, good: JobRequest
) -> None:
    rules = FileRules(roots=(shared,))
    queue = open_queue(tmp_path / "unsigned", files=rules, can_sign=False)
    with pytest.raises(JobRefused, match="leave sign out") as caught:
        submit(queue, replace(good, sign=True))
    assert caught.value.field == "sign"
    assert submit(queue, good).state is JobState.QUEUED
    queue.close()


def test_watching_ends_with_the_job_and_an_unfinished_film_cannot_be_read(
    queue: StoredJobQueue, good: JobRequest
) -> None:
    job = submit(queue, good)

    async def watched() -> list[JobState]:
        seen = []
        async for change in queue.watch(job.id):
            seen.append(change.state)
            if len(seen) == 1:
                await queue.cancel(job.id)
        return seen

    assert asyncio.run(watched()) == [JobState.QUEUED, JobState.CANCELLED]

    async def read() -> None:
        async for _ in queue.open_result(job.id):
            pass

    with pytest.raises(JobConflict, match="no film"):
        asyncio.run(read())


def test_a_database_that_is_away_is_said_without_its_address(tmp_path: Path) -> None:
    url = "postgresql+psycopg://viva:secret@/none?host=/nowhere"
    with pytest.raises(QueueFull) as caught:
        open_queue(tmp_path / "data", url)
    assert "secret" not in str(caught.value)
