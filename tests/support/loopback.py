"""A viewer in the same process: receives as aiortc does, and times what came as a browser does.

aiortc throws the timestamps' origin away, so it is read off the packets, and sender reports are
noted: `media_s` of a frame is the wall time that the sender says it belongs to.
"""

import asyncio
import contextlib
import itertools
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError
from aiortc.rtp import RtcpSrPacket, RtpPacket

from services.webrtc_end import hang_up

U32 = 1 << 32


@dataclass
class Received:
    """One track: what came, when, and what reports said of its clock."""

    rate: int
    frames: list[tuple[int, float, npt.NDArray[Any]]] = field(default_factory=list)
    packets: list[tuple[int, float, int]] = field(default_factory=list)  # rtp, arrival, bytes
    reports: list[tuple[float, int]] = field(default_factory=list)  # ntp s, rtp
    origin: int | None = None

    def media_s(self, pts: int) -> float:
        """The wall time that the latest report gives a frame."""
        assert self.origin is not None
        ntp_s, rtp = self.reports[-1]
        ticks = (self.origin + pts - rtp) % U32
        return ntp_s + (ticks - U32 if ticks >= U32 // 2 else ticks) / self.rate


class Loopback:
    """Offers, plays, and keeps what it received."""

    def __init__(
        self, *, audio: str = "recvonly", track: MediaStreamTrack | None = None, events: bool = True
    ) -> None:
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.video, self.audio = Received(90000), Received(48000)
        self.messages: list[str] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.peer.addTransceiver("video", direction="recvonly")
        self.peer.addTransceiver(track or "audio", direction=audio)
        self.channel = self.peer.createDataChannel("events") if events else None
        if self.channel is not None:
            self.channel.on("message", self.messages.append)
        self.peer.on("track", self._play)

    async def offer(self) -> str:
        await self.peer.setLocalDescription(await self.peer.createOffer())
        return str(self.peer.localDescription.sdp)

    async def take(self, answer_sdp: str) -> None:
        for transceiver in self.peer.getTransceivers():
            received = self.video if transceiver.kind == "video" else self.audio
            _note_packets(transceiver.receiver, received)
        await self.peer.setRemoteDescription(RTCSessionDescription(sdp=answer_sdp, type="answer"))

    async def wait(self, seconds: float) -> None:
        """Play until both tracks have so much, or fail after three times as long."""
        async with asyncio.timeout(10 + 3 * seconds):
            while not self._has_played(seconds):  # noqa: ASYNC110 # three lists, no event
                await asyncio.sleep(0.05)

    def _has_played(self, seconds: float) -> bool:
        return (
            len(self.video.frames) >= seconds * 20
            and len(self.audio.packets) >= seconds * 48
            and bool(self.video.reports and self.audio.reports)
        )

    async def close(self) -> None:
        await hang_up(self.peer)
        for task in self._tasks:
            task.cancel()  # of a track that never began nothing ends
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _play(self, track: MediaStreamTrack) -> None:
        self._tasks.append(asyncio.create_task(self._read(track)))

    async def _read(self, track: MediaStreamTrack) -> None:
        received = self.video if track.kind == "video" else self.audio
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = cast(Any, await track.recv())
                now_s = asyncio.get_running_loop().time()
                if track.kind == "video":
                    values = frame.to_ndarray(format="gray")
                else:
                    values = frame.to_ndarray().reshape(-1, 2)[:, 0]
                received.frames.append((frame.pts, now_s, values))


def _note_packets(receiver: RTCRtpReceiver, received: Received) -> None:
    """Look at what the receiver gets before it forgets it."""
    on_rtp, on_rtcp = receiver._handle_rtp_packet, receiver._handle_rtcp_packet
    arrived = asyncio.get_running_loop().time

    async def rtp(packet: RtpPacket, arrival_time_ms: int) -> None:
        if received.origin is None:
            received.origin = packet.timestamp
        received.packets.append((packet.timestamp, arrived(), len(packet.payload)))
        await on_rtp(packet, arrival_time_ms)

    async def rtcp(packet: Any) -> None:
        if isinstance(packet, RtcpSrPacket):
            info = packet.sender_info
            received.reports.append((info.ntp_timestamp / U32, info.rtp_timestamp))
        await on_rtcp(packet)

    receiver.__dict__.update(_handle_rtp_packet=rtp, _handle_rtcp_packet=rtcp)


def flash_times(received: Received) -> list[float]:
    """When the picture turns white, in the sender's wall time."""
    # A strip below the middle: no bar code and no mouth is drawn there.
    lit = [
        (pts, np.mean(values[len(values) // 2 : len(values) * 9 // 16]) > 140)
        for pts, _, values in received.frames
    ]
    return [
        received.media_s(pts)
        for (_, before), (pts, after) in itertools.pairwise(lit)
        if after and not before
    ]


def beep_times(received: Received, level: float = 10000.0) -> list[float]:
    """When the sound becomes loud, in the sender's wall time, to the sample."""
    found: list[float] = []
    quiet_until = -1.0
    for pts, _, values in received.frames:
        for at in np.flatnonzero(np.abs(values) > level):
            when = received.media_s(pts) + float(at) / received.rate
            if when > quiet_until:
                found.append(when)
            quiet_until = when + 0.1
    return found


def offsets_s(received_video: Received, received_audio: Received) -> list[float]:
    """Beep minus nearest flash for every beep, in seconds; negative = sound first."""
    flashes = flash_times(received_video)
    beeps = beep_times(received_audio)
    inner = [b for b in beeps if flashes and flashes[0] - 0.3 < b < flashes[-1] + 0.3]
    return [min((beep - flash for flash in flashes), key=abs) for beep in inner]


def tone_hz(received: Received) -> float:
    """The strongest tone of the last second."""
    sound = np.concatenate([values for _, _, values in received.frames])[-48000:].astype(float)
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    return float(spectrum.argmax()) * received.rate / len(sound)
