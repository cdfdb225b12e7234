"""The studio of a real gateway: performers on the clock, peers over WebRTC."""

import asyncio
import itertools
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from services.beat import Event
from services.beat_queue import BeatQueue
from services.deployment import Deployment
from services.encode_share import Encoders
from services.ledger import LedgerFull, UtteranceOver
from services.live_model import LiveStream
from services.performer import Performer
from services.problem import Problem
from services.studio import BadOffer, Connected, Hooks, Load, Offer, Performing, Played, PushFailed
from services.webrtc import Peer, PeerSettings
from services.webrtc_channel import Message
from services.webrtc_ice import IceSettings, ice_server
from services.webrtc_sdp import SdpError
from services.webrtc_whip import WhipError

Samples = npt.NDArray[np.int16]


class Stage:
    """A performer at work, and what peers and microphones see of it.

    Microphones name their utterances by count, and every peer begins at one: here each gets a name
    that the session has not had.
    """

    def __init__(self, performer: Performer) -> None:
        """The performer is at work; microphones are heard."""
        self.performer, self.fps = performer, performer.fps
        self.sample_rate, self._is_listening = performer.sample_rate, True
        self._mic_names: dict[str, str] = {}
        self._numbers = itertools.count(1)

    def subscribe(self) -> BeatQueue:
        """Beats from the next one on."""
        return self.performer.subscribe()

    def listen(self, is_on: bool) -> None:
        """Hear microphones, or not; what was begun is ended."""
        self._is_listening = is_on
        if not is_on:
            for name in tuple(self._mic_names):
                self.end(name)

    def speak(self, utterance: str, pcm_T: Samples) -> None:
        """Sound of a microphone, where it is heard.

        Raises:
            LedgerFull: too much waits; the microphone leaves the rest of its utterance out.
        """
        if not self._is_listening:
            return
        name = self._mic_names.get(utterance)
        if name is None:
            name = self._mic_names[utterance] = f"{utterance}.{next(self._numbers)}"
        self.performer.speak(name, pcm_T)

    def end(self, utterance: str) -> None:
        """A microphone's utterance is whole."""
        name = self._mic_names.pop(utterance, None)
        if name is not None:
            self.performer.end(name)


class StagePerforming:
    """`Performing` over a stage."""

    def __init__(self, stage: Stage) -> None:
        """Show this stage."""
        self.stage, self._performer = stage, stage.performer

    def speak(self, utterance: str, pcm_T: Samples) -> None:
        """Take the next sound of an utterance.

        Raises:
            Problem: 409 `busy`, 400 `bad_field`.
        """
        try:
            self._performer.speak(utterance, pcm_T)
        except LedgerFull as error:
            raise Problem(409, "busy", str(error), retry_after_s=1) from error
        except UtteranceOver as error:
            raise Problem(400, "bad_field", str(error)) from error

    def end(self, utterance: str) -> None:
        """No more sound of it will come."""
        self._performer.end(utterance)

    def interrupt(self) -> Played:
        """Stop what is said, and say how far it came."""
        position = self._performer.interrupt()
        return Played(utterance=position.utterance, position_ms=position.played_ms)

    def load(self) -> Load:
        """How much is waiting now."""
        performer = self._performer
        return Load(queue_ms=performer.queue_ms, ahead_frames=performer.ahead_frames)

    def listen(self, is_on: bool) -> None:
        """Let microphones drive the face, or not."""
        self.stage.listen(is_on)

    async def close(self) -> None:
        """End the performance and free its stream."""
        await self._performer.close()


class PeerClient:
    """`Connected` over a peer: tells its session when it is connected and when it is gone."""

    def __init__(self, peer: Peer, hooks: Hooks, *, has_channel: bool) -> None:
        """Watch from now on."""
        self._peer, self._hooks, self._has_channel = peer, hooks, has_channel
        self._watch = asyncio.create_task(self._follow(), name="watch a peer")

    def send(self, event: Mapping[str, object]) -> None:
        """Say an event over the data channel, if there is one."""
        if self._has_channel:
            self._peer.send(event)

    async def close(self) -> None:
        """Hang up."""
        if self._watch is not asyncio.current_task():
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await self._peer.close("client")

    async def _follow(self) -> None:
        """Wait for the connection and for its end."""
        connected = asyncio.create_task(self._peer.connected.wait())
        closed = asyncio.create_task(self._peer.closed.wait())
        try:
            await asyncio.wait({connected, closed}, return_when=asyncio.FIRST_COMPLETED)
            if self._peer.connected.is_set() and not self._peer.closed.is_set():
                self._hooks.on_connected()
            await closed
        finally:
            connected.cancel()
            closed.cancel()
        self._hooks.on_gone()


class LiveStudio:
    """A `Studio` of performers and WebRTC peers."""

    def __init__(self, deployment: Deployment, *, chunk_frames: int) -> None:
        """For a model that makes `chunk_frames` at once."""
        self._deployment, self._chunk_frames = deployment, chunk_frames
        self._encoders = Encoders()
        self._mics = itertools.count(1)

    def perform(self, stream: LiveStream, on_event: Callable[[Event], None]) -> Performing:
        """A performer of the stream, at work at once."""
        performer = Performer(
            stream,
            chunk_frames=self._chunk_frames,
            max_ahead_s=self._deployment.limits.max_queued_s,
            on_event=on_event,
        )
        performer.start()
        return StagePerforming(Stage(performer))

    async def answer(
        self, performing: Performing, offer: Offer, hooks: Hooks
    ) -> tuple[Connected, str]:
        """A peer and its SDP answer.

        Raises:
            BadOffer: the offer cannot be answered.
        """
        peer = self._peer(offer, hooks.on_message)
        try:
            sdp = await peer.answer(offer.sdp, _stage(performing), wants=offer.wants)
        except SdpError as error:
            raise BadOffer(str(error)) from error
        return PeerClient(peer, hooks, has_channel=offer.wants == "sendrecv"), sdp

    async def push(
        self, performing: Performing, url: str, bearer: str, offer: Offer, hooks: Hooks
    ) -> Connected:
        """A peer that sends to a WHIP server.

        Raises:
            PushFailed: the server did not take it.
        """
        peer = self._peer(offer, hooks.on_message)
        try:
            await peer.push(url, bearer or None, _stage(performing))
        except (WhipError, SdpError) as error:
            raise PushFailed(str(error)) from error
        return PeerClient(peer, hooks, has_channel=False)

    async def close(self) -> None:
        """End the encoders."""
        await self._encoders.close()

    def _peer(self, offer: Offer, on_message: Callable[[Message], None]) -> Peer:
        """A peer with the deployment's ICE."""
        ice = self._deployment.ice
        settings = PeerSettings(
            ice=IceSettings(
                udp_ports=ice.udp_ports,
                addresses=ice.addresses,
                servers=tuple(
                    ice_server(s["urls"], s.get("username", ""), s.get("credential", ""))
                    for s in offer.ice_servers
                ),
            ),
            codec=offer.codec,
            mic_prefix=f"mic{next(self._mics)}",
        )
        return Peer(self._encoders, settings, on_message)


def _stage(performing: Performing) -> Stage:
    """The stage behind a performing that this studio made."""
    if not isinstance(performing, StagePerforming):
        raise TypeError("this studio did not make that performer")
    return performing.stage
