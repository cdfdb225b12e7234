"""A gateway with a fake model, spoken to over real HTTP on a port of its own."""

import asyncio
import io
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaBlackhole
from PIL import Image

from pipeline.cast import read_cast
from pipeline.catalog import model_path
from services.auth import ApiKeys
from services.beat import Event
from services.deployment import Deployment, parse_deployment
from services.gateway import PARTS, Backing, build_gateway
from services.live_model import LiveStream
from services.live_sessions import LiveSessions
from services.live_studio import LiveStudio
from services.studio import BadOffer, Connected, Hooks, Load, Offer, Performing, Played, PushFailed
from services.tts import TtsError
from tests.support.fake_model import FakeModel, FakeSettings

KEY = "a-key-for-tests-0123456789"
OTHER_KEY = "another-key-for-tests-0123"
SECRET = b"s" * 32
SDP_TYPE = {"Content-Type": "application/sdp"}

Client = TestClient[web.Request, web.Application]


class Hand:
    """A clock that is moved by hand, in seconds."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class QuietPerforming:
    """A performing that notes what it is told."""

    def __init__(self, stream: LiveStream, on_event: Callable[[Event], None]) -> None:
        self.stream, self.on_event = stream, on_event
        self.said: dict[str, int] = {}
        self.ended: list[str] = []
        self.queue_ms = 0.0
        self.is_listening, self.is_closed = True, False

    def speak(self, utterance: str, pcm_T: np.ndarray) -> None:
        self.said[utterance] = self.said.get(utterance, 0) + len(pcm_T)

    def end(self, utterance: str) -> None:
        self.ended.append(utterance)

    def interrupt(self) -> Played:
        last = list(self.said)[-1] if self.said else None
        return Played(utterance=last, position_ms=40.0 if last else 0.0)

    def load(self) -> Load:
        return Load(queue_ms=self.queue_ms, ahead_frames=3)

    def listen(self, is_on: bool) -> None:
        self.is_listening = is_on

    async def close(self) -> None:
        self.is_closed = True
        await self.stream.close()


class QuietPeer:
    """A peer without a network."""

    def __init__(self, hooks: Hooks) -> None:
        self.hooks = hooks
        self.heard: list[Mapping[str, object]] = []
        self.is_closed = False

    def send(self, event: Mapping[str, object]) -> None:
        self.heard.append(event)

    async def close(self) -> None:
        self.is_closed = True


class QuietStudio:
    """A studio for tests of everything but media; an offer is good if it begins with v=0."""

    def __init__(self) -> None:
        self.performings: list[QuietPerforming] = []
        self.peers: list[QuietPeer] = []
        self.pushed: list[tuple[str, str]] = []
        self.wanted: list[str] = []

    def perform(self, stream: LiveStream, on_event: Callable[[Event], None]) -> Performing:
        self.performings.append(QuietPerforming(stream, on_event))
        return self.performings[-1]

    async def answer(
        self, performing: Performing, offer: Offer, hooks: Hooks
    ) -> tuple[Connected, str]:
        del performing
        await asyncio.sleep(0)
        if not offer.sdp.startswith("v=0"):
            raise BadOffer("no SDP")
        peer = QuietPeer(hooks)
        self.peers.append(peer)
        self.wanted.append(offer.wants)
        return peer, "v=0\r\nanswer\r\n"

    async def push(
        self, performing: Performing, url: str, bearer: str, offer: Offer, hooks: Hooks
    ) -> Connected:
        del performing, offer
        if "broken" in url:
            raise PushFailed("it answered 500")
        self.pushed.append((url, bearer))
        self.peers.append(QuietPeer(hooks))
        return self.peers[-1]

    async def close(self) -> None:
        return


class HummingVoice:
    """Text to speech without a program: 100 ms of a hum for each word."""

    sample_rate = 16_000

    def check(self, text: str, voice: str) -> str:
        if voice == "nobody":
            raise TtsError("voice: this voice is not there")
        return text

    async def stream(self, text: str, voice: str) -> AsyncGenerator[bytes, None]:
        del voice
        for _ in text.split():
            await asyncio.sleep(0)
            yield (np.arange(1600) % 80 * 100).astype("<i2").tobytes()


@dataclass(kw_only=True)
class Gateway:
    """A running gateway and what is behind it."""

    client: Client
    sessions: LiveSessions
    model: FakeModel
    studio: QuietStudio
    clock: Hand
    wall_clock: Hand
    deployment: Deployment = field(default_factory=Deployment)

    async def make(self, *, key: str = KEY, **fields: object) -> dict[str, str]:
        """A new session: its id, token and headers for it."""
        answer = await self.client.post("/v1/sessions", json=fields, headers={"X-API-KEY": key})
        assert answer.status == 201, await answer.text()
        return dict(await answer.json())

    async def offered(self, made: Mapping[str, str], sdp: str = "v=0\r\n") -> ClientResponse:
        """Post an offer to a session."""
        return await self.client.post(
            made["offer_url"], json={"sdp": sdp, "type": "offer"}, headers=bearer(made["token"])
        )

    async def shown(self, made: Mapping[str, str]) -> dict[str, object]:
        """The session as `GET` shows it."""
        path = f"/v1/sessions/{made['session_id']}"
        return dict(await (await self.client.get(path, headers=bearer(made["token"]))).json())


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@asynccontextmanager
async def gateway(
    *,
    keys: tuple[str, ...] = (KEY, OTHER_KEY),
    capacity: int = 8,
    settings: FakeSettings | None = None,
    voice: HummingVoice | None = None,
    **fields: object,
) -> AsyncIterator[Gateway]:
    """A gateway whose media go nowhere; `fields` are those of the deployment file."""
    clock, wall_clock, studio = Hand(), Hand(), QuietStudio()
    deployment = parse_deployment({"sessions": {"closing_ms": 0}} | fields, name="test")
    model = FakeModel(settings or FakeSettings(capacity=capacity))
    backing = Backing(
        deployment=deployment,
        model=model,
        studio=studio,
        cast=read_cast(model_path("pocket")),
        keys=ApiKeys(keys),
        secret=SECRET,
        voice=voice or HummingVoice(),
        clock=clock,
        wall_clock=wall_clock,
    )
    app = build_gateway(backing)
    async with TestClient(TestServer(app)) as client:
        yield Gateway(
            client=client,
            sessions=app[PARTS].sessions,
            model=model,
            studio=studio,
            clock=clock,
            wall_clock=wall_clock,
            deployment=deployment,
        )
    await model.close()


@asynccontextmanager
async def media_gateway(settings: FakeSettings | None = None) -> AsyncIterator[Client]:
    """A gateway with real performers and peers, without keys."""
    model = FakeModel(settings)
    deployment = parse_deployment({}, name="test")
    studio = LiveStudio(deployment, chunk_frames=model.ready.chunk_frames)
    backing = Backing(
        deployment=deployment,
        model=model,
        studio=studio,
        cast=read_cast(model_path("pocket")),
        keys=ApiKeys(()),
        secret=SECRET,
        voice=None,
    )
    async with TestClient(TestServer(build_gateway(backing))) as client:
        yield client
    await model.close()
    await studio.close()


@asynccontextmanager
async def viewer(
    connect: Callable[[str], Awaitable[str]],
) -> AsyncIterator[RTCPeerConnection]:
    """An aiortc client that receives: `connect` brings its offer to the gateway."""
    peer = RTCPeerConnection()
    sink = MediaBlackhole()
    peer.on("track", sink.addTrack)
    peer.addTransceiver("audio", direction="recvonly")
    peer.addTransceiver("video", direction="recvonly")
    await peer.setLocalDescription(await peer.createOffer())
    answer = await connect(peer.localDescription.sdp)
    await peer.setRemoteDescription(RTCSessionDescription(sdp=answer, type="answer"))
    await sink.start()
    try:
        yield peer
    finally:
        await sink.stop()
        await peer.close()


def picture(width: int = 96, height: int = 96, kind: str = "PNG") -> bytes:
    """A picture file."""
    pixels = np.random.default_rng(3).integers(0, 255, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


async def problem(answer: ClientResponse, status: int, code: str) -> dict[str, object]:
    """The problem that an answer must be."""
    text = await answer.text()
    assert answer.status == status, text
    assert answer.content_type == "application/problem+json", text
    body: dict[str, object] = await answer.json(content_type=None)
    assert body["code"] == code, text
    assert body["status"] == status
    assert body["type"] == f"urn:viva-voce:problem:{code}"
    return body
