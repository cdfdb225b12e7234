"""Encoders: what they make can be decoded, starts and restarts where asked, and stays small."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from services.encode import (
    PACKET_SAMPLES,
    SOUND_RATE,
    VIDEO_CODECS,
    OpusEncoder,
    Packed,
    VideoCodec,
    VideoEncoder,
    default_bitrate_bps,
    opus_duration_ms,
)

pytestmark = pytest.mark.unit

FPS = Fraction(25)
STEP = 3600
ROOT = Path(__file__).parents[2]


def moving(count: int, side: int = 128, detail: float = 4.0) -> list[np.ndarray]:
    """A textured surface that slides by."""
    noise = np.random.default_rng(0).integers(0, 255, (side, side * 2, 3), dtype=np.uint8)
    soft = cv2.GaussianBlur(noise, (0, 0), 2).astype(np.float32)
    surface = np.clip((soft - 128) * detail + 128, 0, 255).astype(np.uint8)
    return [np.ascontiguousarray(surface[:, 2 * i % side :][:, :side]) for i in range(count)]


def decode(codec: VideoCodec, packed: list[Packed]) -> list[av.VideoFrame]:
    decoder = av.CodecContext.create("libvpx" if codec == "VP8" else "h264", "r")
    decoder.thread_count = 1
    assert isinstance(decoder, av.VideoCodecContext)
    frames = [frame for one in packed for frame in decoder.decode(one.packet())]
    return frames + decoder.decode(None)


def encode(encoder: VideoEncoder, pictures: list[np.ndarray], keys: set[int]) -> list[Packed]:
    return [
        encoder.encode(picture, i * STEP, keyframe=i in keys) for i, picture in enumerate(pictures)
    ]


@pytest.mark.parametrize("codec", VIDEO_CODECS)
def test_pictures_come_back_as_they_were(codec: VideoCodec) -> None:
    pictures = moving(12)
    frames = decode(
        codec, encode(VideoEncoder(codec, fps=FPS, bitrate_bps=2_000_000), pictures, set())
    )
    assert [frame.pts for frame in frames] == [i * STEP for i in range(12)]
    for picture, frame in zip(pictures, frames, strict=True):
        decoded = frame.to_ndarray(format="rgb24").astype(float)
        assert np.abs(decoded.mean((0, 1)) - picture.mean((0, 1))).max() < 4
        assert np.corrcoef(decoded.ravel(), picture.astype(float).ravel())[0, 1] > 0.8


@pytest.mark.parametrize("codec", VIDEO_CODECS)
def test_a_keyframe_comes_when_asked_for_and_only_then(codec: VideoCodec) -> None:
    packed = encode(VideoEncoder(codec, fps=FPS), moving(30), {11, 12})
    assert [i for i, one in enumerate(packed) if one.is_keyframe] == [0, 11, 12]
    assert all(one.data for one in packed)
    # Who joins at a keyframe needs nothing from before.
    assert len(decode(codec, packed[11:])) == 19


def test_h264_is_constrained_baseline_with_parameter_sets_at_every_keyframe() -> None:
    packed = encode(VideoEncoder("H264", fps=FPS), moving(8), {5})
    for one in (packed[0], packed[5]):
        units = one.data.split(b"\x00\x00\x01")[1:]
        kinds = [unit[0] & 0x1F for unit in units]
        assert kinds[:2] == [7, 8]
        assert 5 in kinds
        assert (units[0][1], units[0][2] & 0x40) == (66, 0x40)


@pytest.mark.parametrize("codec", VIDEO_CODECS)
def test_bitrate_is_kept_changes_and_keyframes_are_capped(codec: VideoCodec) -> None:
    encoder = VideoEncoder(codec, fps=FPS, bitrate_bps=600_000)
    packed = encode(encoder, moving(100, side=256), {60})

    def rate(part: list[Packed]) -> float:
        return sum(len(one.data) for one in part) * 8 * 25 / len(part)

    assert 250_000 < rate(packed[10:]) < 900_000
    average = 600_000 / 8 / 25
    assert len(packed[60].data) < 8 * average
    encoder.set_bitrate(200_000)
    slower = [encoder.encode(p, (100 + i) * STEP) for i, p in enumerate(moving(100, side=256))]
    assert rate(slower[30:]) < 0.6 * rate(packed[10:])
    keyframes = sum(one.is_keyframe for one in slower)
    assert keyframes == (0 if codec == "H264" else 1)
    assert encoder.num_opened == 1 + keyframes


def test_the_size_may_change_in_the_middle() -> None:
    encoder = VideoEncoder("VP8", fps=FPS)
    packed = [encoder.encode(p, i * STEP) for i, p in enumerate(moving(3) + moving(3, side=64))]
    assert [f.width for f in decode("VP8", packed)] == [128] * 3 + [64] * 3


def test_a_picture_is_made_smaller_where_wanted() -> None:
    encoder = VideoEncoder("H264", fps=FPS, max_side_px=100)
    packed = [encoder.encode(p[:96], i * STEP) for i, p in enumerate(moving(3))]
    assert [(f.width, f.height) for f in decode("H264", packed)] == [(100, 74)] * 3


def test_what_no_encoder_takes_is_refused() -> None:
    encoder = VideoEncoder("VP8", fps=FPS)
    with pytest.raises(ValueError, match="even sides, got 63x64"):
        encoder.encode(np.zeros((64, 63, 3), np.uint8), 0)
    with pytest.raises(ValueError, match="uint8 HxWx3"):
        encoder.encode(np.zeros((64, 64, 3), np.float32), 0)
    with pytest.raises(ValueError, match="codec 'AV1' is unknown: choose one of VP8, H264"):
        VideoEncoder("AV1", fps=FPS)  # type: ignore[arg-type] # wrong on purpose
    with pytest.raises(ValueError, match="960 int16 samples"):
        OpusEncoder().encode(np.zeros(1920, np.int16), 0)
    assert default_bitrate_bps(256, 256, FPS) == 300_000
    assert default_bitrate_bps(512, 512, FPS) == 819_200


def tone(hz: float, count: int) -> np.ndarray:
    return (9000 * np.sin(2 * np.pi * hz * np.arange(count) / SOUND_RATE)).astype(np.int16)


def test_sound_is_packets_of_20_ms_that_decode_in_place() -> None:
    sound = np.concatenate([np.zeros(9600, np.int16), tone(440, 48000)])
    encoder = OpusEncoder()
    packed = [
        one
        for start in range(0, len(sound) - 959, PACKET_SAMPLES)
        for one in encoder.encode(sound[start : start + PACKET_SAMPLES], start)
    ]
    assert {opus_duration_ms(one.data) for one in packed} == {20.0}
    assert [one.pts for one in packed] == [i * 960 - 312 for i in range(len(packed))]
    decoder = av.CodecContext.create("opus", "r")
    assert isinstance(decoder, av.AudioCodecContext)
    decoder.format, decoder.layout, decoder.sample_rate = "fltp", "mono", SOUND_RATE
    heard = np.concatenate(
        [f.to_ndarray()[0] for one in packed for f in decoder.decode(one.packet())]
    )
    spectrum = np.abs(np.fft.rfft(heard[-24000:]))
    assert abs(int(spectrum.argmax()) * 2 - 440) <= 2
    begin = int(np.argmax(np.abs(heard) > 0.05)) + packed[0].pts
    assert abs(begin - 9600) < 200


def test_the_length_of_an_opus_packet_is_read_from_its_head() -> None:
    celt_20, silk_40 = 31 << 3, 2 << 3
    assert opus_duration_ms(bytes([celt_20])) == 20
    assert opus_duration_ms(bytes([silk_40])) == 40
    assert opus_duration_ms(bytes([celt_20 | 1])) == 40
    assert opus_duration_ms(bytes([celt_20 | 3, 3])) == 60
    for bad in (b"", bytes([celt_20 | 3])):
        with pytest.raises(ValueError, match="an Opus packet"):
            opus_duration_ms(bad)


@pytest.mark.parametrize("module", ["encode", "encode_share", "mic", "webrtc", "webrtc_whip"])
def test_media_needs_no_torch(module: str) -> None:
    program = f"import sys, services.{module}; assert 'torch' not in sys.modules, 'torch'"
    path = f"{ROOT}:{ROOT / 'proto'}"
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
