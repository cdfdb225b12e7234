"""What a session says to its clients: each event goes to every feed that listens."""

import asyncio
import itertools
import json
from collections.abc import Callable

MAX_UNREAD = 256

Value = str | int | float | bool | None
Event = dict[str, Value]
Send = Callable[[Event], object]


class EventFeed:
    """One listener's unread events; who reads too slowly is cut off, not waited for."""

    def __init__(self) -> None:
        """Start empty."""
        self._unread: asyncio.Queue[str | None] = asyncio.Queue()
        self.is_too_slow = False
        self._is_closed = False

    def put(self, text: str) -> None:
        """Add an event, or close the feed where too many are unread."""
        if self._is_closed:
            return
        if self._unread.qsize() >= MAX_UNREAD:
            self.is_too_slow = True
            self.close()
            return
        self._unread.put_nowait(text)

    def close(self) -> None:
        """Say that nothing more will come; what is unread can still be read."""
        if not self._is_closed:
            self._is_closed = True
            self._unread.put_nowait(None)

    async def next(self) -> str | None:
        """The next event; None: that was all."""
        return await self._unread.get()


class EventBoard:
    """All listeners of one session: feeds of WebSockets and senders of data channels."""

    def __init__(self, session: str) -> None:
        """Start with nobody."""
        self._session = session
        self._numbers = itertools.count(1)
        self._feeds: set[EventFeed] = set()
        self._senders: dict[str, Send] = {}

    @property
    def num_feeds(self) -> int:
        """How many sockets listen."""
        return len(self._feeds)

    def open_feed(self) -> EventFeed:
        """A feed that gets everything from now on."""
        feed = EventFeed()
        self._feeds.add(feed)
        return feed

    def close_feed(self, feed: EventFeed) -> None:
        """Forget a feed."""
        feed.close()
        self._feeds.discard(feed)

    def add_sender(self, peer: str, send: Send) -> None:
        """Let a data channel hear everything from now on."""
        self._senders[peer] = send

    def remove_sender(self, peer: str) -> None:
        """Forget a data channel."""
        self._senders.pop(peer, None)

    def event(self, kind: str, **fields: Value) -> Event:
        """An event with its number and session."""
        number = f"e_{next(self._numbers)}"
        return {"type": kind, "event_id": number, "session_id": self._session, **fields}

    def publish(self, kind: str, **fields: Value) -> None:
        """Tell everybody."""
        if not (self._feeds or self._senders):
            return
        event = self.event(kind, **fields)
        text = json.dumps(event)
        for feed in tuple(self._feeds):
            feed.put(text)
        for send in tuple(self._senders.values()):
            send(event)

    def close(self) -> None:
        """Nothing more will be said."""
        for feed in tuple(self._feeds):
            self.close_feed(feed)
        self._senders.clear()
