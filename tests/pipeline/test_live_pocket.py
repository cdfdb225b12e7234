"""The live engine with the real pocket model: speech in small pieces, slices with their sound."""

from pathlib import Path

import numpy as np
import pytest
from viva.v1.messages import (
    AnyMessage,
    EndUtterance,
    OpenSession,
    SessionOpened,
    SliceMade,
    Speak,
    StageTrace,
    Want,
)

from audio.resample import StreamResampler
from audio.source import FileSource
from pipeline.capacity import Capacity
from pipeline.catalog import model_path
from pipeline.live_engine import LiveEngine
from pipeline.live_warmup import Warmth
from pipeline.model import load_model
from pipeline.model_face import ModelFaces
from pipeline.plan_parse import load_plan
from tests.support.fake_face import FakeClock

pytestmark = pytest.mark.stream

RATE = 48_000
PIECE = RATE // 50
WARMTH = Warmth(took_s=0.25, busy_s=0.25, capacity=Capacity(work_s=0.5, sessions=2), warm_s=1.0)


@pytest.fixture(scope="module")
def faces() -> ModelFaces:
    return ModelFaces(load_model("pocket"), load_plan("live"))


def speech(seconds: float) -> np.ndarray:
    source = FileSource(model_path("pocket") / "speech.flac")
    resampler = StreamResampler(source.sample_rate, RATE)
    parts = [resampler.push(chunk).samples_T for chunk in source.chunks()]
    sound_T = np.concatenate([*parts, resampler.flush().samples_T])
    return np.round(sound_T[: round(seconds * RATE)].clip(-1, 1) * 32767).astype(np.int16)


def portrait() -> bytes:
    return (Path(model_path("pocket")) / "portraits" / "ada.png").read_bytes()


def test_speech_in_pieces_comes_back_bit_for_bit_with_a_moving_face(faces: ModelFaces) -> None:
    said: list[AnyMessage] = []
    clock = FakeClock()
    engine = LiveEngine(faces, WARMTH, said.append, clock_s=clock)
    engine.post(OpenSession(session="a", portrait=portrait(), seed=3, sample_rate=RATE))
    sound_T = speech(0.8)
    first, num_pieces = 10, len(sound_T) // PIECE
    for tick in range(130):
        index = tick - first
        if 0 <= index < num_pieces:
            pcm = sound_T[index * PIECE : (index + 1) * PIECE].tobytes()
            engine.post(Speak(session="a", utterance="u", epoch=0, pcm=pcm))
        if index == num_pieces:
            engine.post(EndUtterance(session="a", utterance="u", epoch=0))
        if tick % 2 == 0:
            num_made = sum(isinstance(one, SliceMade) for one in said)
            due_ms = 40.0 * num_made - 20.0 * tick + 300
            engine.post(Want(session="a", until_index=tick // 2 + 14, due_in_ms=due_ms))
        while engine.turn() == 0.0:
            pass
        clock.now_s += 0.02
    engine.close()
    assert isinstance(said[0], SessionOpened)
    assert (said[0].width, said[0].height) == (256, 256)
    slices = [one for one in said if isinstance(one, SliceMade)]
    assert [one.index for one in slices] == list(range(len(slices)))
    assert len(slices) > 60
    assert all(len(one.pcm) == 2 * 1920 for one in slices)
    spoken = [one for one in slices if one.utterance == "u"]
    heard_T = np.frombuffer(b"".join(one.pcm for one in spoken), np.int16)
    whole = num_pieces * PIECE
    assert np.array_equal(heard_T[:whole], sound_T[:whole])
    assert not heard_T[whole:].any()
    assert [one.last_of_utterance for one in spoken] == [False] * (len(spoken) - 1) + [True]
    idle = [one for one in slices if not one.utterance]
    assert idle[0].index == 0
    assert idle[-1].index == len(slices) - 1
    assert not any(np.frombuffer(one.pcm, np.int16).any() for one in idle)
    assert {one.stage for one in said if isinstance(one, StageTrace)} == {"0-denoise", "1-decode"}
    pictures = [np.frombuffer(one.rgb, np.uint8).astype(int) for one in slices]
    assert np.abs(pictures[0] - pictures[spoken[0].index + 12]).max() > 20
    # From the first sample's arrival to its place in the stream: one chunk, the look-ahead, and
    # how long a chunk is begun before it is due.
    began_s = first * 0.02
    shown_s = 0.3 + 0.04 * spoken[0].index
    assert shown_s - began_s < 0.48 + 0.12 + 0.35 + 0.1
