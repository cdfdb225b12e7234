"""The gRPC side of a server that ends: live calls have their time, unless it is to be at once."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from viva.v1 import avatar_pb2
from viva.v1.avatar_pb2_grpc import AvatarServiceStub

from services import control
from services.auth import ApiKeys
from services.deployment import Deployment
from services.places import Places
from services.serve_grpc import grpc_beside
from tests.support.control_house import EOF, SMALL, FakeGallery, config_message
from tests.support.fake_model import FakeModel

pytestmark = pytest.mark.unit


class Ends:
    """What a server hears of its end."""

    def __init__(self) -> None:
        self.draining, self.ending = asyncio.Event(), asyncio.Event()


@asynccontextmanager
async def beside(ends: Ends) -> AsyncIterator[control.Control]:
    """The gRPC side of a server whose HTTP side does nothing."""
    model = FakeModel(SMALL)
    sessions = SimpleNamespace(places=Places(2, 0), let_in=lambda: None)
    parts: Any = SimpleNamespace(
        model=model, sessions=sessions, portraits=FakeGallery(), gate=SimpleNamespace(tokens=None)
    )
    async with grpc_beside(
        Deployment(grpc_port=0),
        parts,
        ApiKeys([]),
        voice=None,
        draining=ends.draining,
        ending=ends.ending,
    ) as running:
        assert running is not None
        yield running
    await model.close()


async def silence() -> AsyncIterator[avatar_pb2.ConverseRequest]:
    """A call that stays."""
    yield config_message()
    await asyncio.Event().wait()


def test_a_live_call_ends_with_a_status_although_http_has_nothing_to_wait_for() -> None:
    async def run() -> None:
        ends = Ends()
        async with beside(ends) as running:
            channel = grpc.aio.insecure_channel(f"127.0.0.1:{running.port}")
            call: Any = AvatarServiceStub(channel).Converse(silence(), timeout=10)
            assert (await call.read()).HasField("session_started")
            ends.draining.set()
        came = []
        while (one := await call.read()) is not EOF:
            came.append(one)
        assert came[-1].status.reason == avatar_pb2.END_REASON_DRAINING
        assert await call.code() is grpc.StatusCode.OK
        await channel.close(None)

    asyncio.run(run())


def test_a_second_signal_cuts_the_drain_short(monkeypatch: pytest.MonkeyPatch) -> None:
    async def endless(_self: object, _deadline_s: float) -> None:
        await asyncio.Event().wait()

    async def run() -> None:
        ends = Ends()
        async with asyncio.timeout(10):
            async with beside(ends):
                ends.draining.set()
                asyncio.get_running_loop().call_later(0.05, ends.ending.set)

    monkeypatch.setattr(control.Control, "drain", endless)
    asyncio.run(run())


def test_a_drain_that_fails_is_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_self: object, _deadline_s: float) -> None:
        raise RuntimeError("no drain")

    async def run() -> None:
        ends = Ends()
        async with beside(ends):
            ends.draining.set()

    monkeypatch.setattr(control.Control, "drain", fail)
    with caplog.at_level(logging.ERROR):
        asyncio.run(run())
    assert "no drain" in caplog.text
