"""The pictures of any video file, one at a time, at a constant rate: bounded memory at any length.

Shape legend: H, W = picture, C = 3 colours.
"""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.video.stream import VideoStream

from video.errors import MovieError

MIN_SIDE_PX = 32
MAX_GAP_S = 10  # longer than this no picture stands in an honest video file
PLAYLISTS = ("hls", "concat", "dash", "sdp")
_AGAIN = "copy the file again, or export it as MP4"

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Movie:
    """A file and what its header says; `num_frames` is an estimate, None where it says nothing.

    `starts_s` is how much later than its sound, if it `has_sound`, the picture begins.
    """

    path: Path
    width: int
    height: int
    fps: Fraction
    num_frames: int | None
    has_sound: bool
    starts_s: float

    def frames(self) -> Iterator[Picture]:
        """Frames HWC in RGB as they would be seen at `fps`, each call from the start.

        Raises:
            MovieError: the file is damaged, or changes its size, or stands still for very long.
        """
        position, last = 0, None
        for at_s, frame_HWC in self._decoded():
            index = round(at_s * float(self.fps))
            if index - position > MAX_GAP_S * self.fps:
                raise MovieError(f"{self.path} has a gap of over {MAX_GAP_S} s at {at_s:.1f} s")
            while last is not None and position < index:
                yield last
                position += 1
            last = frame_HWC
        if last is not None:
            yield last

    def _decoded(self) -> Iterator[tuple[float, Picture]]:
        """Frames and their time after the first."""
        first_s: float | None = None
        with _opened(self.path) as (container, stream):
            for frame in _frames(container, stream, self.path):
                frame_HWC = _upright(frame)
                if frame_HWC.shape[:2] != (self.height, self.width):
                    raise MovieError(f"{self.path} changes its size: give a video of one size")
                at_s = 0.0 if frame.time is None else float(frame.time)
                first_s = at_s if first_s is None else first_s
                yield at_s - first_s, frame_HWC


def open_movie(path: Path) -> Movie:
    """Look at a video file.

    Raises:
        MovieError: it cannot be read or holds no video; one line with the remedy.
    """
    with _opened(path) as (container, stream):
        first = next(_frames(container, stream, path), None)
        if first is None:
            raise MovieError(f"{path} holds no picture: {_AGAIN}")
        height, width = _upright(first).shape[:2]
        if min(width, height) < MIN_SIDE_PX:
            raise MovieError(
                f"{path} is {width}x{height}: at least {MIN_SIDE_PX} pixels a side are needed to "
                "see a face"
            )
        fps = stream.average_rate or stream.guessed_rate
        if not fps or not 1 <= fps <= 240:
            raise MovieError(f"{path} has no usable frame rate ({fps}): {_AGAIN}")
        return Movie(
            path=path,
            width=width,
            height=height,
            fps=Fraction(fps),
            num_frames=_expected(container, stream, Fraction(fps)),
            has_sound=bool(container.streams.audio),
            starts_s=_start_s(stream) - _sound_start_s(container),
        )


def _upright(frame: av.VideoFrame) -> Picture:
    """The pixels of a frame as a player turns them."""
    pixels_HWC = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(pixels_HWC, frame.rotation // 90))


def _expected(container: InputContainer, stream: VideoStream, fps: Fraction) -> int | None:
    if stream.frames:
        return int(stream.frames)
    if container.duration:
        return round(container.duration * fps / av.time_base)
    return None


def _start_s(stream: Any) -> float:
    """When a stream begins; 0 where it does not say."""
    if stream.start_time is None or stream.time_base is None:
        return 0.0
    return float(stream.start_time * stream.time_base)


def _sound_start_s(container: InputContainer) -> float:
    sound = container.streams.best("audio")
    video = container.streams.video[0]
    return _start_s(video if sound is None else sound)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A regular file through the file protocol only, and its first video stream."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise MovieError(f"{path} is not a regular file: name a video file")
        container = av.open(str(path.resolve()), options={"protocol_whitelist": "file"})
    except FileNotFoundError:
        raise MovieError(f"{path} does not exist: check the path") from None
    except PermissionError:
        raise MovieError(f"{path} may not be read: check its permissions") from None
    except MovieError:
        raise
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MovieError(f"{path} is no video that can be read ({_reason(error)}): {_AGAIN}") from (
            None
        )
    with container:
        if container.format.name in PLAYLISTS or not container.streams.video:
            raise MovieError(f"{path} holds no video: give a file with pictures that move")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        yield container, stream


def _frames(container: InputContainer, stream: VideoStream, path: Path) -> Iterator[av.VideoFrame]:
    """Decoded frames.

    Raises:
        MovieError: a packet does not decode.
    """
    try:
        yield from container.decode(stream)
    except av.FFmpegError as error:
        raise MovieError(f"{path} is damaged ({_reason(error)}): {_AGAIN}") from None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
