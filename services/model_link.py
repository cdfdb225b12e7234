"""The gateway's end of the socket to one model process, on the gateway's event loop."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import cast, get_args

from viva.v1.framing import VERSION, FrameDecoder, WireError
from viva.v1.messages import (
    GatewayMessage,
    Hello,
    ModelMessage,
    ModelReady,
    Ping,
    Pong,
    encode,
    parse,
)

PING_S = 2.0
# A process that says nothing for so long, pings and all, is taken for hung.
SILENCE_S = 10.0
# What the process has not read. Its reader does nothing else: more means that it is stuck.
MAX_UNSENT_BYTES = 128 << 20
log = logging.getLogger(__name__)


class ModelLink(asyncio.Protocol):
    """Messages to and from a model process. Everything happens on the loop that connected it.

    `on_message` gets what is said after `ModelReady`; `on_lost` is called once, with a line saying
    why, when the process is gone, hung, or breaks the contract. After `close` nothing is called.
    """

    def __init__(self) -> None:
        """Be connected by `connect`."""
        self.on_message: Callable[[ModelMessage], None] = _ignore
        self.on_lost: Callable[[str], None] = _ignore
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._decoder = FrameDecoder()
        self._ready: asyncio.Future[ModelReady] = self._loop.create_future()
        self._ended = asyncio.Event()
        self._lost: str | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._heard_s = self._loop.time()
        self._num_pings = 0

    @classmethod
    async def connect(cls, path: Path) -> "ModelLink":
        """A link to the process that listens at the path.

        Raises:
            OSError: nobody listens there.
        """
        loop = asyncio.get_running_loop()
        _, link = await loop.create_unix_connection(cls, str(path))
        link.send(Hello())
        return link

    @property
    def is_alive(self) -> bool:
        """Whether messages still reach the process, as far as is known."""
        return self._transport is not None and self._lost is None

    async def ready(self) -> ModelReady:
        """Wait until the process has warmed up; deadlines are the caller's.

        Raises:
            ConnectionError: it ended before.
        """
        return await asyncio.shield(self._ready)

    def send(self, message: GatewayMessage) -> None:
        """Say something; to a process that is gone it is said in vain."""
        if self._transport is None or self._lost is not None:
            return
        self._transport.write(encode(message))
        if self._transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self._lose("it does not read")

    async def close(self) -> None:
        """Hang up, and wait until the descriptor is given back."""
        self.on_message = self.on_lost = _ignore
        self._lose("closed")
        await self._ended.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to look whether the process is alive."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Take what has arrived."""
        self._heard_s = self._loop.time()
        try:
            for payload in self._decoder.feed(data):
                message = parse(payload)
                if self._lost is None:
                    self._take(message)
        except WireError as error:
            self._lose(f"it breaks the contract: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        """The process has hung up, or this side has."""
        self._lose(f"its connection broke: {exc}" if exc else "it hung up")
        self._ended.set()

    def _take(self, message: object) -> None:
        """Hand a message on; the first one says that the process is ready."""
        if not isinstance(message, get_args(ModelMessage)):
            raise WireError(f"{type(message).__name__} is what a gateway says, not a model")
        if isinstance(message, ModelReady):
            self._begin(message)
        elif not isinstance(message, Pong):
            self.on_message(cast(ModelMessage, message))

    def _begin(self, ready: ModelReady) -> None:
        """The process is warm: look after it from now on."""
        if ready.version != VERSION or self._ready.done():
            raise WireError(f"ready for version {ready.version}, or twice")
        self._ready.set_result(ready)
        self._timer = self._loop.call_later(PING_S, self._look)

    def _look(self) -> None:
        """Ask for a sign of life, or give up."""
        if self._loop.time() - self._heard_s > SILENCE_S:
            self._lose(f"it has said nothing for {SILENCE_S:.0f} s")
            return
        self._num_pings += 1
        self.send(Ping(nonce=self._num_pings))
        self._timer = self._loop.call_later(PING_S, self._look)

    def _lose(self, why: str) -> None:
        """Hang up, once, and say so."""
        if self._lost is not None:
            return
        self._lost = why
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        if not self._ready.done():
            self._ready.set_exception(ConnectionError(f"the model process ended early: {why}"))
            self._ready.exception()  # whoever waits gets it; nobody has to
        self.on_lost(why)


def _ignore(_: object) -> None:
    """Nobody listens."""
