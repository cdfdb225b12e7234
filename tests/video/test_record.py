"""The recorder's promises, checked by demuxing and decoding what it wrote."""

import os
import resource
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream
from av.video.stream import VideoStream
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audio.chunk import AudioChunk
from video.chunk import VideoChunk
from video.errors import RecordError
from video.record import Mp4Recorder, unfinished_paths

pytestmark = pytest.mark.unit

WIDTH, HEIGHT, FPS = 64, 48, Fraction(25)


def recorder(path: Path, **changes: Any) -> Mp4Recorder:
    options: dict[str, Any] = {"width": WIDTH, "height": HEIGHT, "fps": FPS, "sample_rate": 16000}
    return Mp4Recorder(path, **(options | changes))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def pictures(start: int, count: int, fps: Fraction = Fraction(25)) -> VideoChunk:
    """Frames of one colour with a band whose brightness is the frame's number."""
    frames = np.full((count, HEIGHT, WIDTH, 3), (200, 30, 60), np.uint8)
    for offset in range(count):
        frames[offset, HEIGHT // 2 :] = (start + offset) * 4 % 256
    return VideoChunk(frames_THWC=frames, pts=start, time_base=1 / fps)


def tone(start: int, count: int, sample_rate: int = 16000) -> AudioChunk:
    times = np.arange(start, start + count) / sample_rate
    samples = (0.5 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)
    return AudioChunk(samples_T=samples, sample_rate=sample_rate, pts=start)


def write(out: Mp4Recorder, chunk: VideoChunk | AudioChunk) -> None:
    if isinstance(chunk, VideoChunk):
        out.write_video(chunk)
    else:
        out.write_audio(chunk)


def record(path: Path, frames: int, samples: int, **changes: Any) -> Path:
    """Record interleaved pieces of a quarter of a second, then the rest of the sound."""
    with recorder(path, **changes) as out:
        fps = Fraction(changes.get("fps", 25))
        rate = int(changes.get("sample_rate", 16000))
        at, step = 0, 6
        for start in range(0, frames, step):
            count = min(step, frames - start)
            out.write_video(pictures(start, count, fps))
            piece = min(samples - at, int((start + count) * rate / fps) - at)
            out.write_audio(tone(at, piece, rate))
            at += piece
        out.write_audio(tone(at, samples - at, rate))
    return path


def time_of(frame: av.AudioFrame | av.VideoFrame) -> Fraction:
    assert frame.pts is not None
    assert frame.time_base is not None
    return frame.pts * frame.time_base


def length_of(stream: AudioStream | VideoStream) -> Fraction:
    assert stream.duration is not None
    assert stream.time_base is not None
    return stream.duration * stream.time_base


def sound_of(path: Path) -> tuple[np.ndarray, Fraction, Fraction]:
    """Decoded samples, time of the first one, and the length the track declares (seconds)."""
    with av.open(str(path)) as file:
        stream = file.streams.audio[0]
        frames = list(file.decode(stream))
        samples_T = np.concatenate([f.to_ndarray()[0] for f in frames])
        return samples_T, time_of(frames[0]), length_of(stream)


def pictures_of(path: Path) -> tuple[list[np.ndarray], list[Fraction], Fraction]:
    """Decoded RGB frames, their times, and the length the track declares (seconds)."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        frames = list(file.decode(stream))
        pictures_THWC = [f.to_ndarray(format="rgb24") for f in frames]
        return pictures_THWC, [time_of(f) for f in frames], length_of(stream)


@pytest.mark.parametrize(
    ("fps", "sample_rate", "frames", "samples"),
    [
        (Fraction(25), 16000, 130, 83_333),
        (Fraction(30000, 1001), 48000, 47, 75_000),
        (Fraction(24), 44100, 1, 100),
        (Fraction(16), 16000, 33, 33_000),
        (Fraction(25), 22050, 12, 0),
    ],
)
def test_lengths_are_exact(
    tmp_path: Path, fps: Fraction, sample_rate: int, frames: int, samples: int
) -> None:
    path = record(tmp_path / "o.mp4", frames, samples, fps=fps, sample_rate=sample_rate)
    decoded, times, length = pictures_of(path)
    assert len(decoded) == frames
    assert times == [n / fps for n in range(frames)]
    assert length == frames / fps
    with av.open(str(path)) as file:
        assert len(file.streams.audio) == (1 if samples else 0)
    if samples:
        sound, start, declared = sound_of(path)
        assert declared == Fraction(samples, sample_rate)
        assert samples <= len(sound) < samples + 1024
        assert start == 0, "sound and picture must start together"


def test_sound_is_where_it_was_put(tmp_path: Path) -> None:
    """Priming is hidden: the decoded tone has the phase of the one given, to the sample."""
    path = record(tmp_path / "o.mp4", 50, 32_000)
    sound, _, _ = sound_of(path)
    expected = tone(0, 32_000).samples_T
    middle = slice(4000, 28_000)
    assert np.abs(sound[:32_000][middle] - expected[middle]).max() < 0.02
    shifted = np.roll(expected, 3)
    assert np.abs(sound[:32_000][middle] - shifted[middle]).max() > 0.1


def test_colours_and_order_survive(tmp_path: Path) -> None:
    decoded, _, _ = pictures_of(record(tmp_path / "o.mp4", 60, 0))
    for number, frame in enumerate(decoded):
        assert np.abs(frame[8, 30].astype(int) - (200, 30, 60)).max() <= 6
        assert abs(int(frame[40, 30, 1]) - number * 4 % 256) <= 6


def test_index_comes_first_and_nothing_is_dated(tmp_path: Path) -> None:
    data = record(tmp_path / "o.mp4", 30, 19_200).read_bytes()
    assert 0 < data.find(b"moov") < data.find(b"mdat")
    assert b"moof" not in data
    assert b"Lavf" not in data
    header = data[data.find(b"mvhd") :]
    assert header[4] == 0, "32-bit times expected"
    assert header[8:16] == bytes(8), "creation and modification times must be unset"


def test_same_input_same_bytes_however_the_sound_is_cut(tmp_path: Path) -> None:
    first = record(tmp_path / "a.mp4", 70, 44_000).read_bytes()
    second = record(tmp_path / "b.mp4", 70, 44_000).read_bytes()
    assert first == second
    with recorder(tmp_path / "c.mp4") as out:
        out.write_audio(tone(0, 7))
        out.write_audio(tone(7, 43_993))
        for start in range(70):
            out.write_video(pictures(start, 1))
    sound, _, _ = sound_of(tmp_path / "c.mp4")
    assert np.array_equal(sound, sound_of(tmp_path / "a.mp4")[0])


def test_sound_far_ahead_of_the_picture_is_written_too(tmp_path: Path) -> None:
    with recorder(tmp_path / "o.mp4") as out:
        for start in range(0, 30 * 16_000, 8_000):
            out.write_audio(tone(start, 8_000))
        out.write_video(pictures(0, 20))
    _, begin, declared = sound_of(tmp_path / "o.mp4")
    assert (begin, declared) == (Fraction(0), Fraction(30))
    assert len(pictures_of(tmp_path / "o.mp4")[0]) == 20


def test_it_plays_while_it_grows(tmp_path: Path) -> None:
    out = recorder(tmp_path / "o.mp4")
    seen = 0
    for start in range(0, 300, 10):
        out.write_video(pictures(start, 10))
        out.write_audio(tone(start * 640, 6_400))
        if start in (140, 290):
            with av.open(str(out.partial_path)) as file:
                frames = sum(1 for _ in file.decode(video=0))
            with av.open(str(out.partial_path)) as file:
                samples = sum(frame.samples for frame in file.decode(audio=0))
            # At most a fragment of two seconds and the encoder's look-ahead are not there yet.
            assert frames >= start + 10 - 100
            assert frames > seen
            assert samples >= (start + 10 - 100) * 640
            seen = frames
    assert not (tmp_path / "o.mp4").exists(), "an unfinished file must not look finished"
    assert out.close() == tmp_path / "o.mp4"
    assert names(tmp_path) == ["o.mp4"]


def test_close_and_abort_are_harmless_twice(tmp_path: Path) -> None:
    out = recorder(tmp_path / "o.mp4")
    out.write_video(pictures(0, 3))
    assert out.close() == out.close()
    out.abort()
    assert names(tmp_path) == ["o.mp4"]
    with pytest.raises(RecordError, match="closed"):
        out.write_video(pictures(3, 1))
    with pytest.raises(RecordError, match="closed"):
        out.write_audio(tone(0, 1))


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_exception_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    descriptors = len(names(Path("/proc/self/fd")))

    def interrupted() -> None:
        with recorder(tmp_path / "o.mp4") as out:
            out.write_video(pictures(0, 60))
            raise error

    with pytest.raises(error):
        interrupted()
    assert names(tmp_path) == []
    assert len(names(Path("/proc/self/fd"))) == descriptors


def test_no_frame_is_refused(tmp_path: Path) -> None:
    out = recorder(tmp_path / "o.mp4")
    out.write_audio(tone(0, 4000))
    with pytest.raises(RecordError, match="no frame"):
        out.close()
    assert names(tmp_path) == []


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "o.mp4"
    path.write_bytes(b"precious")
    with pytest.raises(RecordError, match=r"o\.mp4: exists already: pass --overwrite"):
        recorder(path)
    aborted = recorder(path, overwrite=True)
    aborted.write_video(pictures(0, 3))
    aborted.abort()
    assert path.read_bytes() == b"precious"
    record(path, 5, 0, overwrite=True)
    assert len(pictures_of(path)[0]) == 5


def test_a_target_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    out = recorder(tmp_path / "o.mp4")
    out.write_video(pictures(0, 3))
    (tmp_path / "o.mp4").write_bytes(b"somebody else's")
    with pytest.raises(RecordError, match="exists already"):
        out.close()
    assert (tmp_path / "o.mp4").read_bytes() == b"somebody else's"
    assert names(tmp_path) == ["o.mp4"]


def test_two_recorders_do_not_share_a_target(tmp_path: Path) -> None:
    with recorder(tmp_path / "o.mp4") as first:
        with pytest.raises(RecordError, match="being recorded"):
            recorder(tmp_path / "o.mp4")
        first.write_video(pictures(0, 3))
    assert len(pictures_of(tmp_path / "o.mp4")[0]) == 3


def test_links_laid_in_the_way_are_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    partial, copy = unfinished_paths(tmp_path / "o.mp4")
    copy.symlink_to(precious)
    record(tmp_path / "o.mp4", 2, 0)
    partial.symlink_to(precious)
    with pytest.raises(RecordError, match="cannot be written"):
        recorder(tmp_path / "o.mp4", overwrite=True)
    assert precious.read_bytes() == b"precious"
    assert len(pictures_of(tmp_path / "o.mp4")[0]) == 2


@pytest.mark.parametrize("target", ["nowhere", "o.mp4"], ids=["dangling", "loop"])
def test_a_link_at_the_target_is_not_replaced_unasked(tmp_path: Path, target: str) -> None:
    (tmp_path / "o.mp4").symlink_to(target)
    with pytest.raises(RecordError, match="exists already"):
        recorder(tmp_path / "o.mp4")
    assert names(tmp_path) == ["o.mp4"]


def test_a_pipe_at_the_target_or_in_the_way_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "o.mp4")
    with pytest.raises(RecordError, match="not a regular file"):
        recorder(tmp_path / "o.mp4", overwrite=True)
    os.mkfifo(unfinished_paths(tmp_path / "p.mp4")[0])
    with pytest.raises(RecordError, match="is in the way"):
        recorder(tmp_path / "p.mp4")
    assert all(path.is_fifo() for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("o.mkv", {}, "only .mp4"),
        ("o", {}, "only .mp4"),
        ("missing/o.mp4", {}, "does not exist"),
        ("folder.mp4", {}, "is a folder"),
        ("file/o.mp4", {}, "does not exist"),
        ("o.mp4", {"width": 63}, "63x48 is odd"),
        ("o.mp4", {"height": 47}, "even width and height"),
        ("o.mp4", {"width": 0}, "out of range"),
        ("o.mp4", {"height": 20_000}, "out of range"),
        ("o.mp4", {"fps": Fraction(0)}, "choose 1 to 240"),
        ("o.mp4", {"fps": Fraction(1000)}, "choose 1 to 240"),
        ("o.mp4", {"sample_rate": 12345}, "AAC has no 12345 Hz"),
        ("o.mp4", {"preset": "sideways"}, "no preset 'sideways': use ultrafast"),
        ("o.mp4", {"crf": 99}, "choose 0"),
        ("n" * 250 + ".mp4", {}, "cannot be written"),
        ("a\x00b.mp4", {}, "cannot be written|does not exist"),
    ],
)
def test_bad_targets_get_one_line_and_leave_nothing(
    tmp_path: Path, name: str, changes: dict[str, object], message: str
) -> None:
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RecordError, match=message) as caught:
        recorder(tmp_path / name, **changes)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["file", "folder.mp4"]


@pytest.mark.parametrize(
    "chunk",
    [
        VideoChunk(frames_THWC=np.zeros((1, 8, 8, 3), np.uint8), pts=0, time_base=Fraction(1, 25)),
        pictures(1, 1),
        pictures(1, 1, Fraction(30)),
        tone(1, 10),
        tone(0, 10, 8000),
    ],
)
def test_chunks_that_do_not_fit_are_refused(tmp_path: Path, chunk: VideoChunk | AudioChunk) -> None:
    out = recorder(tmp_path / "o.mp4")
    with pytest.raises(RecordError, match=r"o\.mp4"):
        write(out, chunk)
    out.abort()
    assert names(tmp_path) == []


FULL_DISK = """
import resource, sys
sys.path[:0] = sys.argv[3:]
import numpy as np
from fractions import Fraction
from video.chunk import VideoChunk
from video.errors import RecordError
from video.record import Mp4Recorder
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
noise = np.random.default_rng(0)
try:
    with Mp4Recorder(sys.argv[1], width=64, height=48, fps=Fraction(25), sample_rate=16000) as out:
        for start in range(0, 200, 10):
            frames = noise.integers(0, 256, (10, 48, 64, 3), dtype=np.uint8)
            out.write_video(VideoChunk(frames_THWC=frames, pts=start, time_base=Fraction(1, 25)))
except RecordError as error:
    print(f"{out.num_frames} frames: {error}")
    sys.exit(2)
"""


@pytest.mark.parametrize("limit_bytes", [0, 2_000, 200_000])
def test_a_disk_that_fills_gets_one_line_and_leaves_nothing(
    tmp_path: Path, limit_bytes: int
) -> None:
    """The writes really fail: the kernel refuses to let any file grow past the limit."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "o.mp4"), str(limit_bytes), root]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.count("\n")) == (2, 1), done.stderr
    assert "o.mp4: cannot be" in done.stdout
    assert "check free space" in done.stdout
    assert done.stderr == ""
    assert names(tmp_path) == []


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(frames=st.integers(1, 40), samples=st.integers(1, 30_000))
def test_any_lengths_are_kept(tmp_path: Path, frames: int, samples: int) -> None:
    path = record(tmp_path / "o.mp4", frames, samples, overwrite=True)
    assert pictures_of(path)[2] == Fraction(frames, 25)
    assert sound_of(path)[2] == Fraction(samples, 16_000)
