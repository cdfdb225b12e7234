"""Model processes that gateways find, lose, outlive or leave behind."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
from viva.v1.messages import Degraded, SessionFailed

from services import model_link
from services.live_model import Restarted
from services.model_client import ModelClient
from services.model_worker import ModelUnavailable, attached
from tests.support.model_rig import (
    FLASH,
    client,
    own_temporary_folder,
    run,
    spec,
    take,
    warm,
)

__all__ = ["own_temporary_folder"]

pytestmark = pytest.mark.unit


def test_a_process_dies_with_a_gateway_that_is_killed() -> None:
    program = (
        "import asyncio\n"
        "from services.model_client import ModelClient\n"
        "from services.model_worker import spawned\n"
        "async def main():\n"
        "    source = spawned(['-m', 'tests.support.flash_process'])\n"
        "    client = await ModelClient.start(source, has_spare=False)\n"
        "    print('up', flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    gateway = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    with gateway:
        assert gateway.stdout is not None
        assert gateway.stdout.readline() == b"up\n"
        processes = psutil.Process(gateway.pid).children(recursive=True)
        assert processes
        gateway.kill()
    gone, alive = psutil.wait_procs(processes, timeout=5)
    assert not alive
    assert gone
    assert not list(Path(tempfile.gettempdir()).iterdir())


def test_a_process_started_elsewhere_serves_one_gateway_after_the_other(tmp_path: Path) -> None:
    path = tmp_path / "model"

    async def test() -> None:
        for _ in range(2):
            model = await ModelClient.start(attached(path), has_spare=False)
            assert model.pid is None
            stream = await model.open(spec())
            stream.want(1, 0.0)
            assert len(await take(stream.events(), 0)) == 1
            await model.close()

    process = subprocess.Popen([sys.executable, *FLASH, "--socket", str(path), "--capacity", "1"])
    try:
        wait_for(path)
        assert path.stat().st_mode & 0o777 == 0o600
        asyncio.run(test())
    finally:
        process.terminate()
        process.wait()


def test_nobody_at_the_socket_is_said_in_one_line(tmp_path: Path) -> None:
    async def test() -> None:
        with pytest.raises(ModelUnavailable, match=r"no model process listens at .*/model"):
            await ModelClient.start(attached(tmp_path / "model"), has_spare=False)

    run(test)


def wait_for(path: Path) -> None:
    for _ in range(500):
        if path.exists():
            return
        signal.sigtimedwait([], 0.02)
    pytest.fail(f"nothing listens at {path}")


def test_a_process_that_hangs_is_given_up_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_link, "PING_S", 0.05)

    async def test() -> None:
        async with client(has_spare=True) as model:
            await warm(model)
            stream = await model.open(spec())
            events = stream.events()
            first = model.pid
            assert first is not None
            monkeypatch.setattr(model_link, "SILENCE_S", 1.0)
            os.kill(first, signal.SIGSTOP)
            held = await anext(events)
            assert isinstance(held, Degraded)
            assert "has said nothing for 1 s" in held.why
            monkeypatch.setattr(model_link, "SILENCE_S", 30.0)
            assert isinstance(await anext(events), Restarted)
            while psutil.pid_exists(first):  # noqa: ASYNC110  # no event
                await asyncio.sleep(0.01)

    run(test)


def test_a_reader_that_stops_reading_costs_bounded_memory_and_is_told() -> None:
    async def test() -> None:
        async with client("--side", "1") as model:
            stream = await model.open(spec())
            stream.want(5000, 0.0)
            # The engine serves both in turn: whoever reads has as many slices as whoever does not.
            other = await model.open(spec("other"))
            other.want(1100, 0.0)
            await take(other.events(), 1099)
            seen = [event async for event in stream.events()]
            failure = seen[-1]
            assert isinstance(failure, SessionFailed)
            assert "events were not read" in failure.detail
            assert len(seen) <= 1024
            await stream.close()

    run(test)
