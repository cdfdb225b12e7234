"""A stretch of pictures as an MP4 of its own, to be joined with others without re-encoding.

Each part is made by a fresh encoder, begins with a keyframe and refers to nothing outside.

Shape legend: T = frames.
"""

import contextlib
from fractions import Fraction
from pathlib import Path

import av

from video.chunk import VideoChunk
from video.mp4 import FAST_START, encodable, mp4_writer, video_stream
from video.output_file import OutputFile


class PartWriter:
    """Writes one part; the same pictures give the same bytes.

    Raises (all methods):
        OSError: the disk refused the data.
    """

    def __init__(self, path: Path, *, size: tuple[int, int], fps: Fraction) -> None:
        """Create the file, of width and height `size`."""
        self._fps = fps
        self.num_frames = 0
        self._output = OutputFile(path)
        self._container = mp4_writer(self._output, FAST_START, fps.numerator)
        self._stream = video_stream(self._container, size, fps)

    def write(self, chunk: VideoChunk) -> None:
        """Append pictures."""
        for frame_HWC in chunk.frames_THWC:
            frame = encodable(frame_HWC, self.num_frames, self._fps)
            self._mux(frame)
            self.num_frames += 1

    def _mux(self, frame: av.VideoFrame | None) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)
        self._output.check()

    def close(self) -> None:
        """Finish the file."""
        try:
            self._mux(None)
            self._container.close()
            self._output.check()
        finally:
            self._output.close()

    def abandon(self) -> None:
        """Let go of an unfinished file, which is worth nothing."""
        with contextlib.suppress(OSError, ValueError, av.error.FFmpegError):
            self._container.close()
        self._output.close()
