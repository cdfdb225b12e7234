"""A gateway's end of a real model process, and the check that nothing is left of it."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
from viva.v1.messages import OpenSession, StageTrace

from services.live_model import LiveEvent
from services.model_client import ModelClient
from services.model_worker import spawned
from services.slice import Slice

RATE = 48_000
FRAME = RATE // 25
FLASH = ("-m", "tests.support.flash_process")


def spec(session: str = "s", portrait: bytes = b"face") -> OpenSession:
    return OpenSession(session=session, portrait=portrait, seed=1, sample_rate=RATE)


def tone(num_frames: int) -> np.ndarray:
    return np.full(num_frames * FRAME, 9000, np.int16)


@pytest.fixture(autouse=True)
def own_temporary_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """A short path, so that sockets fit, and nobody else's files in it."""
    tmp_path_factory.getbasetemp()  # pytest's own folder is where it always is
    with tempfile.TemporaryDirectory(prefix="vt-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setenv("TMPDIR", folder)
        yield


def num_fds() -> int:
    return psutil.Process().num_fds()


def children() -> list[int]:
    return [child.pid for child in psutil.Process().children(recursive=True)]


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run it on a loop, and find descriptors, processes, tasks and files as before."""

    async def whole() -> None:
        before = num_fds()
        async with asyncio.timeout(60):
            await test()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert num_fds() == before

    asyncio.run(whole())
    assert not children()
    assert not list(Path(tempfile.gettempdir()).iterdir())


@asynccontextmanager
async def client(*options: str, has_spare: bool = False) -> AsyncIterator[ModelClient]:
    made = await ModelClient.start(spawned([*FLASH, *options]), has_spare=has_spare)
    try:
        yield made
    finally:
        await made.close()


async def take(events: AsyncIterator[LiveEvent], until: int) -> list[LiveEvent]:
    """What comes until the slice of this index, traces left out."""
    taken = list[LiveEvent]()
    async for event in events:
        if not isinstance(event, StageTrace):
            taken.append(event)
        if isinstance(event, Slice) and event.index == until:
            break
    return taken


async def warm(model: ModelClient) -> None:
    while not model.spare_is_warm:  # noqa: ASYNC110  # there is no event to wait for
        await asyncio.sleep(0.01)
