"""One session's slices as the gateway gets them, whichever model process makes them."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from viva.v1.framing import WireError
from viva.v1.messages import (
    LEVEL_HELD,
    CloseSession,
    Degraded,
    EndUtterance,
    GatewayMessage,
    Interrupt,
    ModelMessage,
    OpenSession,
    SessionClosed,
    SessionFailed,
    SessionOpened,
    SliceMade,
    Speak,
    StageTrace,
    Want,
)

from services.live_model import LiveEvent, ModelRefused, Restarted
from services.model_link import ModelLink
from services.slice import Slice

# Credit bounds what comes; a reader that is further behind has stopped to read.
MAX_EVENTS = 1024
# Sound goes out in pieces of this size, so that no message is large.
PIECE_SAMPLES = 1 << 19
CLOSE_S = 5.0
log = logging.getLogger(__name__)


class ModelStream:
    """A `LiveStream` that lives on when its model process does not.

    Its `link` is where words go: None while no process has the session, and after a restart until
    the reader has met `Restarted`, so that nothing is said twice and nothing is lost unnoticed.
    """

    def __init__(self, spec: OpenSession, forget: Callable[[str], None]) -> None:
        """Be opened by `begin`; `forget` is called once when the session is no more."""
        self.session, self.sample_rate, self.spec = spec.session, spec.sample_rate, spec
        self.fps, self.width, self.height = Fraction(0), 0, 0
        self._forget = forget
        self._link: ModelLink | None = None
        self._opening: ModelLink | None = None
        self._events: deque[tuple[LiveEvent, ModelLink | None]] = deque()
        self._changed = asyncio.Event()
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended = asyncio.Event()
        self._base = self._next_index = 0
        self._has_failed = self._is_closing = False

    async def opened(self) -> None:
        """Wait until a process has the session.

        Raises:
            ModelRefused: none takes it.
        """
        await self._opened

    def begin(self, link: ModelLink) -> None:
        """Have a process open the session, for the first time or again."""
        self._opening = link
        link.send(self.spec)

    def take(self, message: ModelMessage) -> None:
        """What the process says about this session.

        Raises:
            WireError: what no honest process says.
        """
        match message:
            case SessionOpened():
                self._take_opening(message)
            case SliceMade():
                self._take_slice(message)
            case StageTrace() | Degraded():
                self._put(message)
            case SessionFailed():
                self.fail(message)
            case SessionClosed():
                self._end()
            case _:
                log.debug("session %s: %s is not waited for", self.session, message.tag)

    def lose(self, why: str) -> None:
        """The process is gone; another one will take the session, or `fail` will be called."""
        self._link = None
        if self._is_closing:
            self._end()
        elif self._opened.done():
            self._put(Degraded(session=self.session, level=LEVEL_HELD, why=why[:1000]))

    def fail(self, failure: SessionFailed) -> None:
        """The session is no more."""
        if not self._opened.done():
            self._opened.set_exception(ModelRefused(failure.reason, failure.detail))
            self._opened.exception()  # whoever waits gets it; nobody has to
        self._put(failure)
        self._has_failed = True
        self._end()

    def speak(self, utterance: str, epoch: int, pcm_T: npt.NDArray[np.int16]) -> None:
        """Give the next sound of an utterance."""
        for start in range(0, len(pcm_T), PIECE_SAMPLES):
            pcm = pcm_T[start : start + PIECE_SAMPLES].astype("<i2", copy=False).tobytes()
            self._say(Speak(session=self.session, utterance=utterance, epoch=epoch, pcm=pcm))

    def end(self, utterance: str, epoch: int) -> None:
        """Say that no more sound of the utterance will come."""
        self._say(EndUtterance(session=self.session, utterance=utterance, epoch=epoch))

    def interrupt(self, epoch: int) -> None:
        """Drop what belongs to epochs before this one."""
        self._say(Interrupt(session=self.session, epoch=epoch))

    def want(self, until_index: int, due_in_ms: float) -> None:
        """Ask for slices with an index below `until_index`."""
        until = max(0, until_index - self._base)
        self._say(Want(session=self.session, until_index=until, due_in_ms=due_in_ms))

    def events(self) -> AsyncIterator[LiveEvent]:
        """Slices in order of index, and what happens between them; for one reader."""
        return _Events(self.next_event)

    async def next_event(self) -> LiveEvent:
        """The next of them.

        Raises:
            StopAsyncIteration: there are no more.
        """
        while not self._events:
            if self._is_closing or self._has_failed:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        event, link = self._events.popleft()
        if isinstance(event, Restarted):
            self._link = link if link is not None and link.is_alive else None
        return event

    async def close(self) -> None:
        """Free the session, here and in the process."""
        link, self._is_closing = self._link or self._opening, True
        self._changed.set()
        if self._ended.is_set():
            return
        if link is None or not link.is_alive:
            self._end()
            return
        link.send(CloseSession(session=self.session))
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._ended.wait()
        except TimeoutError:
            log.warning("session %s was not closed within %.0f s", self.session, CLOSE_S)
        finally:
            self._end()

    def _say(self, message: GatewayMessage) -> None:
        """Say something to the process that has the session, if there is one."""
        if self._link is not None and not self._is_closing:
            self._link.send(message)

    def _put(self, event: LiveEvent, link: ModelLink | None = None) -> None:
        """Queue an event; one reader that stopped must not cost the others' memory."""
        if self._is_closing or self._has_failed:
            return
        if len(self._events) >= MAX_EVENTS:
            if isinstance(event, StageTrace):
                return
            self._events.clear()
            self._has_failed = True
            detail = f"{MAX_EVENTS} events were not read"
            event = SessionFailed(session=self.session, reason="failed", detail=detail)
        self._events.append((event, link))
        self._changed.set()

    def _take_opening(self, opened: SessionOpened) -> None:
        """A process has the session: at once, or as soon as the reader knows it."""
        size, fps = (opened.width, opened.height), Fraction(opened.fps_num, opened.fps_den)
        if not self._opened.done():
            (self.width, self.height), self.fps = size, fps
            self._link = self._opening
            self._opened.set_result(None)
            return
        if (size, fps) != ((self.width, self.height), self.fps):
            raise WireError(f"session {self.session} came back in another size or rate")
        self._base = self._next_index
        self._put(Restarted(session=self.session, next_index=self._next_index), self._opening)

    def _take_slice(self, made: SliceMade) -> None:
        """Queue the next slice."""
        index = self._base + made.index
        if index != self._next_index:
            raise WireError(f"session {self.session}: slice {index} instead of {self._next_index}")
        if (made.width, made.height) != (self.width, self.height):
            raise WireError(f"session {self.session}: a slice of another size")
        self._next_index += 1
        picture = np.frombuffer(made.rgb, np.uint8).reshape(made.height, made.width, 3)
        self._put(
            Slice(
                index=index,
                epoch=made.epoch,
                utterance=made.utterance or None,
                picture_HWC=picture,
                sound_T=np.frombuffer(made.pcm, "<i2"),
                ends_utterance=made.last_of_utterance,
            )
        )

    def _end(self) -> None:
        """Nothing more will come; once."""
        if not self._ended.is_set():
            self._ended.set()
            self._changed.set()
            self._forget(self.session)


class _Events:
    """A stream's events: no generator, which would leave a task behind where a reader stops."""

    def __init__(self, next_event: Callable[[], Awaitable[LiveEvent]]) -> None:
        self._next_event = next_event

    def __aiter__(self) -> AsyncIterator[LiveEvent]:
        return self

    async def __anext__(self) -> LiveEvent:
        return await self._next_event()
