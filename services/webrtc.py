"""One visitor's WebRTC connection: the performer's picture and sound out, a microphone in.

`Peer.answer` serves a browser or a WHEP player, `Peer.push` sends to a WHIP server. Both tracks
carry packets of the performer's one encode (`services.encode_share`), from one epoch, at one pace;
events go both ways over the data channel. A peer that is closed, by either side, leaves nothing.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from aiortc import (
    MediaStreamTrack,
    RTCDataChannel,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpTransceiver,
    RTCSessionDescription,
)

from services.encode import VideoCodec
from services.encode_share import Encoders, Kind, MediaShare, Source
from services.mic import Listener, Microphone, MicSettings, Mirror
from services.studio import Wants
from services.webrtc_channel import EVENTS_LABEL, EventChannel, Message, MessageError
from services.webrtc_end import hang_up
from services.webrtc_ice import IceSettings, connection, settle
from services.webrtc_mic import drain, mirror
from services.webrtc_sdp import (
    Wishes,
    in_one_line,
    opus_only,
    preferred_codecs,
    read_sdp,
)
from services.webrtc_sender import MediaSender
from services.webrtc_tracks import PacketTrack, PictureTrack, SoundTrack, Watching
from services.webrtc_whip import WhipResource, whip_post


class Performs(Source, Listener, Protocol):
    """What a peer needs of a performer: beats, and somebody to say what the microphone hears."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerSettings:
    """How a peer connects and what it prefers.

    `connect_s` is how long the connection may take before the peer gives up. Utterances of the
    microphone are named `<mic_prefix>-1`, ...: give peers of one performer prefixes of their own.
    """

    ice: IceSettings = field(default_factory=IceSettings)
    codec: VideoCodec = "VP8"
    max_side_px: int | None = None
    mic: MicSettings = field(default_factory=MicSettings)
    mic_prefix: str = "mic"
    connect_s: float = 30.0


def _refuse(message: Message) -> None:
    """Nobody listens to this peer's messages."""
    raise MessageError(f"message {message['type'][:40]!r} is not known here")


class Peer:
    """One connection; use it once. All of it lives on one event loop."""

    def __init__(
        self,
        encoders: Encoders,
        settings: PeerSettings | None = None,
        on_message: Callable[[Message], None] = _refuse,
    ) -> None:
        """Prepare; `on_message` gets the data channel's messages and may raise MessageError."""
        self.settings = settings or PeerSettings()
        self.connected, self.closed = asyncio.Event(), asyncio.Event()
        self.close_reason: str | None = None
        self._encoders = encoders
        self._events = EventChannel(on_message, asyncio.get_running_loop().time)
        self._connection: RTCPeerConnection | None = None
        self._watching: Watching | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._resource: WhipResource | None = None

    @property
    def state(self) -> str:
        """aiortc's connection state: new, connecting, connected, failed, closed."""
        return "new" if self._connection is None else self._connection.connectionState

    @property
    def share(self) -> MediaShare | None:
        """The encode that this peer watches, once packets flow."""
        viewer = self._watching and self._watching.viewer
        return viewer.share if viewer else None

    async def answer(
        self,
        offer_sdp: str,
        performer: Performs,
        *,
        ice_servers: tuple[RTCIceServer, ...] | None = None,
        wants: Wants = "sendrecv",
    ) -> str:
        """Answer an offer with the performer's picture and sound.

        `wants` "recvonly" leaves the visitor's microphone unheard (WHEP), "sendonly" hears it and
        sends nothing back (WHIP).

        Raises:
            SdpError: the offer cannot be used; the peer is closed.
        """
        try:
            wishes = read_sdp(offer_sdp, "offer", is_mic=wants == "sendonly")
            self._open(ice_servers)
            return await self._answer(offer_sdp, performer, wishes, wants)
        except BaseException:
            await self.close("client")
            raise

    async def push(
        self, whip_url: str, bearer: str | None, performer: Performs, *, timeout_s: float = 15.0
    ) -> None:
        """Send the performer's picture and sound to a WHIP server (RFC 9725).

        Raises:
            WhipError: the server refused or could not be reached; the peer is closed.
            SdpError: its answer cannot be used; the peer is closed.
        """
        try:
            peer = self._open(None)
            self._offer_media(peer, performer)
            await peer.setLocalDescription(await peer.createOffer())
            offer = peer.localDescription.sdp
            self._resource, answer_sdp = await whip_post(whip_url, bearer, offer, timeout_s)
            read_sdp(answer_sdp, "answer")
            await self._take(peer, RTCSessionDescription(sdp=answer_sdp, type="answer"))
        except BaseException:
            await self.close("client")
            raise

    def send(self, event: Mapping[str, object]) -> bool:
        """Send an event over the data channel; False where it was dropped."""
        return self._events.send(event)

    async def stats(self) -> dict[str, dict[str, object]]:
        """What was sent and what the far end reported, by `audio` and `video`."""
        if self._connection is None:
            return {}
        found: dict[str, dict[str, object]] = {}
        for sender in self._connection.getSenders():
            figures = found.setdefault(sender.kind, {})
            for one in (await sender.getStats()).values():
                if one.type == "outbound-rtp":
                    figures |= {"packets_sent": one.packetsSent, "bytes_sent": one.bytesSent}
                elif one.type == "remote-inbound-rtp":
                    figures |= {
                        "packets_lost": one.packetsLost,
                        "fraction_lost": one.fractionLost / 256,
                        "round_trip_s": one.roundTripTime,
                    }
        return found

    async def close(self, reason: str = "client") -> None:
        """End the connection; every call returns when all of it is gone."""
        if self.close_reason is not None:
            await self.closed.wait()
            return
        self.close_reason = reason
        try:
            await self._end()
        finally:
            self.closed.set()

    async def _end(self) -> None:
        """Take everything down."""
        if self._watching is not None:
            self._watching.close()
        if self._resource is not None:
            await self._resource.delete()
        if self._connection is not None:
            await hang_up(self._connection)
        others = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _open(self, ice_servers: tuple[RTCIceServer, ...] | None) -> RTCPeerConnection:
        """The connection, with its events wired."""
        ice = self.settings.ice
        if ice_servers is not None:
            ice = replace(ice, servers=ice_servers)
        self.settings = replace(self.settings, ice=ice)
        peer = self._connection = connection(ice)
        peer.on("connectionstatechange", self._state_changed)
        peer.on("datachannel", self._channel_came)
        self._keep(self._give_up())
        return peer

    async def _answer(
        self, offer_sdp: str, performer: Performs, wishes: Wishes, wants: Wants
    ) -> str:
        """Exchange descriptions."""
        peer = self._connection
        assert peer is not None  # noqa: S101 # opened by the caller
        hears = wishes.microphone and wants != "recvonly"
        if wants == "sendonly":
            peer.addTransceiver("audio", direction="recvonly").setCodecPreferences(opus_only())
        else:
            self._send_back(peer, performer, wishes, hears=hears)
        mic = self._mirror(performer) if hears else None
        peer.on("track", lambda track: self._track_came(track, mic))
        await self._take(peer, RTCSessionDescription(sdp=offer_sdp, type="offer"))
        for transceiver in peer.getTransceivers():
            # aiortc makes its own for what the far end only sends.
            if transceiver.sender.track is None and not (hears and transceiver.kind == "audio"):
                transceiver.direction = "inactive"
        settle(peer, self.settings.ice)
        try:
            await peer.setLocalDescription(await peer.createAnswer())
        except Exception as error:  # noqa: BLE001 # what it chokes on came with the offer
            raise in_one_line("offer", error) from None
        return str(peer.localDescription.sdp)

    def _send_back(
        self, peer: RTCPeerConnection, performer: Performs, wishes: Wishes, *, hears: bool
    ) -> None:
        """Send what the offer wants to receive."""
        self._watching = self._watch(performer)
        if wishes.picture:
            self._add(peer, PictureTrack(self._watching), "sendonly")
        if wishes.sound:
            self._add(peer, SoundTrack(self._watching), "sendrecv" if hears else "sendonly")

    def _mirror(self, performer: Performs) -> Mirror:
        """The visitor's microphone, said by the performer."""
        settings = self.settings
        ear = Microphone(performer.sample_rate, prefix=settings.mic_prefix, settings=settings.mic)
        return Mirror(performer, ear)

    def _offer_media(self, peer: RTCPeerConnection, performer: Performs) -> None:
        """Offer both tracks, and nothing to receive."""
        self._watching = self._watch(performer)
        self._add(peer, SoundTrack(self._watching), "sendonly")
        self._add(peer, PictureTrack(self._watching), "sendonly")
        settle(peer, self.settings.ice)

    def _watch(self, performer: Performs) -> Watching:
        """A view of the performer that begins with the first packet asked for."""
        kind = Kind(None, self.settings.max_side_px)
        return Watching(lambda: self._encoders.share(performer), kind, self._stream_ended)

    def _stream_ended(self) -> None:
        """There is nothing to watch any more."""
        self._keep(self.close("worker_lost"))

    def _add(self, peer: RTCPeerConnection, track: PacketTrack, direction: str) -> None:
        """Send a track, with our codecs; they count only if they are set before the far side's."""
        transceiver = peer.addTransceiver(track, direction=direction)
        is_picture = track.kind == "video"
        transceiver.setCodecPreferences(
            preferred_codecs(self.settings.codec) if is_picture else opus_only()
        )
        MediaSender.adopt(transceiver.sender)

    async def _take(self, peer: RTCPeerConnection, description: RTCSessionDescription) -> None:
        """Set the far side's description and learn the codec that came of it.

        Raises:
            SdpError: aiortc does not take it.
        """
        try:
            await peer.setRemoteDescription(description)
        except Exception as error:  # noqa: BLE001 # aiortc raises what it meets
            raise in_one_line(description.type, error) from None
        if self._watching is not None:
            self._watching.kind = Kind(negotiated(peer), self.settings.max_side_px)

    def _state_changed(self) -> None:
        """Follow the connection: once it failed or ended, so has the peer."""
        if self.state == "connected":
            self.connected.set()
        elif self.state in ("failed", "closed"):
            self._keep(self.close("client"))

    def _channel_came(self, channel: RTCDataChannel) -> None:
        """The far end opened a data channel: `events` is used, others are closed."""
        if channel.label == EVENTS_LABEL:
            self._events.attach(channel)
        else:
            channel.close()

    def _track_came(self, track: MediaStreamTrack, mic: Mirror | None) -> None:
        """The far end sends: always read it, or it fills the memory."""
        heard = mic is not None and track.kind == "audio"
        self._keep(mirror(track, mic) if heard and mic else drain(track))

    async def _give_up(self) -> None:
        """Close a peer that never connects."""
        try:
            await asyncio.wait_for(self.connected.wait(), self.settings.connect_s)
        except TimeoutError:
            await self.close("client")

    def _keep(self, work: "asyncio._CoroutineLike[None]") -> None:
        """Run something that ends with the peer."""
        task = asyncio.get_running_loop().create_task(work, name="viva peer")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def negotiated(peer: RTCPeerConnection) -> VideoCodec | None:
    """The video codec that both sides agreed on; None without video."""
    for transceiver in peer.getTransceivers():
        if transceiver.kind == "video" and _codec_names(transceiver):
            return "H264" if _codec_names(transceiver)[0].lower() == "h264" else "VP8"
    return None


def _codec_names(transceiver: RTCRtpTransceiver) -> list[str]:
    """The names of agreed codecs, best first."""
    return [codec.name for codec in transceiver._codecs]
