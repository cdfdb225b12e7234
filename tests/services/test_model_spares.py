"""Spares that fail at the worst moment: nothing is orphaned, and recovery goes on."""

import asyncio
import errno
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from services.model_client import ModelClient
from services.model_worker import ModelUnavailable, spawned

pytestmark = pytest.mark.unit


class Worker:
    """A worker without a process."""

    def __init__(self, number: int) -> None:
        self.pid, self.is_stopped = number, False
        self.ready = SimpleNamespace(capacity=1)
        self.link: Any = SimpleNamespace(
            is_alive=True, on_message=lambda *_: None, on_lost=lambda *_: None
        )

    async def stop(self, patience_s: float = 0.0) -> None:
        del patience_s
        self.is_stopped = True

    def die(self) -> None:
        self.link.is_alive = False
        self.link.on_lost("killed")


def test_a_spare_that_dies_as_it_is_taken_leaves_no_other_behind() -> None:
    async def run() -> None:
        made, may_come = list[Worker](), asyncio.Event()

        async def source(capacity: int | None) -> Any:
            if capacity is not None:
                await may_come.wait()
            made.append(Worker(len(made)))
            return made[-1]

        client = await ModelClient.start(source)
        made[0].die()
        await asyncio.sleep(0.01)  # recovery waits for the spare
        may_come.set()
        while len(made) < 2:  # noqa: ASYNC110 # the very moment, not an event
            await asyncio.sleep(0)
        made[1].die()
        await asyncio.sleep(0.05)
        assert client.is_up
        await client.close()
        assert all(worker.is_stopped for worker in made)

    asyncio.run(run())


def test_a_process_that_cannot_be_made_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(subprocess, "Popen", full)

    async def run() -> None:
        with pytest.raises(ModelUnavailable, match=r"could not be started: .*Too many open files"):
            await spawned(["-m", "services.model_process"])(None)

    asyncio.run(run())
