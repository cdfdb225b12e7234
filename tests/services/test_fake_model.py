"""The fake model keeps the rules of live models, and its pictures say what they are."""

import asyncio
import io
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image
from viva.v1.messages import Degraded, OpenSession, SessionFailed, StageTrace

from pipeline.pacing import samples_before
from services.live_model import LiveModel, LiveStream, ModelRefused, Restarted
from services.slice import Slice
from tests.support.fake_model import FakeModel, FakeSettings, FakeStream
from tests.support.flash_picture import Code, beeps, draw, is_flash, read, session_number
from tests.support.virtual_time import run_virtual

pytestmark = pytest.mark.unit

RATE = 48_000


def spec(session: str = "s") -> OpenSession:
    return OpenSession(session=session, portrait=b"face", seed=1, sample_rate=RATE)


async def take(stream: LiveStream, until: int) -> list[Slice]:
    """The slices up to an index."""
    taken: list[Slice] = []
    stream.want(until, 0.0)
    async for event in stream.events():
        if isinstance(event, Slice):
            taken.append(event)
        if taken and taken[-1].index + 1 >= until:
            break
    return taken


async def opened(settings: FakeSettings | None = None) -> tuple[FakeModel, FakeStream]:
    model = FakeModel(settings)
    live: LiveModel = model
    assert live.ready.chunk_frames == model.settings.chunk_frames
    return model, await model.open(spec())


@pytest.mark.parametrize("size", [(256, 256), (128, 96), (720, 1280)])
@pytest.mark.parametrize("flash", [False, True])
def test_a_picture_says_what_it_is_even_behind_a_codec(size: tuple[int, int], flash: bool) -> None:
    code = Code(index=40_321, epoch=201, session=session_number("abc"))
    picture_HWC = draw(code, is_flash=flash, height=size[0], width=size[1])
    file = io.BytesIO()
    Image.fromarray(picture_HWC).save(file, "JPEG", quality=40)
    seen_HWC = np.asarray(Image.open(file).convert("RGB"))
    assert read(seen_HWC) == code
    assert is_flash(seen_HWC) == flash


def test_a_damaged_bar_code_is_not_read() -> None:
    picture_HWC = draw(Code(5, 1, 2), is_flash=False)
    picture_HWC[208:224, :16] ^= 255
    assert read(picture_HWC) is None
    assert read(np.full((256, 256, 3), 96, np.uint8)) is None


def test_pictures_flash_exactly_where_the_sound_beeps() -> None:
    async def play() -> list[Slice]:
        model, stream = await opened()
        stream.speak("u", 0, beeps(RATE, 3.0))
        stream.end("u", 0)
        slices = await take(stream, 84)
        await model.close()
        return slices

    slices = run_virtual(play())
    spoken = [one for one in slices if one.utterance == "u"]
    assert (np.concatenate([one.sound_T for one in spoken]) == beeps(RATE, 3.0)).all()
    assert [n for n, one in enumerate(spoken) if is_flash(one.picture_HWC)] == [
        0,
        1,
        25,
        26,
        50,
        51,
    ]
    assert [one.ends_utterance for one in spoken] == [False] * 74 + [True]
    assert [one.index for one in slices] == list(range(84))


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30000, 1001), Fraction(16)])
def test_frames_have_exactly_their_samples(fps: Fraction) -> None:
    async def play() -> list[Slice]:
        model, stream = await opened(FakeSettings(fps=fps))
        slices = await take(stream, 120)
        await model.close()
        return slices

    slices = run_virtual(play())
    assert sum(len(one.sound_T) for one in slices) == samples_before(120, RATE, fps)


def test_nothing_is_made_without_credit() -> None:
    async def play() -> int:
        model, stream = await opened()
        await take(stream, 5)
        await asyncio.sleep(10)
        await model.close()
        return stream.next_index

    assert run_virtual(play()) == 5


@pytest.mark.parametrize("old_slices", [False, True])
def test_an_interrupt_drops_what_is_older(old_slices: bool) -> None:
    async def play() -> list[Slice]:
        model, stream = await opened(FakeSettings(old_slices=old_slices))
        stream.speak("old", 0, np.full(RATE, 5, np.int16))
        stream.want(12, 0.0)
        await asyncio.sleep(0.01)
        stream.interrupt(1)
        stream.speak("late", 0, np.full(RATE, 6, np.int16))
        stream.speak("new", 1, np.full(RATE, 7, np.int16))
        slices = await take(stream, 24)
        await model.close()
        return slices

    slices = run_virtual(play())
    assert [one.index for one in slices] == list(range(24))
    assert {one.utterance for one in slices} == ({"old", "new"} if old_slices else {"new"})


def test_a_pause_in_an_utterance_is_idle_motion_and_loses_nothing() -> None:
    said_T = np.arange(1, 40_001).astype(np.int16)

    async def play() -> list[Slice]:
        model, stream = await opened()
        stream.speak("u", 0, said_T[:30_000])
        first = await take(stream, 24)
        stream.speak("u", 0, said_T[30_000:])
        stream.end("u", 0)
        rest = await take(stream, 48)
        await model.close()
        return [*first, *rest]

    slices = run_virtual(play())
    sound_T = np.concatenate([one.sound_T for one in slices if one.utterance == "u"])
    assert (sound_T[:40_000] == said_T).all()
    assert not sound_T[40_000:].any()


def test_a_model_that_dies_comes_back_with_the_next_index() -> None:
    async def play() -> list[object]:
        model, stream = await opened()
        await take(stream, 12)
        await model.kill(back_after_ms=900)
        seen: list[object] = []
        async for event in stream.events():
            seen.append(event)
            if isinstance(event, Restarted):
                break
        slices = await take(stream, 13)
        stream.fail("worker_lost")
        seen += [*slices, *[event async for event in stream.events()]]
        await stream.close()
        return [one for one in seen if not isinstance(one, StageTrace)]

    gone, back, slice_, failed = run_virtual(play())
    assert isinstance(gone, Degraded)
    assert gone.level == 4
    assert back == Restarted(session="s", next_index=12)
    assert isinstance(slice_, Slice)
    assert slice_.index == 12
    assert failed == SessionFailed(session="s", reason="worker_lost")


def test_a_full_model_refuses_and_a_closed_stream_makes_room() -> None:
    async def play() -> None:
        model = FakeModel(FakeSettings(capacity=1))
        stream = await model.open(spec("a"))
        with pytest.raises(ModelRefused) as refusal:
            await model.open(spec("b"))
        assert refusal.value.reason == "capacity"
        await stream.close()
        await stream.close()
        await model.open(spec("b"))
        await model.close()

    run_virtual(play())
