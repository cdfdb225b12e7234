"""The data channel `events`: JSON objects both ways, with limits on what a stranger may send."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from aiortc import RTCDataChannel

EVENTS_LABEL = "events"
MAX_MESSAGE_BYTES = 16 * 1024
MAX_WAITING_BYTES = 1024 * 1024
_MESSAGES_PER_S, _BURST = 50.0, 100.0

Message = dict[str, Any]


class MessageError(ValueError):
    """A message that is not understood: one line for its sender."""


def parse_message(data: str | bytes) -> Message:
    """A JSON object with a `type`.

    Raises:
        MessageError: it is too large or something else.
    """
    size = len(data.encode("utf-8", "replace") if isinstance(data, str) else data)
    if size > MAX_MESSAGE_BYTES:
        raise MessageError(f"a message has at most {MAX_MESSAGE_BYTES} bytes, this one {size}")
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        raise MessageError("a message must be JSON") from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise MessageError("a message must be a JSON object with a string `type`")
    return message


class MessageRate:
    """A bucket of 100 messages that fills by 50 a second; time is passed in."""

    def __init__(self) -> None:
        """Full."""
        self._left, self._at_s = _BURST, 0.0

    def allows(self, now_s: float) -> bool:
        """Take one message out of the bucket, if there is one."""
        self._left = min(_BURST, self._left + max(0.0, now_s - self._at_s) * _MESSAGES_PER_S)
        self._at_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True


class EventChannel:
    """One end of the channel; messages sent before it opens wait, up to a limit."""

    def __init__(self, on_message: Callable[[Message], None], now_s: Callable[[], float]) -> None:
        """`on_message` gets what the far end sends; its MessageError goes back as an event."""
        self._on_message, self._now_s = on_message, now_s
        self._rate = MessageRate()
        self._channel: RTCDataChannel | None = None
        self._waiting: list[str] = []
        self._waiting_bytes = 0
        self.num_dropped = self.num_refused = 0

    def attach(self, channel: RTCDataChannel) -> None:
        """Use a channel that exists; the latest one counts."""
        self._channel = channel
        channel.on("message", self._receive)
        channel.on("open", self._flush)
        if channel.readyState == "open":
            self._flush()

    def send(self, message: Mapping[str, object]) -> bool:
        """Send an event; False where it was dropped, for a far end that does not read."""
        text = json.dumps(message, separators=(",", ":"), ensure_ascii=False)
        channel = self._channel
        if channel is None or channel.readyState == "connecting":
            return self._wait(text)
        if channel.readyState != "open" or channel.bufferedAmount > MAX_WAITING_BYTES:
            self.num_dropped += 1
            return False
        channel.send(text)
        return True

    def _wait(self, text: str) -> bool:
        """Keep a message until there is a channel."""
        size = len(text.encode())
        if self._waiting_bytes + size > MAX_WAITING_BYTES:
            self.num_dropped += 1
            return False
        self._waiting_bytes += size
        self._waiting.append(text)
        return True

    def _flush(self) -> None:
        """Send what waited."""
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        if self._channel is not None:
            for text in waiting:
                self._channel.send(text)

    def _receive(self, data: str | bytes) -> None:
        """Judge a message of the far end; what comes too fast gets no answer either."""
        if not self._rate.allows(self._now_s()):
            self.num_refused += 1
            return
        try:
            self._on_message(parse_message(data))
        except MessageError as error:
            self.send({"type": "error", "detail": str(error)})
