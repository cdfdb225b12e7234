"""Frames on their way to a socket: sent by a thread of their own, bounded in bytes."""

import contextlib
import socket
import threading
import time
from collections import deque

# A second of 512x512 pictures of one session; credit keeps a gateway that reads far below it.
MAX_BYTES = 32 << 20
MAX_WAIT_S = 10.0


class Outbox:
    """Whoever makes slices waits here for a gateway that is slow to read them.

    A gateway that reads nothing for `MAX_WAIT_S` is taken for dead: the socket is shut down, which
    its reader sees, and whatever is put afterwards is dropped.
    """

    def __init__(
        self, sock: socket.socket, *, max_bytes: int = MAX_BYTES, max_wait_s: float = MAX_WAIT_S
    ) -> None:
        """Start sending to a connected, blocking socket, which stays its owner's to close."""
        self._socket, self._max_bytes, self._max_wait_s = sock, max_bytes, max_wait_s
        self._frames: deque[bytes] = deque()
        self._num_bytes = 0
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._send_all, name="outbox", daemon=True)
        self._thread.start()

    @property
    def num_bytes(self) -> int:
        """Bytes that wait."""
        return self._num_bytes

    def put(self, frame: bytes, *, wait: bool = True) -> None:
        """Send the frame after those before it; wait for room first, unless told not to.

        One frame always finds room in an empty outbox, whatever its size.
        """
        until_s = time.monotonic() + self._max_wait_s
        with self._changed:
            while wait and not self._has_room(len(frame)) and not self._is_closed:
                if not self._changed.wait(until_s - time.monotonic()):
                    self._hang_up()
            if not self._is_closed:
                self._frames.append(frame)
                self._num_bytes += len(frame)
                self._changed.notify_all()

    def close(self) -> None:
        """Drop what waits, shut the socket down and end the thread."""
        with self._changed:
            self._hang_up()
        self._thread.join()

    def _has_room(self, num_bytes: int) -> bool:
        return not self._frames or self._num_bytes + num_bytes <= self._max_bytes

    def _hang_up(self) -> None:
        """Shut down; the lock is held."""
        self._is_closed = True
        self._frames.clear()
        self._num_bytes = 0
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._changed.notify_all()

    def _send_all(self) -> None:
        """Send one frame after the other until the socket ends."""
        while (frame := self._next()) is not None:
            try:
                self._socket.sendall(frame)
            except OSError:
                with self._changed:
                    self._hang_up()
                return

    def _next(self) -> bytes | None:
        """Wait for a frame; None: there will be no more."""
        with self._changed:
            while not self._frames and not self._is_closed:
                self._changed.wait()
            if self._is_closed:
                return None
            frame = self._frames.popleft()
            self._num_bytes -= len(frame)
            self._changed.notify_all()
            return frame
