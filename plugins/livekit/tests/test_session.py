"""From an agent's session over HTTP, a worker and data streams to a face, and back to the agent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from fake_hall import KEY, SECRET, Hall
from livekit.agents import AgentSession, APIConnectionError, APIConnectOptions, APIStatusError
from livekit.agents.voice.avatar import DataStreamAudioOutput
from livekit.agents.voice.room_io import ATTRIBUTE_PUBLISH_ON_BEHALF
from viva.v1.face_call import FaceOrder
from viva_livekit import AvatarSession, VivaError
from viva_livekit.session import IDENTITY, SESSIONS_PATH
from viva_livekit.worker import FaceWorker, WorkerTerms
from voices import RATE, Heard, noise, say, until

URL = "ws://hall"
WORKER_KEY = "key-of-the-worker"
LIVEKIT = {"livekit_url": URL, "livekit_api_key": KEY, "livekit_api_secret": SECRET}
ONCE = APIConnectOptions(max_retry=1, retry_interval=0.01, timeout=2.0)


class Stage:
    """A hall with an agent, a worker, and a client of it."""

    def __init__(
        self, hall: Hall, worker: FaceWorker, http: aiohttp.ClientSession, url: str
    ) -> None:
        self.hall, self.worker, self.http, self.url = hall, worker, http, url
        self.agent_room: Any = hall.room().join("agent")
        self.agent = AgentSession[None]()

    def avatar(self, **options: Any) -> AvatarSession:
        given = {"avatar_id": "ada", "api_url": self.url, "api_key": WORKER_KEY, **options}
        return AvatarSession(http_session=self.http, conn_options=ONCE, **given)


@asynccontextmanager
async def stage(server: str, **terms: Any) -> AsyncIterator[Stage]:
    hall = Hall()
    face = FaceOrder(address=server, sample_rate=RATE)
    given: Any = {"keys": (WORKER_KEY,), "make_room": hall.room, **terms}
    worker = FaceWorker(WorkerTerms(face=face, **given))
    async with (
        asyncio.timeout(40),
        TestServer(worker.app) as http_server,
        aiohttp.ClientSession() as http,
    ):
        yield Stage(hall, worker, http, str(http_server.make_url("")).rstrip("/"))
    assert not worker.seats


def test_an_agent_speaks_through_a_face_and_hears_what_was_heard(server: str) -> None:
    async def play() -> None:
        async with stage(server) as on:
            avatar = on.avatar()
            await avatar.start(on.agent, on.agent_room, **LIVEKIT)
            room = on.hall.rooms[IDENTITY]
            who = room.local_participant
            assert who.attributes == {ATTRIBUTE_PUBLISH_ON_BEHALF: "agent"}
            assert (room.grants.room_join, room.grants.room) == (True, "hall")
            await avatar.wait_for_join(timeout=10)
            output = on.agent.output.audio
            assert isinstance(output, DataStreamAudioOutput)
            heard = Heard(output)
            first = noise(0.6)
            await say(output, first)
            await until(lambda: len(heard.finished) == 1)
            assert heard.num_started == 1
            assert heard.finished[0].playback_position == len(first) / 2 / RATE
            assert not heard.finished[0].interrupted

            await say(output, noise(5.0))
            await until(lambda: heard.num_started == 2)
            await asyncio.sleep(0.4)
            output.clear_buffer()
            await until(lambda: len(heard.finished) == 2)
            assert heard.finished[1].interrupted
            assert 0.1 < heard.finished[1].playback_position < 2.0
            await say(output, first)
            await until(lambda: len(heard.finished) == 3)
            assert heard.finished[2].playback_position == len(first) / 2 / RATE
            methods = [method for _, method, _ in on.hall.calls]
            assert methods.count("lk.playback_finished") == 3
            assert methods.count("lk.playback_started") == 3
            assert methods.count("lk.clear_buffer") == 1

            await avatar.aclose()
            await avatar.aclose()
            assert IDENTITY not in on.hall.rooms
            assert not on.worker.seats

    asyncio.run(play())


def test_a_face_leaves_with_its_agent(server: str) -> None:
    async def play() -> None:
        async with stage(server) as on:
            avatar = on.avatar()
            await avatar.start(on.agent, on.agent_room, **LIVEKIT)
            await avatar.wait_for_join(timeout=10)
            await on.agent_room.disconnect()
            await until(lambda: not on.worker.seats)
            assert IDENTITY not in on.hall.rooms
            await avatar.aclose()

    asyncio.run(play())


def test_what_is_refused_is_said_and_leaves_nothing(server: str) -> None:
    async def play() -> None:
        async with stage(server, livekit_urls=(URL,)) as on:
            for options, livekit, status in (
                ({"api_key": "wrong"}, LIVEKIT, 401),
                ({"avatar_id": "nobody"}, LIVEKIT, 503),
                ({}, {**LIVEKIT, "livekit_url": "ws://elsewhere"}, 403),
                ({}, {**LIVEKIT, "livekit_api_secret": "x" * 40}, 502),
            ):
                with pytest.raises(APIStatusError) as refused:
                    await on.avatar(**options).start(on.agent, on.agent_room, **livekit)
                assert refused.value.status_code == status, refused.value.body
            assert on.agent.output.audio is None
            assert not on.worker.seats
            headers = {"x-api-key": WORKER_KEY}
            for body in (b"[]", b"{", b'{"livekit_url": 3}', b"{}"):
                async with on.http.post(
                    on.url + SESSIONS_PATH, data=body, headers=headers
                ) as answer:
                    assert answer.status == 400
            async with on.http.delete(f"{on.url}{SESSIONS_PATH}/none", headers=headers) as answer:
                assert answer.status == 204
            async with on.http.get(on.url + "/healthz") as answer:
                assert await answer.json() == {"status": "ok", "sessions": 0}

    asyncio.run(play())


def test_it_tries_again_where_that_may_help() -> None:
    async def play() -> None:
        answers = [503, 201]

        async def opened(request: web.Request) -> web.Response:
            assert set(await request.json()) == {"avatar_id", "livekit_url", "livekit_token"}
            return web.json_response({"session_id": "l_1"}, status=answers.pop(0))

        async def deleted(request: web.Request) -> web.Response:
            answers.append(len(request.match_info["name"]))
            return web.Response(status=204)

        app = web.Application()
        app.router.add_post(SESSIONS_PATH, opened)
        app.router.add_delete(SESSIONS_PATH + "/{name}", deleted)
        room: Any = Hall().room().join("agent")
        async with TestServer(app) as http_server, aiohttp.ClientSession() as http:
            avatar = AvatarSession(
                api_url=str(http_server.make_url("/")), conn_options=ONCE, http_session=http
            )
            await avatar.start(AgentSession[None](), room, **LIVEKIT)
            assert answers == []
            await avatar.aclose()
            assert answers == [3]
            lost = AvatarSession(api_url="http://127.0.0.1:1", conn_options=ONCE, http_session=http)
            with pytest.raises(APIConnectionError, match="no worker at"):
                await lost.start(AgentSession[None](), room, **LIVEKIT)

    asyncio.run(play())


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VIVA_LIVEKIT_URL", "LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(VivaError, match="VIVA_LIVEKIT_URL"):
        AvatarSession()

    async def play() -> None:
        avatar = AvatarSession(api_url="http://worker")
        room: Any = Hall().room()
        with pytest.raises(VivaError, match="livekit_api_secret"):
            await avatar.start(AgentSession[None](), room)
        with pytest.raises(VivaError, match="connect it first"):
            await avatar.start(AgentSession[None](), room, **LIVEKIT)

    asyncio.run(play())
