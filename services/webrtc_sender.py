"""What aiortc's sender lacks for packets that are encoded already: keyframes, bandwidth, the clock.

aiortc 1.16 sets a flag at PLI and FIR that only its own encoders read, gives REMB only to them, and
pairs in its sender reports the last RTP timestamp with the time of *sending*, so that a picture
that left late looks right to the receiver. `MediaSender` hands the first two to our encoder, and
reports the wall time of the *medium*: both tracks count from one epoch. A sender that exists
becomes one by `adopt`, since RTCPeerConnection makes its senders itself.
"""

from collections.abc import Callable
from typing import cast

from aiortc import RTCRtpSender
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtcrtpsender import RTCEncodedFrame
from aiortc.rtp import (
    RTCP_PSFB_APP,
    AnyRtcpPacket,
    RtcpPsfbPacket,
    RtcpSrPacket,
    unpack_remb_fci,
)

from services.webrtc_tracks import PacketTrack

_UNIX_TO_NTP_S = 2_208_988_800
_U32 = 0xFFFFFFFF
# What this reads and writes of RTCRtpSender's own: checked by `adopt`.
_RTP_TIMESTAMP = "_RTCRtpSender__rtp_timestamp"
_LAST_REPORT = "_RTCRtpSender__lsr"


def ntp_from_unix(seconds: float) -> int:
    """Unix seconds as the 64 bits of a sender report."""
    whole = int(seconds)
    return (whole + _UNIX_TO_NTP_S) << 32 | int((seconds - whole) * (1 << 32)) & _U32


def signed_u32(value: int) -> int:
    """A difference of 32-bit counters as the near number it stands for."""
    value &= _U32
    return value - (1 << 32) if value >> 31 else value


class MediaClock:
    """Where an RTP timestamp lies in time: `origin` is learnt from what was sent."""

    def __init__(self, rate: int, epoch_s: Callable[[], float | None]) -> None:
        """`epoch_s` gives the wall time of media time zero, once it is known."""
        self.rate, self._epoch_s = rate, epoch_s
        self.last_pts: int | None = None
        self.origin: int | None = None

    def sent(self, rtp_timestamp: int) -> None:
        """Take the timestamp under which `last_pts` went out."""
        if self.origin is None and self.last_pts is not None:
            self.origin = (rtp_timestamp - self.last_pts) & _U32

    def ntp(self, rtp_timestamp: int) -> int | None:
        """Wall time, in NTP form, of a timestamp near the last one; None before it is known."""
        epoch_s = self._epoch_s()
        if self.origin is None or self.last_pts is None or epoch_s is None:
            return None
        pts = self.last_pts + signed_u32(rtp_timestamp - self.origin - self.last_pts)
        return ntp_from_unix(epoch_s + pts / self.rate)


class MediaSender(RTCRtpSender):
    """A sender of a `PacketTrack`; see the module's text."""

    media_clock: MediaClock

    @classmethod
    def adopt(cls, sender: RTCRtpSender) -> "MediaSender":
        """Make an aiortc sender one of these.

        Raises:
            RuntimeError: this aiortc keeps its state elsewhere.
        """
        missing = [name for name in (_RTP_TIMESTAMP, _LAST_REPORT) if not hasattr(sender, name)]
        if missing:
            raise RuntimeError(f"this aiortc has no {missing[0]}: install 1.15 or 1.16")
        sender.__class__ = cls
        media_sender = cast(MediaSender, sender)
        track = media_sender.packet_track
        media_sender.media_clock = MediaClock(track.rate, track.epoch_s)
        return media_sender

    @property
    def packet_track(self) -> PacketTrack:
        """The track that is sent."""
        return cast(PacketTrack, self.track)

    async def _next_encoded_frame(self, codec: RTCRtpCodecParameters) -> RTCEncodedFrame | None:
        """Learn where timestamps begin, and what goes out last."""
        # Whoever asks for a packet has sent the one before.
        self.media_clock.sent(getattr(self, _RTP_TIMESTAMP))
        frame = await super()._next_encoded_frame(codec)
        if frame is not None:
            self.media_clock.last_pts = frame.timestamp
        return frame

    def _send_keyframe(self) -> None:
        """PLI or FIR came."""
        self.packet_track.ask_keyframe()

    async def _handle_rtcp_packet(self, packet: AnyRtcpPacket) -> None:
        """Note the bandwidth that the receiver estimates, and go on as usual."""
        if isinstance(packet, RtcpPsfbPacket) and packet.fmt == RTCP_PSFB_APP:
            self._note_bandwidth(packet)
        await super()._handle_rtcp_packet(packet)

    def _note_bandwidth(self, packet: RtcpPsfbPacket) -> None:
        """Read REMB; what is none is left alone."""
        try:
            bandwidth_bps, ssrcs = unpack_remb_fci(packet.fci)
        except (ValueError, IndexError):
            return
        if self._ssrc in ssrcs:
            self.packet_track.set_bandwidth(bandwidth_bps)

    async def _send_rtcp(self, packets: list[AnyRtcpPacket]) -> None:
        """Put sender reports on the media clock; leave them out while nothing was sent."""
        for packet in packets:
            if not isinstance(packet, RtcpSrPacket):
                continue
            ntp = self.media_clock.ntp(packet.sender_info.rtp_timestamp)
            if ntp is None:
                return
            packet.sender_info.ntp_timestamp = ntp
            # Receivers answer with these bits, by which the round trip is measured.
            setattr(self, _LAST_REPORT, ntp >> 16 & _U32)
        await super()._send_rtcp(packets)
