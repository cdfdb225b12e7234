"""Large tensors between two processes of a machine by memory that both see; sockets carry the rest.

A socket within a machine copies a megabyte into the kernel's pages and out again, in turns. A lane
is a ring of anonymous memory: the sender copies bytes into it and tells the place by the socket,
the receiver copies them out and counts up how far it has read. What finds no room goes by the
socket as ever, so a lane never waits. It belongs to one connection and one direction and is gone,
without a file, when both processes have let it go.
"""

import contextlib
import mmap
import os
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.message import Part

# Smaller tensors take less time by the socket than a second wake-up of the cache costs.
SHARED_BYTES = 1 << 17
# Room for some chunks of latents; only what is used takes memory.
LANE_BYTES = 1 << 23
# How far the receiver has read lies in front of the ring, in a cache line of its own.
_FRONT_BYTES = 64
_READ_TO = struct.Struct("=Q")


class SharedLane:
    """A mapped lane; one side puts, the other takes, both in the order of the socket."""

    def __init__(self, fd: int) -> None:
        """Map the memory behind a descriptor, which stays the caller's.

        Raises:
            OSError: it is no memory that keeps its size, or it is too small.
        """
        _require_sealed(fd)
        size = os.fstat(fd).st_size
        if size <= _FRONT_BYTES:
            raise OSError(f"a lane of {size} bytes holds nothing")
        self._memory = memoryview(mmap.mmap(fd, size))
        self._ring = self._memory[_FRONT_BYTES:]
        self._put_to = 0

    def put(self, part: "Part") -> int | None:
        """Copy bytes in and return their place, counted from the lane's beginning; None if full."""
        size, room = len(part), len(self._ring)
        place = self._put_to
        if place % room + size > room:  # bytes lie in one piece: the ring's end stays unused
            place += room - place % room
        (read_to,) = _READ_TO.unpack_from(self._memory)
        if place + size - read_to > room:
            return None
        self._ring[place % room : place % room + size] = part
        self._put_to = place + size
        return place

    def take(self, place: int, into: memoryview) -> None:
        """Copy the bytes at a place out and give their room back.

        Raises:
            ValueError: no such bytes can lie there.
        """
        start = place % len(self._ring)
        if start + len(into) > len(self._ring):
            raise ValueError(f"{len(into)} bytes at {place} do not lie in a lane in one piece")
        into[:] = self._ring[start : start + len(into)]
        _READ_TO.pack_into(self._memory, 0, place + len(into))


def lane_memory(size: int = LANE_BYTES) -> int | None:
    """A descriptor of fresh memory for a lane, None where the system has no such memory."""
    if not hasattr(os, "memfd_create"):
        return None
    import fcntl

    fd = os.memfd_create("viva-lane", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, _FRONT_BYTES + size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    except OSError:
        with contextlib.suppress(OSError):
            os.close(fd)
        return None
    return fd


def _require_sealed(fd: int) -> None:
    """Refuse memory that its maker could take away while it is read."""
    import fcntl

    if not fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
        raise OSError("a lane's memory must be sealed against shrinking")
