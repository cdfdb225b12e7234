"""gRPC's interoperability cases, by their names, against our services."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status.rpc_status import aio as rpc_status  # type: ignore[attr-defined]  # not in stubs
from viva.v1 import avatar_pb2, common_pb2

from services.client_words import reason_of
from services.live_model import ModelRefused
from tests.support.control_house import (
    END_STREAM,
    END_UTTERANCE,
    EOF,
    RATE_HZ,
    config_message,
    control_message,
    hosted,
    noise,
    said_last,
    sound_message,
    sound_of,
    talk,
    until_free,
)
from tests.support.fake_model import FakeSettings

pytestmark = pytest.mark.unit

Message = avatar_pb2.ConverseRequest
SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"


def parts(responses: list[avatar_pb2.ConverseResponse]) -> list[str]:
    """The kinds of messages that came, each as often as it changed."""
    named = [str(one.WhichOneof("part")) for one in responses]
    return [name for at, name in enumerate(named) if at == 0 or named[at - 1] != name]


def test_empty_unary() -> None:
    async def run() -> None:
        async with hosted() as house:
            said = await house.stub.Describe(avatar_pb2.DescribeRequest())
            assert (said.model, said.capacity, said.num_sessions) == ("fake", 8, 0)
            assert [one.name for one in said.portraits] == ["ada", "kofi"]

    asyncio.run(run())


def test_large_message() -> None:
    """A portrait of 6 MiB there and raw pictures of 4.7 MB back, above gRPC's default of 4 MiB."""

    async def run() -> None:
        async with hosted(settings=FakeSettings(width=1280, height=1232)) as house:
            first = config_message(portrait_file=b"p" * (6 << 20), sound_format=3)
            call = house.stub.Converse(iter([first]), timeout=20)
            async for one in call:
                if one.HasField("media"):
                    assert len(one.media.raw_picture.rgb) == 1280 * 1232 * 3 > 4 << 20
                    break
            call.cancel()

    asyncio.run(run())


def test_a_message_above_the_limit_is_refused() -> None:
    async def run() -> None:
        async with hosted() as house:
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await talk(house.stub, [config_message(portrait_file=b"p" * ((16 << 20) + 1))])
            assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert not house.places.num_taken

    asyncio.run(run())


@pytest.mark.parametrize("picture", [1, 2, 3])
def test_streaming_speech_comes_back_bit_for_bit(picture: int) -> None:
    async def run() -> None:
        pcm_T = noise(1.0)
        async with hosted() as house:
            came = await talk(
                house.stub,
                [
                    config_message(picture_format=picture, stats_interval_ms=200),
                    sound_message(pcm_T[:5000], "hello"),
                    sound_message(pcm_T[5000:], "hello"),
                    END_STREAM,
                ],
            )
        assert parts(came)[0] == "session_started"
        assert parts(came)[-1] == "status"
        assert {"media", "event", "stats"} <= set(parts(came))
        back = sound_of(came, "hello")
        assert back[: 2 * len(pcm_T)] == pcm_T.tobytes()
        assert not any(back[2 * len(pcm_T) :])
        check_pts(came)
        status = came[-1].status
        assert status.reason == avatar_pb2.END_REASON_CLIENT
        assert 0 < status.stats.first_media_ms < 5000

    asyncio.run(run())


def check_pts(came: list[avatar_pb2.ConverseResponse]) -> None:
    """Pts of pictures and of samples rise strictly, samples without a gap, on one scale."""
    media = [one.media for one in came if one.HasField("media")]
    sound = [one for one in media if one.HasField("pcm_sound")]
    pictures = [one.pts for one in media if not one.HasField("pcm_sound")]
    assert pictures == sorted(set(pictures))
    for one, after in pairwise(sound):
        assert after.pts == one.pts + len(one.pcm_sound.s16le) // 2
    assert {(one.time_base.numerator, one.time_base.denominator) for one in sound} == {(1, RATE_HZ)}
    assert sound[0].pts == 0


def test_ping_pong() -> None:
    """An utterance at a time: the next one is said when the one before has ended; pings between."""

    async def run() -> None:
        async with hosted() as house:
            call = house.stub.Converse(timeout=20)
            await call.write(config_message(picture_format=common_pb2.PICTURE_FORMAT_NONE))
            heard: dict[str, bytes] = {}
            for number in range(3):
                name = f"u{number}"
                pcm_T = noise(0.2, seed=number)
                await call.write(sound_message(pcm_T, name))
                await call.write(END_UTTERANCE)
                await call.write(control_message(ping=avatar_pb2.Ping(nonce=number)))
                came = await read_until(call, avatar_pb2.EVENT_KIND_SPEAK_ENDED, name)
                assert [one.pong.nonce for one in came if one.HasField("pong")] == [number]
                heard[name] = pcm_T.tobytes()
            await call.write(END_STREAM)
            rest = await rest_of(call)
            assert rest[-1].HasField("status")
            assert len(heard) == 3

    asyncio.run(run())


async def read_until(call: Any, kind: int, utterance: str) -> list[avatar_pb2.ConverseResponse]:
    """What comes up to an event."""
    came = []
    while True:
        one = await call.read()
        assert one is not EOF
        came.append(one)
        if one.event.kind == kind and one.event.utterance == utterance:
            return came


async def rest_of(call: Any) -> list[avatar_pb2.ConverseResponse]:
    """What still comes."""
    came = []
    while (one := await call.read()) is not EOF:
        came.append(one)
    return came


def test_interrupt_raises_the_epoch_and_ends_what_is_said() -> None:
    async def run() -> None:
        async with hosted() as house:
            call = house.stub.Converse(timeout=20)
            await call.write(config_message(picture_format=common_pb2.PICTURE_FORMAT_NONE))
            await call.write(sound_message(noise(20.0), "long"))
            await read_until(call, avatar_pb2.EVENT_KIND_SPEAK_STARTED, "long")
            await call.write(control_message(interrupt=avatar_pb2.Interrupt()))
            await call.write(sound_message(noise(0.1), "next"))
            await call.write(END_STREAM)
            came = await rest_of(call)
            kinds = [one.event.kind for one in came if one.HasField("event")]
            assert avatar_pb2.EVENT_KIND_SPEAK_INTERRUPTED in kinds
            epochs = [one.media.epoch for one in came if one.HasField("media")]
            assert epochs == sorted(epochs)
            assert epochs[-1] == 1
            assert sound_of(came, "next")[:3200] == noise(0.1).tobytes()

    asyncio.run(run())


def test_empty_stream() -> None:
    """A call that says nothing ends with OK, and holds no place."""

    async def run() -> None:
        async with hosted() as house:
            assert await talk(house.stub, []) == []
            assert not house.model.streams

    asyncio.run(run())


def test_cancel_after_begin() -> None:
    async def run() -> None:
        async with hosted() as house:
            call = house.stub.Converse()
            await call.write(config_message())
            call.cancel()
            assert await call.code() is grpc.StatusCode.CANCELLED
            await until_free(house.places)
            assert not house.model.streams

    asyncio.run(run())


def test_cancel_after_first_response() -> None:
    async def run() -> None:
        async with hosted() as house:
            call = house.stub.Converse()
            await call.write(config_message())
            assert (await call.read()).HasField("session_started")
            assert house.places.num_taken == 1
            call.cancel()
            assert await call.code() is grpc.StatusCode.CANCELLED
            await until_free(house.places)
            assert not house.model.streams

    asyncio.run(run())


def test_timeout_on_sleeping_server() -> None:
    """A call whose time runs out is ended on both sides, whatever it waits for."""

    async def silent() -> AsyncIterator[Message]:
        yield config_message()
        await asyncio.sleep(60)

    async def run() -> None:
        async with hosted() as house:
            for timeout_s in (0.001, 0.4):
                call = house.stub.Converse(silent(), timeout=timeout_s)
                assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            await until_free(house.places)

    asyncio.run(run())


@pytest.mark.parametrize(
    "method", ["/viva.v1.AvatarService/Nothing", "/viva.v1.NobodyService/Converse"]
)
def test_unimplemented_method_and_service(method: str) -> None:
    async def run() -> None:
        async with hosted() as house:
            channel: Any = house.channel  # bytes as they are: no serializers
            call = channel.unary_unary(method)
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await call(b"")
            assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED

    asyncio.run(run())


def test_custom_metadata() -> None:
    """What a call is marked with comes back: first the id, last the bytes; of failing calls too."""

    async def run() -> None:
        said = (("x-request-id", "r-42"), ("x-echo-bin", b"\x0a\x0b\x00"))
        async with hosted() as house:
            call = house.stub.Describe(avatar_pb2.DescribeRequest(), metadata=said)
            await call
            assert ("x-request-id", "r-42") in list(await call.initial_metadata())
            assert ("x-echo-bin", b"\x0a\x0b\x00") in list(await call.trailing_metadata())
            failing = house.stub.Converse(iter([END_STREAM]), metadata=said)
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await failing.read()
            assert ("x-request-id", "r-42") in list(failed.value.initial_metadata())
            assert said_last(failed.value)["x-echo-bin"] == b"\x0a\x0b\x00"
            assert reason_of(failed.value) == "CONFIG_FIRST"

    asyncio.run(run())


def test_status_code_and_message_with_details() -> None:
    async def run() -> None:
        async with hosted() as house:
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await talk(house.stub, [config_message(sample_rate_hz=11_025)])
            assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert str(failed.value.details()).startswith("config.sample_rate_hz: 11025 is none of")
            assert reason_of(failed.value) == "BAD_FIELD"
            call = house.stub.Converse(iter([config_message(seed=-1)]))
            assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
            status = await rpc_status.from_call(call)
            bad = error_details_pb2.BadRequest()
            assert any(detail.Unpack(bad) for detail in status.details)
            assert bad.field_violations[0].field == "config.seed"

    asyncio.run(run())


def test_special_status_message() -> None:
    """Whitespace and every plane of Unicode survive in a status; here from a portrait's name."""

    async def run() -> None:
        async with hosted() as house:
            house.model.open = refuse_special  # type: ignore[method-assign, assignment]  # for this test
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await talk(house.stub, [config_message()])
            assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert failed.value.details() == SPECIAL

    asyncio.run(run())


async def refuse_special(_spec: object) -> None:
    """A model that refuses in special words."""
    raise ModelRefused("portrait", SPECIAL)


BAD_MESSAGES = [
    ([END_STREAM], "CONFIG_FIRST"),
    ([config_message(), config_message()], "BAD_FIELD"),
    ([config_message(), Message()], "BAD_FIELD"),
    ([config_message(), control_message()], "BAD_FIELD"),
    ([config_message(), Message(sound=avatar_pb2.SpeechSound(pcm_s16le=b"odd"))], "BAD_FIELD"),
    (
        [config_message(), Message(sound=avatar_pb2.SpeechSound(pcm_s16le=bytes((1 << 20) + 2)))],
        "BAD_FIELD",
    ),
    ([config_message(), Message(sound=avatar_pb2.SpeechSound(utterance="u" * 129))], "BAD_FIELD"),
    ([config_message(portrait_name="nobody")], "NO_PORTRAIT"),
    ([config_message(portrait_file=b"")], "BAD_FIELD"),
    ([config_message(picture_format=99)], "BAD_FIELD"),
    ([config_message(sound_format=99)], "BAD_FIELD"),
    ([config_message(size=common_pb2.PictureSize(width_px=63, height_px=64))], "BAD_FIELD"),
    ([config_message(size=common_pb2.PictureSize(width_px=64))], "BAD_FIELD"),
    ([config_message(stats_interval_ms=1)], "BAD_FIELD"),
    ([config_message(picture_bitrate_bps=1)], "BAD_FIELD"),
]


@pytest.mark.parametrize(("messages", "reason"), BAD_MESSAGES)
def test_what_breaks_the_grammar_ends_the_call(messages: list[Message], reason: str) -> None:
    async def run() -> None:
        async with hosted() as house:
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await talk(house.stub, messages, timeout_s=10)
            assert failed.value.code() in (
                grpc.StatusCode.INVALID_ARGUMENT,
                grpc.StatusCode.NOT_FOUND,
            )
            assert reason_of(failed.value) == reason
            await until_free(house.places)
            assert not house.model.streams

    asyncio.run(run())


def test_what_cannot_be_done_is_refused_and_the_session_goes_on() -> None:
    async def run() -> None:
        async with hosted() as house:
            came = await talk(
                house.stub,
                [
                    config_message(),
                    Message(text=avatar_pb2.SpeechText(text="hello")),
                    control_message(hints=avatar_pb2.Hints(emotions={"joy": 1.0})),
                    control_message(request_keyframe=avatar_pb2.RequestKeyframe()),
                    END_STREAM,
                ],
            )
            refused = [
                one.event.detail for one in came if one.event.kind == avatar_pb2.EVENT_KIND_REFUSED
            ]
            assert [detail.split(":")[0] for detail in refused] == ["text", "hints"]
            assert came[-1].status.reason == avatar_pb2.END_REASON_CLIENT

    asyncio.run(run())
