"""A face called from elsewhere: pairs are whole, positions exact, and what was dropped is gone."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from fractions import Fraction

import numpy as np
import pytest
from viva.v1 import avatar_pb2, common_pb2
from viva.v1.face_call import FaceCall, FaceEvent, FaceLost, FaceOrder, Pairing

from services.converse_call import CallTerms
from tests.support.control_house import hosted, noise, until_free
from tests.support.fake_model import FakeSettings

pytestmark = pytest.mark.unit

SMALL = FakeSettings(width=64, height=64, work_ms=2.0, capacity=1)
RATE = 16_000


def run(body: Callable[[FaceCall], Awaitable[None]]) -> None:
    """A call to a server with a fake model."""

    async def play() -> None:
        async with (
            asyncio.timeout(30),
            hosted(settings=SMALL) as house,
            FaceCall(FaceOrder(address=house.address, portrait="ada", sample_rate=RATE)) as face,
        ):
            await body(face)

    asyncio.run(play())


def test_speech_comes_back_under_pictures_sample_by_sample() -> None:
    pcm = noise(0.9).tobytes()

    async def body(face: FaceCall) -> None:
        assert (face.info.fps, face.info.width, face.info.sample_rate) == (Fraction(25), 64, RATE)
        await face.speak("hello", pcm)
        await face.end("hello")
        pairs, kinds = [], []
        async for thing in face:
            if isinstance(thing, FaceEvent):
                kinds.append(thing.kind)
                if thing.kind == "speak_ended":
                    break
            else:
                pairs.append(thing)
        said = [one for one in pairs if one.utterance == "hello"]
        assert b"".join(one.pcm[: one.num_speech_bytes] for one in said) == pcm
        assert kinds == ["speak_started", "speak_ended"]
        assert all(b.pts - a.pts == RATE // 25 for a, b in itertools.pairwise(pairs))
        assert all(len(one.rgb or b"") == 64 * 64 * 3 for one in said if one.rgb is not None)
        assert sum(one.rgb is not None for one in said) > len(said) // 2

    run(body)


def test_nothing_of_what_was_interrupted_comes_out_afterwards() -> None:
    async def body(face: FaceCall) -> None:
        await face.speak("old", noise(3.0).tobytes())
        await face.end("old")
        heard, new = 0, b""
        stopped: dict[str, int] = {}
        fresh = noise(0.3, seed=2).tobytes()
        async for thing in face:
            if isinstance(thing, FaceEvent):
                if thing.kind == "speak_ended":
                    break
                continue
            heard += thing.num_speech_bytes * (thing.utterance == "old")
            if heard and not stopped:
                stopped = await face.interrupt()
                assert stopped == {"old": heard}
                await face.speak("old", fresh)  # goes nowhere
                await face.speak("new", fresh)
                await face.end("new")
            elif stopped:
                assert thing.utterance != "old"
                new += thing.pcm[: thing.num_speech_bytes] if thing.utterance == "new" else b""
        assert new == fresh
        assert await face.interrupt() == {}

    run(body)


def test_a_cancelled_speaker_does_not_end_the_call() -> None:
    async def body(face: FaceCall) -> None:
        pcm = noise(0.3).tobytes()
        for number in range(20):
            speaking = asyncio.create_task(face.speak(f"cut_{number}", pcm))
            await asyncio.sleep(0)
            speaking.cancel()
        await face.interrupt()
        await face.speak("whole", pcm)
        await face.end("whole")
        back = b""
        async for thing in face:
            if isinstance(thing, FaceEvent):
                if (thing.kind, thing.utterance) == ("speak_ended", "whole"):
                    break
            elif thing.utterance == "whole":
                back += thing.pcm[: thing.num_speech_bytes]
        assert back == pcm

    run(body)


def test_a_full_server_and_no_server_are_one_line() -> None:
    async def play() -> None:
        async with hosted(settings=SMALL) as house:
            order = FaceOrder(address=house.address, portrait="ada")
            async with FaceCall(order) as face:
                with pytest.raises(FaceLost, match="all 1 places are taken"):
                    await FaceCall(order).start()
                await face.close()
                await face.close()
                assert [thing async for thing in face] == []
            await until_free(house.places)
            with pytest.raises(FaceLost, match="nobody"):
                await FaceCall(FaceOrder(address=house.address, portrait="nobody")).start()

    asyncio.run(play())


def test_a_server_that_goes_away_is_told() -> None:
    async def play() -> None:
        async with (
            hosted(settings=SMALL) as house,
            FaceCall(FaceOrder(address=house.address, portrait="ada")) as face,
        ):
            next(iter(house.model.streams.values())).fail("worker_lost")
            with pytest.raises(FaceLost, match="the model is gone"):
                async for _ in face:
                    pass

    asyncio.run(play())


@pytest.mark.parametrize("keep_alive_s", [0.1, 0.0])
def test_a_session_that_is_wanted_is_not_idle(keep_alive_s: float) -> None:
    async def play() -> None:
        terms = CallTerms(idle_timeout_s=0.5)
        async with hosted(settings=SMALL, terms=terms) as house:
            order = FaceOrder(address=house.address, portrait="ada", keep_alive_s=keep_alive_s)
            async with FaceCall(order) as face:
                kinds, last = [], 0
                async for thing in face:
                    if isinstance(thing, FaceEvent):
                        kinds.append(thing.kind)
                    else:
                        last = thing.pts
                    if last > 1.5 * RATE:
                        break
                assert (last > 1.5 * RATE) == bool(keep_alive_s)
                assert ("closing" in kinds) == (not keep_alive_s)

    asyncio.run(play())


def test_sound_without_a_picture_is_a_pair_of_its_own() -> None:
    pairing = Pairing(Fraction(30000, 1001), 48_000)
    assert list(pairing.push(_picture(0))) == []
    assert list(pairing.push(_sound(0))) == []
    (first,) = pairing.push(_sound(1601))
    assert first.rgb is None
    assert list(pairing.push(_picture(0))) == []
    (second,) = pairing.push(_picture(1))
    assert (second.pts, second.rgb) == (1601, b"rgb")
    assert list(pairing.flush()) == []


def _sound(pts: int) -> avatar_pb2.Media:
    media = avatar_pb2.Media(pts=pts)
    media.pcm_sound.s16le = np.zeros(2, "<i2").tobytes()
    return media


def _picture(pts: int) -> avatar_pb2.Media:
    media = avatar_pb2.Media(pts=pts, time_base=common_pb2.TimeBase(numerator=1, denominator=1))
    media.raw_picture.rgb = b"rgb"
    return media
