"""Tracks that hand encoded packets to aiortc's sender, which only wraps them as RTP.

Both tracks of a peer share one `Watching`, which becomes a viewer of the performer when the first
of them is asked for a packet: not before the connection stands, and with one beginning for both.
"""

import asyncio
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError
from av import Packet

from services.encode import (
    PACKET_MS,
    SOUND_RATE,
    VIDEO_RATE,
    Packed,
    opus_duration_ms,
)
from services.encode_share import Kind, MediaShare, Viewer
from services.packet_queue import Due, ViewerGone

_MAX_AHEAD_S = 0.1


class Watching:
    """A peer's one view of a performer, begun by whichever track is asked first."""

    def __init__(
        self, share: Callable[[], MediaShare], kind: Kind, ended: Callable[[], None]
    ) -> None:
        """`share` finds the performer's share when watching begins; `kind` is settled by then.

        `ended` is called when the stream is over and the peer was not closed.
        """
        self._share, self.kind, self._ended = share, kind, ended
        self.viewer: Viewer | None = None
        self._is_closed = False

    def begin(self) -> Viewer:
        """The viewer, made on the first call.

        Raises:
            ViewerGone: the peer was closed.
        """
        if self._is_closed:
            raise ViewerGone
        if self.viewer is None:
            self.viewer = self._share().watch(self.kind)
        return self.viewer

    def epoch_s(self) -> float | None:
        """The wall time of media time zero, once packets flow."""
        return None if self.viewer is None else self.viewer.share.epoch_s

    def gone(self) -> None:
        """A track found that nothing will come."""
        if not self._is_closed:
            self._ended()

    def close(self) -> None:
        """Stop watching for good."""
        self._is_closed = True
        if self.viewer is not None:
            self.viewer.close()


class PacketTrack(MediaStreamTrack):
    """What both tracks have in common."""

    rate: int

    def __init__(self, watching: Watching) -> None:
        """A live track."""
        super().__init__()
        self.watching = watching

    def epoch_s(self) -> float | None:
        """The wall time of pts 0."""
        return self.watching.epoch_s()

    def ask_keyframe(self) -> None:
        """The far end lost a picture."""

    def set_bandwidth(self, bandwidth_bps: int) -> None:
        """The far end says what it can receive."""

    async def recv(self) -> "Packet[Any]":
        """The next packet when it is due.

        Raises:
            MediaStreamError: nothing will come any more.
        """
        if self.readyState != "live":
            raise MediaStreamError
        try:
            due = await self._next(self.watching.begin())
        except ViewerGone:
            self.watching.gone()
            raise MediaStreamError from None
        wait_s = due.at_s - asyncio.get_running_loop().time()
        if wait_s > 0:
            await asyncio.sleep(min(wait_s, _MAX_AHEAD_S))
        return self._checked(due.packed).packet()

    @abstractmethod
    async def _next(self, viewer: Viewer) -> Due:
        """Take the next packet out of this track's queue."""

    def _checked(self, packed: Packed) -> Packed:
        """Refuse what must not be sent."""
        return packed


class PictureTrack(PacketTrack):
    """The picture."""

    kind = "video"
    rate = VIDEO_RATE

    def ask_keyframe(self) -> None:
        """Ask the shared encoder."""
        if self.watching.viewer is not None:
            self.watching.viewer.ask_keyframe()

    def set_bandwidth(self, bandwidth_bps: int) -> None:
        """Note it for the shared encoder."""
        if self.watching.viewer is not None:
            self.watching.viewer.bandwidth_bps = bandwidth_bps

    async def _next(self, viewer: Viewer) -> Due:
        return await viewer.pictures.get()


class SoundTrack(PacketTrack):
    """The sound: packets of exactly 20 ms."""

    kind = "audio"
    rate = SOUND_RATE

    async def _next(self, viewer: Viewer) -> Due:
        return await viewer.sound.get()

    def _checked(self, packed: Packed) -> Packed:
        # Of a longer one half is heard: aiortc sends its parts under one timestamp.
        duration_ms = opus_duration_ms(packed.data)
        if duration_ms != PACKET_MS:
            raise ValueError(f"a sound packet must last {PACKET_MS} ms, not {duration_ms:g}")
        return packed
