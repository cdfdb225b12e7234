"""Live streams from a real model process, through its death, and nothing left of it afterwards."""

import asyncio
import os
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest
from viva.v1.messages import Degraded, SessionFailed

from services.live_model import LiveModel, LiveStream, ModelRefused, Restarted
from services.model_client import ModelClient
from services.model_stream import ModelStream
from services.model_worker import ModelUnavailable, spawned
from services.slice import Slice
from tests.support.model_rig import (
    FLASH,
    FRAME,
    children,
    client,
    own_temporary_folder,
    run,
    spec,
    take,
    tone,
    warm,
)

__all__ = ["own_temporary_folder"]

pytestmark = pytest.mark.unit


def as_protocols(model: ModelClient, stream: ModelStream) -> tuple[LiveModel, LiveStream]:
    """Let mypy find that they keep the protocols."""
    return model, stream


def test_slices_carry_the_sound_that_was_spoken_with_its_pictures() -> None:
    async def test() -> None:
        async with client() as model:
            stream = await model.open(spec())
            assert stream.fps == 25
            assert (stream.width, stream.height) == (16, 16)
            events = stream.events()
            stream.want(2, 40.0)
            idle = await take(events, 1)
            stream.speak("u", 3, tone(4))
            stream.end("u", 3)
            stream.want(8, 40.0)
            made = [event for event in idle + await take(events, 7) if isinstance(event, Slice)]
            assert [one.index for one in made] == list(range(8))
            assert [one.utterance for one in made] == [None] * 2 + ["u"] * 4 + [None] * 2
            assert [one.ends_utterance for one in made].count(True) == 1
            assert made[5].ends_utterance
            for one in made:
                is_loud = one.utterance == "u"
                assert one.sound_T.dtype == np.int16
                assert len(one.sound_T) == FRAME
                assert bool((one.sound_T == 9000).all()) == is_loud
                assert (one.picture_HWC[1:] == (255 if is_loud else 64)).all()
            assert {one.epoch for one in made if one.utterance} == {3}
            await stream.close()

    run(test)


def test_nothing_is_made_that_was_not_wanted() -> None:
    async def test() -> None:
        async with client() as model:
            stream = await model.open(spec())
            stream.want(3, 0.0)
            events = stream.events()
            await take(events, 2)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(events), 0.2)

    run(test)


def test_long_sound_goes_in_pieces_and_comes_back_whole() -> None:
    async def test() -> None:
        async with client("--side", "1") as model:
            stream = await model.open(spec())
            sent = np.arange(FRAME * 700, dtype=np.int64).astype(np.int16)
            stream.speak("u", 0, sent)
            stream.end("u", 0)
            got, events = list[np.ndarray](), stream.events()
            for first in range(0, 700, 50):
                stream.want(first + 50, 0.0)
                made = await take(events, first + 49)
                got += [one.sound_T for one in made if isinstance(one, Slice)]
            assert (np.concatenate(got) == sent).all()

    run(test)


@pytest.mark.parametrize(
    ("portrait", "reason"), [(b"bad", "portrait"), (b"second", "capacity"), (b"first", "session")]
)
def test_a_refused_session_says_why(portrait: bytes, reason: str) -> None:
    async def test() -> None:
        async with client("--capacity", "1") as model:
            if reason != "portrait":
                await model.open(spec("first"))
            name = "first" if reason == "session" else "other"
            with pytest.raises(ModelRefused) as caught:
                await model.open(spec(name, portrait))
            assert caught.value.reason == reason

    run(test)


def test_a_closed_session_makes_room_and_its_name_is_free() -> None:
    async def test() -> None:
        async with client("--capacity", "1") as model:
            for _ in range(3):
                stream = await model.open(spec())
                stream.want(1000, 0.0)
                await stream.close()
                await stream.close()
                assert [event async for event in stream.events()] == []

    run(test)


def test_a_killed_process_is_replaced_by_the_spare_and_frames_count_on() -> None:
    async def test() -> None:
        async with client(has_spare=True) as model:
            await warm(model)
            streams = [await model.open(spec(name)) for name in ("a", "b")]
            readers = [stream.events() for stream in streams]
            for stream, events in zip(streams, readers, strict=True):
                stream.speak("u", 0, tone(50))
                stream.want(5, 0.0)
                await take(events, 4)
            first = model.pid
            assert first is not None
            os.kill(first, signal.SIGKILL)
            for stream, events in zip(streams, readers, strict=True):
                held, again = await anext(events), await anext(events)
                assert isinstance(held, Degraded)
                assert held.level == 4
                assert again == Restarted(session=stream.session, next_index=5)
                stream.speak("u", 0, tone(3))
                stream.want(8, 0.0)
                made = await take(events, 7)
                assert [one.index for one in made if isinstance(one, Slice)] == [5, 6, 7]
                assert all(one.utterance == "u" for one in made if isinstance(one, Slice))
            assert model.num_restarts == 1
            assert model.pid != first
            while psutil.pid_exists(first):  # noqa: ASYNC110  # no event
                await asyncio.sleep(0.01)
            await warm(model)

    run(test)


def test_words_before_the_news_of_a_restart_are_lost_and_words_after_it_are_not() -> None:
    async def test() -> None:
        async with client(has_spare=True) as model:
            await warm(model)
            stream = await model.open(spec())
            events = stream.events()
            assert model.pid is not None
            os.kill(model.pid, signal.SIGKILL)
            assert isinstance(await anext(events), Degraded)
            while not model.is_up:  # noqa: ASYNC110  # there is no event to wait for
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            stream.speak("lost", 0, tone(3))
            stream.want(3, 0.0)
            assert isinstance(await anext(events), Restarted)
            stream.speak("heard", 0, tone(2))
            stream.want(3, 0.0)
            made = [one for one in await take(events, 2) if isinstance(one, Slice)]
            assert [one.utterance for one in made] == ["heard", "heard", None]

    run(test)


def test_without_a_spare_a_new_process_is_started() -> None:
    async def test() -> None:
        async with client() as model:
            stream = await model.open(spec())
            events = stream.events()
            assert model.pid is not None
            os.kill(model.pid, signal.SIGKILL)
            assert isinstance(await anext(events), Degraded)
            assert isinstance(await anext(events), Restarted)

    run(test)


def test_a_dead_spare_is_replaced_before_it_is_needed() -> None:
    async def test() -> None:
        async with client(has_spare=True) as model:
            await warm(model)
            spare = next(pid for pid in children() if pid != model.pid)
            os.kill(spare, signal.SIGKILL)
            while model.spare_is_warm:  # noqa: ASYNC110  # there is no event to wait for
                await asyncio.sleep(0.01)
            await warm(model)
            assert spare not in children()
            assert model.num_restarts == 0

    run(test)


def test_a_session_that_kills_every_process_is_given_up_and_the_next_one_is_served() -> None:
    async def test() -> None:
        async with client(has_spare=True) as model:
            stream = await model.open(spec(portrait=b"crash"))
            stream.want(1, 0.0)
            seen = list[str]()
            async for event in stream.events():
                seen.append(type(event).__name__)
                if isinstance(event, Restarted):
                    stream.want(1, 0.0)
            assert isinstance(event, SessionFailed)
            assert event.reason == "worker_lost"
            assert seen == ["Degraded", "Restarted"] * 2 + ["Degraded", "SessionFailed"]
            other = await model.open(spec("other"))
            other.want(1, 0.0)
            assert len(await take(other.events(), 0)) == 1

    run(test)


def test_a_process_that_cannot_load_is_reported_with_its_status() -> None:
    async def test() -> None:
        with pytest.raises(ModelUnavailable, match="ended with status 7 before it was ready"):
            await ModelClient.start(spawned([*FLASH, "--fail", "7"]))

    run(test)


def test_a_process_that_loads_for_too_long_is_ended() -> None:
    async def test() -> None:
        with pytest.raises(ModelUnavailable, match="was not ready within 1 s"):
            await ModelClient.start(spawned([*FLASH, "--load-s", "60"], start_s=1.0))

    run(test)


def test_a_client_that_closes_while_its_spare_loads_leaves_nothing() -> None:
    async def test() -> None:
        made = await ModelClient.start(spawned([*FLASH, "--load-s", "0.5"]))
        await made.close()

    run(test)


def test_the_gateways_side_loads_no_torch() -> None:
    program = (
        "import sys, services.model_client, services.model_worker, services.model_process\n"
        "assert not {'torch', 'pipeline', 'video', 'audio'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
