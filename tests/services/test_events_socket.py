"""Events over the WebSocket: what clients may say, and what they hear."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.beat import Event
from services.event_board import MAX_UNREAD, EventBoard
from services.event_desk import MAX_EVENT_BYTES
from tests.support.gateways import Gateway, bearer, gateway, problem

pytestmark = pytest.mark.unit

Socket = aiohttp.ClientWebSocketResponse
PCM = base64.b64encode(np.zeros(2400, "<i2").tobytes()).decode()


def talk(scene: Callable[[Gateway, Socket], Awaitable[None]], **fields: Any) -> None:
    """Run a scene with a started session's socket, whose first event was read."""

    async def run() -> None:
        async with gateway(**fields) as g:
            made = await g.make()
            assert (await g.offered(made)).status == 200
            protocols = ("viva.v1", f"bearer.{made['token']}")
            async with g.client.ws_connect(made["events_url"], protocols=protocols) as socket:
                assert socket.protocol == "viva.v1"
                first = await hear(socket)
                assert (first["type"], first["state"]) == ("session.state_updated", "ready")
                await scene(g, socket)

    asyncio.run(run())


async def hear(socket: Socket, kind: str = "") -> dict[str, Any]:
    """The next event (of a kind)."""
    while True:
        event: dict[str, Any] = await socket.receive_json(timeout=5)
        if not kind or event["type"] == kind:
            return event


async def said(socket: Socket, kind: str, **fields: Any) -> None:
    await socket.send_json({"type": kind, **fields})


async def obeyed(socket: Socket) -> None:
    """Wait until everything said so far was read: the answer to nonsense comes after it."""
    await said(socket, "nothing", event_id="last")
    while (await hear(socket, "error")).get("source_event_id") != "last":
        pass


def test_sound_is_resampled_and_ended() -> None:
    async def scene(g: Gateway, socket: Socket) -> None:
        await said(socket, "agent.speak", audio=PCM)
        await said(socket, "agent.speak", audio=PCM)
        await said(socket, "agent.speak_end")
        await said(socket, "agent.speak", audio=PCM, utterance="mine", sample_rate=48_000)
        await obeyed(socket)
        performing = g.studio.performings[0]
        assert performing.said == {"u_1": 9600, "mine": 2400}
        assert performing.ended == ["u_1"]

    talk(scene)


def test_words_are_spoken_in_their_turn() -> None:
    async def scene(g: Gateway, socket: Socket) -> None:
        await said(socket, "agent.speak_text", text="one two", utterance="a")
        await said(socket, "agent.speak_text", text="three", utterance="b")
        await obeyed(socket)
        for _ in range(100):
            await asyncio.sleep(0.01)
            if g.studio.performings[0].ended == ["a", "b"]:
                break
        assert g.studio.performings[0].said == {"a": 9600, "b": 4800}
        assert g.studio.performings[0].ended == ["a", "b"]

    talk(scene)


def test_an_interrupt_stops_words_that_are_being_made() -> None:
    async def scene(g: Gateway, socket: Socket) -> None:
        await said(socket, "agent.speak_text", text="word " * 300, utterance="long")
        await said(socket, "agent.interrupt")
        await obeyed(socket)
        await asyncio.sleep(0.1)
        assert g.studio.performings[0].said.get("long", 0) < 48 * 100 * 300
        assert "long" not in g.studio.performings[0].ended

    talk(scene)


def test_what_a_performer_does_is_heard() -> None:
    async def scene(g: Gateway, socket: Socket) -> None:
        on_event = g.studio.performings[0].on_event
        on_event(Event(kind="speak_started", at_tick=3, utterance="u", position_ms=0.0))
        on_event(Event(kind="degraded", at_tick=4, level=2, why="late"))
        on_event(Event(kind="stage", at_tick=5, stage="s", chunk=1, began_ms=0.0, ended_ms=9.0))
        assert (await hear(socket))["type"] == "agent.speak_started"
        degraded = await hear(socket)
        assert (degraded["type"], degraded["level"]) == ("session.degraded", 2)
        assert (await hear(socket))["stage"] == "s"
        metrics = await (await g.client.get("/metrics")).text()
        assert 'viva_live_chunk_ms_count{stage="s"} 1.0' in metrics

    talk(scene)


def test_the_end_is_announced_before_it_comes() -> None:
    async def scene(g: Gateway, socket: Socket) -> None:
        g.clock.now_s += 300
        g.sessions.watch()
        closing = await hear(socket, "session.closing")
        assert (closing["reason"], closing["in_ms"]) == ("idle_timeout", 10)
        states = [(await hear(socket, "session.state_updated"))["state"] for _ in range(2)]
        assert states == ["draining", "closed"]
        end = await socket.receive(timeout=5)
        assert end.type is aiohttp.WSMsgType.CLOSE
        assert end.data == 1000

    talk(scene, sessions={"closing_ms": 10})


def test_listening_keeping_alive_reporting_and_stopping() -> None:
    async def scene(g: Gateway, socket: Socket) -> None:
        await said(socket, "agent.stop_listening")
        assert (await hear(socket, "agent.listening"))["on"] is False
        assert not g.studio.performings[0].is_listening
        g.clock.now_s += 290
        await said(socket, "session.keep_alive")
        await said(socket, "session.stats", fps=24.9, freezes=2, av_offset_ms=-12.5)
        await obeyed(socket)
        g.clock.now_s += 290
        g.sessions.watch()
        assert "viva_live_freezes_total 2.0" in await (await g.client.get("/metrics")).text()
        await said(socket, "session.stop")
        assert (await hear(socket, "session.closing"))["reason"] == "client"

    talk(scene)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("{", "bad_json"),
        ("[]", "bad_json"),
        ('{"type": 1}', "bad_field"),
        ('{"type": "agent.fly"}', "bad_field"),
        ('{"type": "agent.speak"}', "bad_field"),
        ('{"type": "agent.speak", "audio": "?"}', "bad_field"),
        ('{"type": "agent.speak", "audio": "AA=="}', "bad_field"),
        ('{"type": "agent.speak", "audio": "AAA", "sample_rate": 1}', "bad_field"),
        ('{"type": "agent.speak", "audio": "AAAA", "utterance": "a b"}', "bad_field"),
        ('{"type": "agent.speak_text", "text": ""}', "bad_field"),
        ('{"type": "agent.speak_text", "text": "a", "voice": "nobody"}', "bad_text"),
        ('{"type": "session.stats", "fps": NaN}', "bad_field"),
        ('{"type": "session.stats", "fps": "1"}', "bad_field"),
        ('{"type": "session.keep_alive", "more": 1}', "bad_field"),
    ],
)
def test_what_is_not_understood_is_said_so(sent: str, code: str) -> None:
    async def scene(g: Gateway, socket: Socket) -> None:
        await socket.send_str(sent)
        assert (await hear(socket, "error"))["code"] == code
        assert not g.studio.performings[0].said

    talk(scene)


def test_too_much_sound_is_refused_not_dropped() -> None:
    async def scene(g: Gateway, socket: Socket) -> None:
        g.studio.performings[0].queue_ms = 180_000
        await said(socket, "agent.speak", audio=PCM, event_id="e")
        error = await hear(socket, "error")
        assert (error["code"], error["source_event_id"]) == ("busy", "e")

    talk(scene)


def test_a_message_that_is_too_large_ends_the_socket() -> None:
    async def scene(g: Gateway, socket: Socket) -> None:
        del g
        await socket.send_str("x" * (MAX_EVENT_BYTES + 1))
        end = await socket.receive(timeout=5)
        assert (end.type, end.data) == (aiohttp.WSMsgType.CLOSE, 1009)

    talk(scene)


def test_too_many_messages_end_the_socket() -> None:
    async def scene(g: Gateway, socket: Socket) -> None:
        del g
        for _ in range(201):
            await said(socket, "session.keep_alive")
        end = await socket.receive(timeout=5)
        assert (end.type, end.data) == (aiohttp.WSMsgType.CLOSE, 4429)

    talk(scene)


def test_who_does_not_read_is_cut_off() -> None:
    board = EventBoard("s")
    feed, other = board.open_feed(), list[dict[str, Any]]()
    board.add_sender("p", other.append)
    for _ in range(MAX_UNREAD + 1):
        board.publish("x")
    assert feed.is_too_slow
    assert len(other) == MAX_UNREAD + 1, "others hear everything"


def test_a_socket_needs_a_token_of_its_session_and_an_upgrade() -> None:
    async def run() -> None:
        async with gateway() as g:
            mine, other = await g.make(), await g.make()
            plain = await g.client.get(mine["events_url"], headers=bearer(mine["token"]))
            await problem(plain, 400, "bad_request")
            foreign = await g.client.get(mine["events_url"], headers=bearer(other["token"]))
            await problem(foreign, 403, "token_foreign")

    asyncio.run(run())


@settings(max_examples=30)
@given(
    events=st.lists(
        st.dictionaries(
            st.sampled_from(["type", "audio", "text", "utterance", "event_id", "fps", "on"]),
            st.none()
            | st.integers()
            | st.floats()
            | st.text(max_size=10)
            | st.sampled_from(["agent.speak", "agent.speak_end", "agent.interrupt", PCM]),
        )
        | st.text(max_size=30),
        max_size=20,
    )
)
def test_whatever_is_said_the_socket_lives(events: list[Any]) -> None:
    async def scene(g: Gateway, socket: Socket) -> None:
        del g
        for event in events:
            await socket.send_str(event if isinstance(event, str) else json.dumps(event))
        await obeyed(socket)

    talk(scene)
