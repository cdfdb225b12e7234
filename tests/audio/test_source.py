"""Every kind of sound file is read whole, and every bad one is refused in one line."""

import os
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from audio.errors import AudioError
from audio.source import ArraySource, FileSource, downmix_weights, probe
from tests.support.sound import noise, sine, write_sound

pytestmark = pytest.mark.unit

FORMATS = [
    # suffix, codec, layout, rate, tolerance of the decoded sine
    ("wav", "pcm_s16le", "mono", 16_000, 1e-4),
    ("wav", "pcm_f32le", "mono", 44_100, 1e-7),
    ("wav", "pcm_f64le", "stereo", 44_100, 1e-7),
    ("wav", "pcm_u8", "mono", 8_000, 0.01),
    ("wav", "pcm_s24le", "stereo", 96_000, 1e-6),
    ("wav", "pcm_s16le", "5.1", 48_000, 1e-4),
    ("mp3", "libmp3lame", "stereo", 44_100, 0.05),
    ("m4a", "aac", "mono", 48_000, 0.05),
    ("m4a", "aac", "5.1", 48_000, 0.1),
    ("ogg", "libopus", "mono", 48_000, 0.05),
    ("flac", "flac", "mono", 22_050, 1e-4),
    ("mp4", "aac", "stereo", 44_100, 0.05),
    ("mkv", "flac", "mono", 16_000, 1e-4),
]


def read(source: FileSource | ArraySource) -> np.ndarray:
    chunks = list(source.chunks())
    assert [c.pts for c in chunks] == list(np.cumsum([0] + [c.num_samples for c in chunks[:-1]]))
    assert max(c.num_samples for c in chunks) <= source.sample_rate // 10
    return np.concatenate([c.samples_T for c in chunks])


@pytest.mark.parametrize(("suffix", "codec", "layout", "rate", "tolerance"), FORMATS)
def test_reads_every_format(
    tmp_path: Path, suffix: str, codec: str, layout: str, rate: int, tolerance: float
) -> None:
    tone = sine(rate, 1.5)
    channels = {"mono": 1, "stereo": 2, "5.1": 6}[layout]
    path = write_sound(
        tmp_path / f"tone.{suffix}",
        np.repeat(tone[None], channels, 0),
        sample_rate=rate,
        codec=codec,
        layout=layout,
        with_video=suffix == "mp4",
    )
    source = FileSource(path)
    got = read(source)
    assert source.sample_rate == rate
    assert source.info.num_channels == channels
    assert abs(len(got) - len(tone)) <= 2100  # lossy codecs pad to whole frames
    # Away from the edges, where lossy codecs ring, the wave itself must come out, in place.
    middle = slice(rate // 4, rate)
    assert np.abs(got[middle] - tone[middle]).max() < tolerance


def test_each_iteration_starts_anew(tmp_path: Path) -> None:
    source = FileSource(write_sound(tmp_path / "a.wav", sine(16_000, 0.35)[None]))
    first, second = read(source), read(source)
    assert np.array_equal(first, second)
    assert [c.num_samples for c in source.chunks()] == [1600, 1600, 1600, 800]


def test_probe_says_what_the_header_states(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", np.zeros((2, 8000), np.float32), layout="stereo")
    info = probe(path)
    assert (info.duration_s, info.sample_rate, info.num_channels) == (Fraction(1, 2), 16_000, 2)
    assert info.codec == "pcm_s16le"


def test_downmix_follows_bs775() -> None:
    weights = downmix_weights(["FL", "FR", "FC", "LFE", "BL", "BR"])
    assert weights.sum() == pytest.approx(1.0)
    assert weights[3] == 0.0
    assert weights[0] / weights[2] == pytest.approx(np.sqrt(0.5))
    assert weights[4] / weights[2] == pytest.approx(0.5)
    assert downmix_weights(["FL", "FR"]) == pytest.approx([0.5, 0.5])
    assert downmix_weights(["LFE"]) == pytest.approx([1.0])


def test_bass_channel_is_not_heard_and_centre_is(tmp_path: Path) -> None:
    tone = sine(48_000, 0.5)
    only = {}
    for index in (2, 3):
        samples = np.zeros((6, len(tone)), np.float32)
        samples[index] = tone
        path = tmp_path / f"{index}.wav"
        write_sound(path, samples, sample_rate=48_000, layout="5.1")
        only[index] = np.abs(read(FileSource(path))).max()
    assert only[3] == 0.0
    assert only[2] == pytest.approx(0.3 / (1 + np.sqrt(2) + 1), rel=1e-2)


def test_floats_over_full_scale_are_limited(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", 5 * sine(16_000, 0.2)[None], codec="pcm_f32le")
    assert np.abs(read(FileSource(path))).max() == 1.0


def test_array_source_serves_chunks() -> None:
    samples = noise(5000)
    assert np.array_equal(read(ArraySource(samples, 16_000)), samples)


@pytest.mark.parametrize("samples", [np.zeros(0, np.float32), np.zeros((2, 5), np.float32)])
def test_array_source_refuses_what_is_no_mono_sound(samples: np.ndarray) -> None:
    with pytest.raises(AudioError, match="non-empty mono"):
        ArraySource(samples, 16_000)


def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    """The chunks are copies: none keeps a long buffer alive."""
    source = FileSource(write_sound(tmp_path / "a.flac", noise(160_000)[None], codec="flac"))
    assert all(c.samples_T.base is None for c in source.chunks())


# Bad input: each maker returns the path of something that must be refused.


def _truncated(tmp_path: Path, suffix: str, codec: str, keep: float = 0.6) -> Path:
    path = write_sound(tmp_path / f"cut.{suffix}", noise(48_000)[None], codec=codec)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    return path


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _with_value(tmp_path: Path, value: float) -> Path:
    samples = sine(16_000, 1.0)
    samples[9000] = value
    return write_sound(tmp_path / "bad.wav", samples[None], codec="pcm_f32le")


def _wav_header(num_bytes: int) -> bytes:
    head = struct.pack(
        "<4sI4s4sIHHIIHH",
        b"RIFF",
        36 + num_bytes,
        b"WAVE",
        b"fmt ",
        16,
        1,
        1,
        16_000,
        32_000,
        2,
        16,
    )
    return head + struct.pack("<4sI", b"data", num_bytes)


def _only_video(tmp_path: Path) -> Path:
    import av

    path = tmp_path / "mute.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        picture = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
        output.mux([*stream.encode(picture), *stream.encode(None)])
    return path


def _fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe.wav")
    return tmp_path / "pipe.wav"


def _link(path: Path, target: Path) -> Path:
    path.symlink_to(target)
    return path


def _ten_hours(tmp_path: Path) -> Path:
    """A sparse file: ten hours of silence that take no room."""
    num_bytes = 36_000 * 32_000
    path = _write(tmp_path / "long.wav", _wav_header(num_bytes))
    os.truncate(path, path.stat().st_size + num_bytes)
    return path


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda t: t / "none.wav", "does not exist: check the path"),
    "directory": (lambda t: t, "is a directory: name a sound file"),
    "empty": (lambda t: _write(t / "a.wav", b""), r"is empty \(0 bytes\)"),
    "pipe": (_fifo, "not a regular file"),
    "endless": (lambda t: _link(t / "zero.wav", Path("/dev/zero")), "not a regular file"),
    "loop of links": (lambda t: _link(t / "a.wav", t / "a.wav"), "Too many levels"),
    "nul in the name": (lambda t: t / "a\0b.wav", "embedded null"),
    "name too long": (lambda t: t / ("n" * 300), "File name too long"),
    "text": (lambda t: _write(t / "a.mp3", b"hello\n" * 500), "no sound or video file"),
    "noise bytes": (lambda t: _write(t / "a.wav", bytes(noise(900))), "no sound or video file"),
    "header only": (lambda t: _write(t / "a.wav", _wav_header(0)), "holds no sound"),
    "playlist": (
        lambda t: _write(
            t / "a.m3u8",
            b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n"
            + str(
                write_sound(t / "a.aac", sine(16_000, 1)[None], codec="aac", container="adts")
            ).encode()
            + b"\n#EXT-X-ENDLIST\n",
        ),
        "playlist|no sound or video file",
    ),
    "video without sound": (_only_video, "no sound in it"),
    "truncated s16 wav": (lambda t: _truncated(t, "wav", "pcm_s16le"), "cut off at 1.8 s"),
    "truncated f32 wav": (lambda t: _truncated(t, "wav", "pcm_f32le"), "cut off at 1.8 s"),
    "truncated aiff": (lambda t: _truncated(t, "aiff", "pcm_s16be"), "cut off at 1.8 s of 3.0 s"),
    "truncated flac": (lambda t: _truncated(t, "flac", "flac"), "cut off|damaged"),
    "truncated mp3": (lambda t: _truncated(t, "mp3", "libmp3lame"), "cut off at"),
    "truncated m4a": (lambda t: _truncated(t, "m4a", "aac"), "no sound or video file"),
    "truncated wav header": (
        lambda t: _write(t / "a.wav", _wav_header(32_000)[:30]),
        "no sound or video file|holds no sound",
    ),
    "nan": (lambda t: _with_value(t, np.nan), "NaN or infinite samples near 0.[45] s"),
    "inf": (lambda t: _with_value(t, -np.inf), "NaN or infinite"),
    "integers as floats": (lambda t: _with_value(t, 20_000.0), "scale floats to -1..1"),
    "ten hours": (_ten_hours, "lasts 36000 s, the limit is 14400 s"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_naming_the_file_and_the_remedy(tmp_path: Path, case: str) -> None:
    make, message = BAD[case]
    path = make(tmp_path)
    with pytest.raises(AudioError, match=message) as caught:
        read(FileSource(path))
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    assert ":" in text.replace(str(path), "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_is_refused(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", sine(16_000, 0.2)[None])
    path.chmod(0)
    with pytest.raises(AudioError, match="check its permissions"):
        FileSource(path)


def test_permission_error_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> NoReturn:
        raise PermissionError(13, "Permission denied")

    path = write_sound(tmp_path / "a.wav", sine(16_000, 0.2)[None])
    monkeypatch.setattr("audio.source.av.open", refuse)
    with pytest.raises(AudioError, match="check its permissions"):
        FileSource(path)


def test_a_length_that_no_header_states_is_limited_while_decoding(tmp_path: Path) -> None:
    data = bytearray(write_sound(tmp_path / "a.wav", noise(48_000)[None]).read_bytes())
    data[4:8] = b"\xff\xff\xff\xff"
    at = data.index(b"data") + 4
    data[at : at + 4] = b"\xff\xff\xff\xff"
    path = _write(tmp_path / "piped.wav", bytes(data))
    assert len(read(FileSource(path))) == 48_000  # a WAV written to a pipe is whole
    source = FileSource(path)
    source.max_seconds = 2.0
    with pytest.raises(AudioError, match="goes on, the limit is 2 s"):
        read(source)


@pytest.mark.parametrize("keep", [0.0, 0.05, 0.3, 0.7, 0.97])
@pytest.mark.parametrize(
    ("suffix", "codec"), [("m4a", "aac"), ("flac", "flac"), ("ogg", "libopus")]
)
def test_any_cut_is_read_or_refused_never_worse(
    tmp_path: Path, suffix: str, codec: str, keep: float
) -> None:
    path = _truncated(tmp_path, suffix, codec, keep)
    try:
        num_samples = len(read(FileSource(path)))
    except AudioError:
        num_samples = None
    assert num_samples is None or num_samples > 0
