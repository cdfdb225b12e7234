"""Live engines behind the socket: a light face through a real process's death, and a real model."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from queue import Queue

import numpy as np
import pytest
from viva.v1.messages import (
    AnyMessage,
    CloseSession,
    OpenSession,
    SessionClosed,
    SessionOpened,
    SliceMade,
    Want,
)

from services.live_model import LiveEvent, Restarted
from services.model_client import ModelClient
from services.model_engine import EngineOptions, open_engine
from services.model_worker import spawned
from services.slice import Slice

pytestmark = pytest.mark.unit

RATE = 48_000
FRAME = RATE // 25
LIVE = ("-m", "tests.support.flash_process", "--live")


def spec(portrait: bytes = b"face", crop: str = "") -> OpenSession:
    return OpenSession(session="s", portrait=portrait, seed=1, sample_rate=RATE, crop=crop)


def beeps(num_frames: int) -> np.ndarray:
    """Ten frames of sound, ten of silence, and so on."""
    is_loud = np.arange(num_frames * FRAME) // (10 * FRAME) % 2 == 0
    return np.where(is_loud, 16_000, 0).astype(np.int16)


async def speech(events: AsyncIterator[LiveEvent], until_name: str) -> list[Slice]:
    """All slices up to the end of an utterance."""
    made = list[Slice]()
    async for event in events:
        if isinstance(event, Slice):
            made.append(event)
            if event.utterance == until_name and event.ends_utterance:
                break
    return made


def test_the_picture_flashes_with_the_beep_before_and_after_the_process_is_killed() -> None:
    async def test() -> list[Slice]:
        model = await ModelClient.start(spawned(LIVE))
        try:
            while not model.spare_is_warm:  # noqa: ASYNC110  # there is no event to wait for
                await asyncio.sleep(0.02)
            stream = await model.open(spec())
            events = stream.events()
            sound_T = beeps(100)
            stream.speak("u", 0, sound_T)
            stream.want(40, 0.0)
            made = list[Slice]()
            async for event in events:
                if isinstance(event, Slice):
                    made.append(event)
                    if event.index == 39:
                        break
            played = sum(one.utterance == "u" for one in made)
            assert model.pid is not None
            os.kill(model.pid, signal.SIGKILL)
            while not isinstance(event, Restarted):
                event = await anext(events)
            # What a performer does: say again what was not played.
            stream.speak("u", 0, sound_T[played * FRAME :])
            stream.end("u", 0)
            stream.want(200, 0.0)
            return made + await speech(events, "u")
        finally:
            await model.close()

    made = asyncio.run(test())
    assert [one.index for one in made] == list(range(len(made)))
    spoken = [one for one in made if one.utterance == "u"]
    assert (np.concatenate([one.sound_T for one in spoken]) == beeps(100)).all()
    for one in spoken:
        is_loud = bool(np.abs(one.sound_T).max() > 0)
        assert bool(one.picture_HWC[1:].max() > 100) == is_loud


def test_a_model_folder_is_served_by_an_engine_and_freed(tiny_model: Path, portrait: Path) -> None:
    told = Queue[AnyMessage]()
    engine = open_engine(EngineOptions(model=str(tiny_model), capacity=1, threads=1), told.put)
    try:
        assert engine.ready.capacity == 1
        engine.start()
        engine.post(spec(portrait.read_bytes(), "center"))
        opened = told.get(timeout=20)
        assert isinstance(opened, SessionOpened)
        engine.post(Want(session="s", until_index=3, due_in_ms=0))
        indices = list[int]()
        while len(indices) < 3:
            message = told.get(timeout=20)
            if isinstance(message, SliceMade):
                indices.append(message.index)
        assert indices == [0, 1, 2]
        engine.post(CloseSession(session="s"))
        while message != SessionClosed(session="s"):
            message = told.get(timeout=20)
    finally:
        engine.close()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--plan", "render"], "render"),
        (["--chain", "sideways"], "--chain 'sideways' is not understood"),
    ],
)
def test_what_cannot_be_served_is_one_line_and_status_2(
    tmp_path: Path, options: list[str], reason: str
) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "services.model_process", "--socket", tmp_path / "model", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert reason in line
    assert not (tmp_path / "model").exists()
