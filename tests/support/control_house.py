"""A gRPC server with a fake model in this process, and calls to it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar

import grpc
import numpy as np
import numpy.typing as npt
from viva.v1 import avatar_pb2, common_pb2
from viva.v1.avatar_pb2_grpc import AvatarServiceStub

from services.auth import ApiKeys
from services.control import Control, ControlConfig, encoding_threads, start_control
from services.control_auth import Gate
from services.control_converse import LiveHouse
from services.converse_call import CallTerms
from services.job_queue import JobQueue
from services.places import Places
from services.problem import Problem
from services.tts import TextToSpeech
from tests.support.fake_model import FakeModel, FakeSettings

SMALL = FakeSettings(width=64, height=64, work_ms=5.0)
RATE_HZ = 16_000
EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # not in the stubs


class FakeGallery:
    """Two portraits that every picture is as good as."""

    cast: ClassVar = {
        name: SimpleNamespace(name=name, title=name.title()) for name in ("ada", "kofi")
    }

    async def find(self, name: str) -> bytes:
        if name not in self.cast:
            raise Problem(404, "no_portrait", f"there is no portrait {name!r}")
        return b"picture"


@dataclass(slots=True)
class Hosted:
    """A server that runs, what it stands on, and a channel to it."""

    control: Control
    model: FakeModel
    places: Places
    channel: grpc.aio.Channel
    stub: Any = field(init=False)

    def __post_init__(self) -> None:
        self.stub = AvatarServiceStub(self.channel)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.control.port}"


@asynccontextmanager
async def hosted(
    *,
    settings: FakeSettings = SMALL,
    config: ControlConfig | None = None,
    terms: CallTerms | None = None,
    keys: Sequence[str] = (),
    gate: Gate | None = None,
    queue: JobQueue | None = None,
    voice: TextToSpeech | None = None,
    credentials: grpc.ChannelCredentials | None = None,
    target: str = "",
) -> AsyncIterator[Hosted]:
    """A server and a channel, both gone afterwards."""
    model, threads = FakeModel(settings), encoding_threads()
    places = Places(settings.capacity, 0)
    house = LiveHouse(
        model=model,
        places=places,
        gallery=FakeGallery(),
        threads=threads,
        terms=terms or CallTerms(),
        voice=voice,
    )
    control = await start_control(
        config or ControlConfig(), gate or Gate(keys=ApiKeys(keys)), house=house, queue=queue
    )
    address = target or f"127.0.0.1:{control.port}"
    options = [("grpc.max_receive_message_length", 16 << 20), ("grpc.use_local_subchannel_pool", 1)]
    channel = (
        grpc.aio.secure_channel(address.format(port=control.port), credentials, options)
        if credentials
        else grpc.aio.insecure_channel(address, options)
    )
    try:
        yield Hosted(control, model, places, channel)
    finally:
        await channel.close(None)
        await control.stop()
        await model.close()
        threads.shutdown(wait=True)


def config_message(**fields: Any) -> avatar_pb2.ConverseRequest:
    """A first message that asks for small raw pictures and PCM."""
    asked = {
        "portrait_name": "ada",
        "sample_rate_hz": RATE_HZ,
        "picture_format": common_pb2.PICTURE_FORMAT_RAW_RGB,
        **fields,
    }
    if "portrait_file" in fields:
        del asked["portrait_name"]
    return avatar_pb2.ConverseRequest(config=avatar_pb2.SessionConfig(**asked))


def sound_message(pcm_T: npt.NDArray[np.int16], utterance: str = "") -> avatar_pb2.ConverseRequest:
    """Some sound."""
    sound = avatar_pb2.SpeechSound(utterance=utterance, pcm_s16le=pcm_T.astype("<i2").tobytes())
    return avatar_pb2.ConverseRequest(sound=sound)


def control_message(**action: Any) -> avatar_pb2.ConverseRequest:
    """Something other than speech."""
    return avatar_pb2.ConverseRequest(control=avatar_pb2.Control(**action))


END_UTTERANCE = avatar_pb2.ConverseRequest(end_of_utterance=avatar_pb2.EndOfUtterance())
END_STREAM = avatar_pb2.ConverseRequest(end_of_stream=avatar_pb2.EndOfStream())


def noise(seconds: float, seed: int = 1, rate: int = RATE_HZ) -> npt.NDArray[np.int16]:
    """Sound in which no sample can be lost unseen."""
    count = int(seconds * rate)
    return np.random.default_rng(seed).integers(-9000, 9000, count, dtype=np.int16)


async def talk(
    stub: Any, messages: Sequence[avatar_pb2.ConverseRequest], *, timeout_s: float = 30.0
) -> list[avatar_pb2.ConverseResponse]:
    """Say all messages at once and hear everything that comes."""
    call = stub.Converse(iter(messages), timeout=timeout_s)
    return [response async for response in call]


def sound_of(responses: Sequence[avatar_pb2.ConverseResponse], utterance: str) -> bytes:
    """The PCM that came back for an utterance."""
    media = [one.media for one in responses if one.HasField("media")]
    return b"".join(
        one.pcm_sound.s16le
        for one in media
        if one.HasField("pcm_sound") and one.utterance == utterance
    )


def said_last(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    """What a call that failed said at its end."""
    pairs: Any = error.trailing_metadata()  # pairs, which the stubs do not know
    return dict(pairs)


async def until_free(places: Places, timeout_s: float = 5.0) -> None:
    """Wait until every place is free again."""
    async with asyncio.timeout(timeout_s):
        while places.num_taken:  # noqa: ASYNC110 - the places tell nobody
            await asyncio.sleep(0.01)
