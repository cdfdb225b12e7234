"""A face in a real Pipecat pipeline, talking to a real server with a fake model."""

import asyncio
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    InterruptionFrame,
    MetricsFrame,
    OutputImageRawFrame,
    OutputTransportReadyFrame,
    SpeechOutputAudioRawFrame,
    TextFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams
from pipecat.tests.utils import SleepFrame, run_test
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.base_transport import TransportParams
from viva.v1.face_call import FaceOrder
from viva_pipecat import VivaVideoService
from viva_server import viva_server

RATE = 16_000


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with viva_server() as address:
        yield address


def order(server: str) -> FaceOrder:
    return FaceOrder(address=server, portrait="ada", sample_rate=RATE)


def noise(seconds: float, rate: int = RATE, seed: int = 1) -> bytes:
    random = np.random.default_rng(seed)
    return random.integers(-9000, 9000, int(seconds * rate), dtype=np.int16).tobytes()


def spoken(pcm: bytes, rate: int = RATE, channels: int = 1, context: str = "c1") -> list[Frame]:
    """A segment in pieces of 100 ms, as a text-to-speech service gives it."""
    step = rate // 10 * 2 * channels
    pieces = [pcm[begin : begin + step] for begin in range(0, len(pcm), step)]
    return [
        TTSStartedFrame(context_id=context),
        *(TTSAudioRawFrame(piece, rate, channels, context_id=context) for piece in pieces),
        TTSStoppedFrame(context_id=context),
    ]


def play(
    service: VivaVideoService, frames: Sequence[Frame], *, is_ready: bool = True
) -> tuple[list[Frame], list[Frame]]:
    ready = [OutputTransportReadyFrame()] if is_ready else []
    down, up = asyncio.run(
        run_test(
            service,
            frames_to_send=[*ready, *frames],
            pipeline_params=PipelineParams(enable_metrics=True, audio_out_sample_rate=RATE),
        )
    )
    return list(down), list(up)


def sound_of(frames: Sequence[Frame]) -> bytes:
    return b"".join(one.audio for one in frames if isinstance(one, SpeechOutputAudioRawFrame))


def test_speech_comes_out_under_its_pictures_to_the_last_sample(server: str) -> None:
    pcm = noise(0.95)
    down, _ = play(VivaVideoService(face=order(server)), [*spoken(pcm), TextFrame("through")])
    assert pcm in sound_of(down)
    assert any(isinstance(one, TextFrame) for one in down)
    assert not any(isinstance(one, TTSAudioRawFrame) for one in down)
    media = [
        one for one in down if isinstance(one, OutputImageRawFrame | SpeechOutputAudioRawFrame)
    ]
    pictures = [one for one in media if isinstance(one, OutputImageRawFrame)]
    sounds = [one for one in media if isinstance(one, SpeechOutputAudioRawFrame)]
    assert all(one.size == (64, 48) and one.format == "RGB" for one in pictures)
    assert all(one.sync_with_audio for one in pictures)
    assert len(pictures) > len(sounds) * 0.8
    ticks = [one.pts for one in sounds]
    assert ticks == [ticks[0] + n * 40_000_000 for n in range(len(ticks))]
    for one, behind in itertools.pairwise(media):
        if isinstance(one, OutputImageRawFrame):
            assert isinstance(behind, SpeechOutputAudioRawFrame)
            assert behind.pts == one.pts


def test_the_end_of_speech_is_told_behind_its_last_sound(server: str) -> None:
    first, second = noise(0.5), noise(0.4, seed=2)
    frames = [*spoken(first), *spoken(second, context="c2")]
    down, _ = play(VivaVideoService(face=order(server)), frames)
    stops = [n for n, one in enumerate(down) if isinstance(one, TTSStoppedFrame)]
    assert [down[n].context_id for n in stops] == ["c1", "c2"]
    assert first in sound_of(down[: stops[0]])
    assert second not in sound_of(down[: stops[0]])
    assert second in sound_of(down[: stops[1]])


def test_another_rate_and_two_channels_come_out_as_ordered(server: str) -> None:
    left = np.frombuffer(noise(0.6, 24_000), np.int16)
    stereo = np.stack([left, np.zeros_like(left)], axis=1).tobytes()
    down, _ = play(VivaVideoService(face=order(server)), spoken(stereo, rate=24_000, channels=2))
    heard = np.frombuffer(sound_of(down), np.int16)
    assert all(
        one.sample_rate == RATE for one in down if isinstance(one, SpeechOutputAudioRawFrame)
    )
    (loud,) = np.nonzero(heard)
    assert abs((loud[-1] - loud[0]) / RATE - 0.6) < 0.02


def test_an_interruption_passes_and_silences_what_was_said(server: str) -> None:
    old, new = noise(4.0), noise(0.3, seed=2)
    frames = [
        *spoken(old)[:-1],
        SleepFrame(sleep=1.5),
        InterruptionFrame(),
        SleepFrame(sleep=0.3),
        *spoken(new, context="c2"),
    ]
    down, _ = play(VivaVideoService(face=order(server)), frames)
    (cut,) = [n for n, one in enumerate(down) if isinstance(one, InterruptionFrame)]
    before, after = sound_of(down[:cut]), sound_of(down[cut:])
    begun = before[before.index(old[:640]) :]
    assert old.startswith(begun)
    assert 0.2 * RATE * 2 < len(begun) < 1.6 * RATE * 2
    assert new in after
    # What is left of the old is 15 ms that fade.
    loud = np.count_nonzero(np.frombuffer(after[: after.index(new)], np.int16))
    assert loud <= 0.015 * RATE
    stops = [one.context_id for one in down if isinstance(one, TTSStoppedFrame)]
    assert stops == ["c2"]


def test_nothing_is_shown_before_the_transport_is_ready(server: str) -> None:
    service = VivaVideoService(face=order(server))
    down, _ = play(service, [SleepFrame(sleep=0.5)], is_ready=False)
    assert not any(isinstance(one, OutputImageRawFrame) for one in down)
    service = VivaVideoService(face=order(server), wait_for_transport=False)
    down, _ = play(service, [SleepFrame(sleep=0.5)], is_ready=False)
    assert any(isinstance(one, OutputImageRawFrame) for one in down)


def test_time_to_the_first_sound_is_measured(server: str) -> None:
    frames = [TTSStartedFrame(), SleepFrame(sleep=0.2), BotStartedSpeakingFrame()]
    down, up = play(VivaVideoService(face=order(server)), [*frames, SleepFrame()])
    values = [
        data.value
        for one in [*down, *up]
        if isinstance(one, MetricsFrame)
        for data in one.data
        if type(data).__name__ == "TTFBMetricsData" and data.value > 0
    ]
    assert any(0.1 < value < 2.0 for value in values)


def test_without_a_server_the_voice_goes_on(server: str) -> None:
    del server
    lost = FaceOrder(address="127.0.0.1:1", portrait="ada")
    pcm = noise(0.3)
    down, up = play(VivaVideoService(face=lost), spoken(pcm))
    voice = b"".join(one.audio for one in down if isinstance(one, TTSAudioRawFrame))
    assert voice == pcm
    assert any(isinstance(one, ErrorFrame) for one in up)
    assert any(isinstance(one, TTSStoppedFrame) for one in down)


def test_it_may_be_torn_down_as_often_as_one_likes(server: str) -> None:
    service = VivaVideoService(face=order(server))
    play(service, [SleepFrame(sleep=0.3)])

    async def again() -> None:
        await service.stop(EndFrame())
        await service.cleanup()
        await service.cleanup()

    asyncio.run(again())


class KeepingTransport(BaseOutputTransport):
    """A real output transport whose network is two lists."""

    def __init__(self, *, is_live: bool) -> None:
        super().__init__(
            TransportParams(
                audio_out_enabled=True,
                audio_out_sample_rate=RATE,
                video_out_enabled=True,
                video_out_is_live=is_live,
                video_out_framerate=25,
                video_out_width=64,
                video_out_height=48,
            )
        )
        self.sound, self.num_pictures = b"", 0

    async def start(self, frame: Frame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def write_audio_frame(self, frame: Frame) -> bool:
        self.sound += frame.audio
        await asyncio.sleep(len(frame.audio) / 2 / RATE * 0.9)
        return True

    async def write_video_frame(self, frame: Frame) -> bool:
        del frame
        self.num_pictures += 1
        return True


@pytest.mark.parametrize("is_live", [False, True])
def test_a_real_output_transport_plays_it(server: str, is_live: bool) -> None:
    transport = KeepingTransport(is_live=is_live)
    service = VivaVideoService(face=order(server), sync_with_audio=not is_live)
    pcm = noise(0.9)
    asyncio.run(
        run_test(
            Pipeline([service, transport]),
            frames_to_send=[*spoken(pcm), SleepFrame(sleep=1.0)],
            pipeline_params=PipelineParams(audio_out_sample_rate=RATE),
        )
    )
    assert pcm in transport.sound
    assert transport.num_pictures > 15
