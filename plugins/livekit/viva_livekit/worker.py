"""The worker's side: joins rooms with the token that an agent sends, and shows a face there.

    POST   /v1/livekit/sessions        {"avatar_id", "livekit_url", "livekit_token"} -> 201
    DELETE /v1/livekit/sessions/{id}   -> 204
    GET    /healthz                    -> 200

Each session is one call to the server and one room. It ends when the agent leaves, the room or the
face is gone, or it is deleted; then everything of it is freed.
"""

import asyncio
import contextlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import web
from livekit import rtc
from livekit.agents.voice.avatar import AudioReceiver, DataStreamAudioReceiver
from livekit.agents.voice.room_io import ATTRIBUTE_PUBLISH_ON_BEHALF
from viva.v1.face_call import FaceCall, FaceLost, FaceOrder

from viva_livekit.face_generator import FaceGenerator
from viva_livekit.face_runner import FaceRunner
from viva_livekit.log import logger
from viva_livekit.session import SESSIONS_PATH

MAX_BODY_BYTES = 65_536
RETRY_AFTER_S = 5
AGENT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerTerms:
    """Where faces come from and who may ask for one.

    `keys`: without any everybody may, so listen on loopback only. `livekit_urls`: the only servers
    that are joined; without any all are.
    """

    face: FaceOrder
    keys: tuple[str, ...] = ()
    livekit_urls: tuple[str, ...] = ()
    make_room: Callable[[], rtc.Room] = rtc.Room
    make_receiver: Callable[..., AudioReceiver] = DataStreamAudioReceiver


@dataclass(slots=True)
class Seat:
    """A session: its face, its room, and the task that ends it."""

    face: FaceCall
    room: rtc.Room
    over: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class FaceWorker:
    """The application and its sessions."""

    def __init__(self, terms: WorkerTerms) -> None:
        """Serve nobody yet."""
        self._terms = terms
        self.seats: dict[str, Seat] = {}
        self.app = web.Application(client_max_size=MAX_BODY_BYTES)
        self.app.add_routes(
            [
                web.post(SESSIONS_PATH, self._open),
                web.delete(SESSIONS_PATH + "/{session}", self._delete),
                web.get("/healthz", self._health),
            ]
        )
        self.app.on_shutdown.append(self._shut_down)

    async def _open(self, request: web.Request) -> web.Response:
        """A face into a room: it is there when this is answered."""
        self._refuse_strangers(request)
        order = await _order(request)
        if self._terms.livekit_urls and order["livekit_url"] not in self._terms.livekit_urls:
            raise web.HTTPForbidden(text="livekit_url: this worker does not join that server")
        portrait = order["avatar_id"] or self._terms.face.portrait
        face = FaceCall(replace(self._terms.face, portrait=portrait))
        try:
            await face.start()
        except FaceLost as error:
            headers = {"Retry-After": str(RETRY_AFTER_S)}
            raise web.HTTPServiceUnavailable(text=str(error), headers=headers) from error
        seat = Seat(face, self._terms.make_room())
        seat.room.on("disconnected", lambda *_: seat.over.set())
        try:
            await seat.room.connect(order["livekit_url"], order["livekit_token"])
        except BaseException as error:
            await face.close()
            if isinstance(error, rtc.ConnectError):
                raise web.HTTPBadGateway(text=f"the room cannot be joined: {error}") from error
            raise
        name = f"l_{secrets.token_urlsafe(12)}"
        self.seats[name] = seat
        seat.task = asyncio.create_task(self._perform(name, seat), name=f"face {name}")
        return web.json_response({"session_id": name}, status=201)

    async def _perform(self, name: str, seat: Seat) -> None:
        """Show the face until there is a reason to end, and free everything."""
        agent = seat.room.local_participant.attributes.get(ATTRIBUTE_PUBLISH_ON_BEHALF, "")
        seat.room.on("participant_disconnected", lambda who: _left(seat, who, agent))
        runner: FaceRunner | None = None
        try:
            receiver = self._terms.make_receiver(seat.room, sender_identity=agent or None)
            generator = FaceGenerator(seat.face)
            runner = FaceRunner(seat.room, audio_recv=receiver, generator=generator)
            async with asyncio.timeout(AGENT_S):
                await runner.start()
            showing = asyncio.create_task(runner.wait_for_complete())
            over = asyncio.create_task(seat.over.wait())
            await asyncio.wait({showing, over}, return_when=asyncio.FIRST_COMPLETED)
            over.cancel()
            if showing.done():
                showing.result()
            showing.cancel()
            await asyncio.gather(showing, over, return_exceptions=True)
        except (FaceLost, TimeoutError) as error:
            logger.warning("session %s ends: %s", name, error or "no agent came")
        except Exception:  # noqa: BLE001 - nobody awaits this task: it would be silent
            logger.exception("session %s broke", name)
        finally:
            self.seats.pop(name, None)
            await seat.face.close()
            if runner is not None:
                with contextlib.suppress(Exception):
                    await runner.aclose()
            await seat.room.disconnect()

    async def _delete(self, request: web.Request) -> web.Response:
        """End a session; one that is over is no error."""
        self._refuse_strangers(request)
        seat = self.seats.get(request.match_info["session"])
        if seat is not None and seat.task is not None:
            seat.over.set()
            await asyncio.wait({seat.task})
        return web.Response(status=204)

    async def _health(self, request: web.Request) -> web.Response:
        """The worker answers."""
        del request
        return web.json_response({"status": "ok", "sessions": len(self.seats)})

    async def _shut_down(self, app: web.Application) -> None:
        """End all sessions."""
        del app
        tasks = {seat.task for seat in self.seats.values() if seat.task is not None}
        for seat in tuple(self.seats.values()):
            seat.over.set()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _refuse_strangers(self, request: web.Request) -> None:
        """Let only those in who know a key."""
        given = request.headers.get("x-api-key", "").encode()
        known = [hmac.compare_digest(given, key.encode()) for key in self._terms.keys]
        if known and not any(known):
            raise web.HTTPUnauthorized(text="x-api-key: unknown")


def _left(seat: Seat, who: Any, agent: str) -> None:
    """A face without its agent has nothing to do."""
    if who.identity == agent:
        seat.over.set()


async def _order(request: web.Request) -> dict[str, str]:
    """What was posted, checked.

    Raises:
        HTTPBadRequest: something else.
    """
    try:
        body: Any = await request.json()
    except ValueError as error:
        raise web.HTTPBadRequest(text="send JSON") from error
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(text="send a JSON object")
    order = {name: body.get(name, "") for name in ("avatar_id", "livekit_url", "livekit_token")}
    for name, value in order.items():
        if not isinstance(value, str) or (not value and name != "avatar_id"):
            raise web.HTTPBadRequest(text=f"{name}: give a text")
    return order
