"""An MP4 that grows while it is made and ends as an ordinary fast-start file.

While recording, a fragmented MP4 grows in `.<name>.part.mp4` beside the target: any player opens
it, and a crash loses no more than the last fragment. `close` copies its packets, not re-encoded,
into `.<name>.tmp.mp4` with the index in front (`+faststart`), and renames that over the target, so
the target's name never holds an unfinished file.

Time. Frame n is at n / fps; sample n at n / sample_rate. H.264 has exactly the frames given. AAC
codes 1024 samples at a time after 1024 samples of priming: an edit list hides the priming, so that
sound and picture both start at 0, and the track's duration ends it after the last sample given.
Decoders that ignore durations see up to 1023 samples of silence more.

Memory. Encoded packets wait for the other stream for at most 10 s of media time (libavformat's
interleaving limit) and are then written as they are: whoever feeds all sound first gets a correct
file that interleaves worse. The final copy keeps an index of about 0.1 kB a packet.

The same calls give the same bytes: fixed number of encoder threads, no dates, no version tags.
The bytes differ between versions of FFmpeg and x264.

Shape legend: T = frames or samples, H = height, W = width, C = channels.
"""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import av
import numpy as np
import numpy.typing as npt
from av.container import OutputContainer
from av.packet import Packet

from video.chunk import VideoChunk
from video.errors import RecordError
from video.mp4 import (
    CRF,
    FRAGMENTED,
    PRESET,
    audio_stream,
    copy_fast_start,
    encodable,
    mp4_writer,
    timescale,
    video_stream,
)
from video.output_file import OutputFile

AAC_SAMPLE_RATES = frozenset(
    (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
)
X264_PRESETS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast"),
    *("medium", "slow", "slower", "veryslow"),
)
_SIDE_LIMIT_PX = 8192
# FFmpeg's errors derive from OSError, ValueError or EOFError according to their number.
_FAILURES = (OSError, ValueError, av.error.FFmpegError)


class SoundChunk(Protocol):
    """What the recorder needs of a piece of sound; `audio.chunk.AudioChunk` is one."""

    @property
    def samples_T(self) -> npt.NDArray[np.float32]:  # noqa: N802  # T is the shape suffix
        """Mono samples in [-1, 1]."""

    @property
    def sample_rate(self) -> int:
        """Samples per second."""

    @property
    def pts(self) -> int:
        """Index of the first sample."""


def unfinished_paths(path: Path) -> tuple[Path, Path]:
    """The files that a recording of `path` writes beside it: the partial one, the final copy."""
    return path.with_name(f".{path.name}.part.mp4"), path.with_name(f".{path.name}.tmp.mp4")


class Mp4Recorder:
    """Writes frames and sound to one MP4 as they come; owns the files it makes beside the target.

    A context manager: leaving it closes the recording, leaving it by an exception aborts it. Not
    thread-safe. Any failure while writing aborts first, so nothing is left behind.

    Raises:
        RecordError: the target cannot be written, or sizes and rates do not fit H.264 and AAC.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        width: int,
        height: int,
        fps: Fraction,
        sample_rate: int,
        overwrite: bool = False,
        crf: int = CRF,
        preset: str = PRESET,
    ) -> None:
        """Check everything that can be checked, then create the partial file."""
        self.path = Path(path)
        self.partial_path, self._copy_path = unfinished_paths(self.path)
        self._overwrite = overwrite
        self._size = (width, height)
        self._fps = Fraction(fps)
        self._sample_rate = sample_rate
        self._name = _printable(self.path)
        self.num_frames = 0
        self.num_samples = 0
        if preset not in X264_PRESETS:
            raise RecordError(f"{self._name}: no preset {preset!r}: use {', '.join(X264_PRESETS)}")
        if not 0 <= crf <= 51:
            raise RecordError(f"{self._name}: quality (crf) {crf}: choose 0 (best) to 51")
        self._check_format()
        self._check_target()
        self._lock: int | None = self._locked_partial()
        self._output = OutputFile(self.partial_path)
        self._container: OutputContainer | None = None
        with self._failing("cannot be started"):
            self._container = mp4_writer(self._output, FRAGMENTED, self._timescale)
            self._video = video_stream(self._container, self._size, self._fps, crf, preset)
            self._audio = audio_stream(self._container, sample_rate)

    def write_video(self, chunk: VideoChunk) -> None:
        """Append frames; `chunk.pts` must continue where the last chunk ended.

        Raises:
            RecordError: wrong size or time, a closed recording, or the disk refused the data.
        """
        container = self._open_container()
        self._check_frames(chunk)
        with self._failing("cannot be written"):
            for frame_HWC in chunk.frames_THWC:
                frame = encodable(frame_HWC, self.num_frames, self._fps)
                self._mux(container, self._video.encode(frame))
                self.num_frames += 1

    def write_audio(self, chunk: SoundChunk) -> None:
        """Append sound; `chunk.pts` must continue where the last chunk ended.

        Raises:
            RecordError: wrong rate or time, a closed recording, or the disk refused the data.
        """
        container = self._open_container()
        if chunk.sample_rate != self._sample_rate or chunk.pts != self.num_samples:
            raise RecordError(
                f"{self._name}: sound at {chunk.sample_rate} Hz from sample {chunk.pts} does not "
                f"continue {self._sample_rate} Hz at sample {self.num_samples}: write it in order"
            )
        samples_CT = np.ascontiguousarray(chunk.samples_T, dtype=np.float32)[None]
        if samples_CT.shape[1] == 0:
            return
        with self._failing("cannot be written"):
            frame = av.AudioFrame.from_ndarray(samples_CT, format="fltp", layout="mono")
            frame.sample_rate = self._sample_rate
            frame.pts, frame.time_base = self.num_samples, Fraction(1, self._sample_rate)
            self._mux(container, self._audio.encode(frame))
            self.num_samples += samples_CT.shape[1]

    def close(self) -> Path:
        """Finish the file under its own name and return that; a second call does nothing more.

        Raises:
            RecordError: no frame was written, the target appeared meanwhile, or the disk is full.
        """
        if self._container is None:
            return self.path
        if self.num_frames == 0:
            self.abort()
            raise RecordError(f"{self._name}: no frame was recorded: give it at least one")
        with self._failing("cannot be finished"):
            self._mux(self._container, self._video.encode(None))
            self._mux(self._container, self._audio.encode(None) if self.num_samples else [])
            self._container.close()
            self._output.check()
            self._copy_fast_start()
            self._check_target()
            self._copy_path.replace(self.path)
        self.abort()
        return self.path

    def abort(self) -> None:
        """Stop and remove what is unfinished; harmless on a closed recording."""
        container, self._container = self._container, None
        if container is not None:
            # Closing writes a trailer; on a full disk that fails too, and nobody wants it anyway.
            with contextlib.suppress(*_FAILURES):
                container.close()
        self._output.close()
        for path in (self.partial_path, self._copy_path):
            if self._lock is not None:
                with contextlib.suppress(OSError):  # someone else's folder of that name
                    path.unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        """The recorder itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close, or abort when an exception is on its way out."""
        if kind is None:
            self.close()
        else:
            self.abort()

    def _open_container(self) -> OutputContainer:
        if self._container is None:
            raise RecordError(f"{self._name}: the recording is closed: start another one")
        return self._container

    def _check_format(self) -> None:
        """Refuse what H.264 in 4:2:0 or AAC cannot hold."""
        width, height = self._size
        if self.path.suffix.lower() != ".mp4":
            raise RecordError(f"{self._name}: only .mp4 is written: end the output's name in .mp4")
        if width % 2 or height % 2:
            raise RecordError(
                f"{self._name}: {width}x{height} is odd: H.264 needs an even width and height"
            )
        if not (16 <= width <= _SIDE_LIMIT_PX and 16 <= height <= _SIDE_LIMIT_PX):
            raise RecordError(
                f"{self._name}: {width}x{height} is out of range: "
                f"choose sides of 16 to {_SIDE_LIMIT_PX} pixels"
            )
        if not 1 <= self._fps <= 240:
            raise RecordError(f"{self._name}: {self._fps} frames per second: choose 1 to 240")
        if self._sample_rate not in AAC_SAMPLE_RATES:
            raise RecordError(
                f"{self._name}: AAC has no {self._sample_rate} Hz: resample the sound to 48000 Hz"
            )

    def _check_target(self) -> None:
        """Refuse a target that is a folder, has no folder, or would be overwritten unasked."""
        try:
            if self.path.is_dir():
                raise RecordError(f"{self._name}: is a folder: name a file ending in .mp4 in it")
            if not self.path.parent.is_dir():
                raise RecordError(
                    f"{self._name}: the folder {_printable(self.path.parent)} does not exist: "
                    "create it or choose another output"
                )
            # A link counts as well, wherever it leads: a rename would replace it.
            exists = self.path.is_symlink() or self.path.exists()
            if exists and not self._overwrite:
                raise RecordError(f"{self._name}: exists already: pass --overwrite to replace it")
            if self.path.exists() and not self.path.is_file():
                raise RecordError(f"{self._name}: is not a regular file: choose another output")
        except OSError as error:
            raise RecordError(self._failure("cannot be written", error)) from error

    def _locked_partial(self) -> int:
        """Create the partial file and lock it against a second recorder of the same target."""
        descriptor = -1
        # A link laid in its place is not followed: what it leads to would be emptied.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(self.partial_path, flags, 0o666)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise OSError(errno.EEXIST, f"{self.partial_path} is in the way")
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise RecordError(
                f"{self._name}: is being recorded by another process: choose another output"
            ) from error
        except (OSError, ValueError) as error:
            raise RecordError(self._failure("cannot be written", error)) from error
        return descriptor

    def _check_frames(self, chunk: VideoChunk) -> None:
        """Refuse frames of another size or from another time."""
        width, height = self._size
        if chunk.frames_THWC.shape[1:] != (height, width, 3):
            raise RecordError(
                f"{self._name}: frames of shape {chunk.frames_THWC.shape} do not fit "
                f"{width}x{height} RGB: resize them before recording"
            )
        if chunk.pts * chunk.time_base * self._fps != self.num_frames:
            raise RecordError(
                f"{self._name}: frames from {chunk.pts * chunk.time_base} s do not continue at "
                f"frame {self.num_frames} of {self._fps} per second: write them in order"
            )

    @property
    def _timescale(self) -> int:
        """Ticks a second of the file's own clock."""
        return timescale(self._sample_rate, self._fps)

    def _mux(self, container: OutputContainer, packets: "Iterable[Packet[Any]]") -> None:
        for packet in packets:
            container.mux(packet)
        self._output.check()

    def _copy_fast_start(self) -> None:
        """Copy the partial file's packets into a file whose index is in front."""
        self._copy_path.unlink(missing_ok=True)  # left by a crash, or a link that would be followed
        kinds = ("video", "audio") if self.num_samples else ("video",)
        copy_fast_start(self.partial_path, self._copy_path, self._timescale, kinds)

    @contextlib.contextmanager
    def _failing(self, what: str) -> Iterator[None]:
        """Turn a failure of encoder or disk into one line, after removing what was unfinished."""
        try:
            yield
        except RecordError:
            self.abort()
            raise
        except _FAILURES as error:
            self.abort()
            raise RecordError(self._failure(what, error)) from error

    def _failure(self, what: str, error: Exception) -> str:
        reason = getattr(error, "strerror", None) or str(error)
        return (
            f"{self._name}: {what} ({' '.join(str(reason).split())}): "
            "check free space and permissions, or choose another output"
        )


def _printable(path: Path) -> str:
    """The path as one line of text."""
    text = str(path)
    return text if text.isprintable() else repr(text)
