"""One socket read by several threads: whoever waits reads for all who do."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from pipeline.byte_stream import ByteStream
from pipeline.channel import LinkIdle

TakenT = TypeVar("TakenT")


class FrameReader:
    """Waits for things that come as frames on a stream; there is no thread behind it."""

    def __init__(self, stream: ByteStream) -> None:
        """Read from this stream; only what waits here may read it."""
        self._stream = stream
        self._changed = threading.Condition()
        self._is_reading = False

    def wait_for(
        self, take_frame: Callable[[], None], taken: Callable[[], TakenT | None], timeout_s: float
    ) -> TakenT:
        """Read until `taken` gives something; it is called after every frame, one at a time.

        `take_frame` reads a frame and notes what it says; it never runs twice at a time.

        Raises:
            LinkIdle: it did not by then.
            OSError, ValueError, RuntimeError: a frame could not be read.
        """
        until_s = time.monotonic() + timeout_s
        has_looked = False
        with self._changed:
            while True:
                if (found := taken()) is not None:
                    return found
                left_s = until_s - time.monotonic()
                if left_s <= 0 and has_looked:
                    raise LinkIdle("no message yet")
                has_looked = True
                if self._is_reading:
                    self._changed.wait(max(0.0, left_s))
                else:
                    self._read(take_frame, max(0.0, left_s))

    def _read(self, take_frame: Callable[[], None], timeout_s: float) -> None:
        """Read one frame if one comes, with the others free to wait meanwhile."""
        self._is_reading = True
        self._changed.release()
        try:
            if self._stream.await_bytes(timeout_s):
                take_frame()
        finally:
            self._changed.acquire()
            self._is_reading = False
            self._changed.notify_all()
