"""Events of a session over a WebSocket: /v1/sessions/{id}/events."""

import asyncio
import contextlib
import json

from aiohttp import WSMsgType, web

from services.event_board import Event, EventFeed
from services.event_desk import MAX_EVENT_BYTES
from services.gateway_parts import Parts
from services.hosted_session import HostedSession
from services.problem import Problem

SUBPROTOCOL = "viva.v1"
HEARTBEAT_S = 20.0
SEND_S = 10.0
SESSION_CLOSED, TOO_SLOW, TOO_MANY = 1000, 4408, 4429


class EventsSocket:
    """The handler."""

    def __init__(self, parts: Parts) -> None:
        """Serve these parts."""
        self._parts = parts

    def routes(self) -> list[web.RouteDef]:
        """All of them."""
        return [web.get("/v1/sessions/{session}/events", self.events)]

    async def events(self, request: web.Request) -> web.WebSocketResponse:
        """Talk until the session or the client ends.

        Raises:
            Problem: before the upgrade: 400, and as `Gate.require_session`.
        """
        session = self._parts.visit(request).session
        session.refuse_closed()
        socket = web.WebSocketResponse(
            protocols=(SUBPROTOCOL,),
            heartbeat=HEARTBEAT_S,
            max_msg_size=MAX_EVENT_BYTES,
            compress=False,
        )
        if not socket.can_prepare(request).ok:
            raise Problem(400, "bad_request", "this address is for WebSockets")
        await socket.prepare(request)
        feed = session.board.open_feed()
        session.tell_state()
        writer = asyncio.create_task(_write(socket, feed), name=f"events to {session.name}")
        try:
            await self._read(socket, session, feed)
        finally:
            session.board.close_feed(feed)
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writer
        return socket

    async def _read(
        self, socket: web.WebSocketResponse, session: HostedSession, feed: EventFeed
    ) -> None:
        """Obey what the client says."""
        speaker = f"{session.name} {id(feed)}"

        def reply(event: Event) -> None:
            feed.put(json.dumps(event))

        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                reply(session.board.event("error", code="bad_json", detail="send JSON as text"))
            elif self._parts.desk.is_flood(speaker):
                await socket.close(code=TOO_MANY, message=b"too many messages")
            else:
                self._parts.desk.take_text(session, message.data, reply)


async def _write(socket: web.WebSocketResponse, feed: EventFeed) -> None:
    """Send what is unread until the feed is closed; a client that does not read is cut off."""
    try:
        while (text := await feed.next()) is not None:
            async with asyncio.timeout(SEND_S):
                await socket.send_str(text)
        code, why = (TOO_SLOW, b"too slow") if feed.is_too_slow else (SESSION_CLOSED, b"closed")
        await socket.close(code=code, message=why)
    except TimeoutError:
        await socket.close(code=TOO_SLOW, message=b"too slow", drain=False)
    except (ConnectionError, RuntimeError):
        return  # the client is gone: the reader has noticed, or will
