"""A film that grows part by part and can be watched meanwhile; nothing is encoded again.

The pictures are packets of parts (video/part.py), the sound those of one file for all of it. What
grows is a fragmented MP4; `finish` makes an ordinary one of it, its index in front.
"""

import contextlib
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
from av.container import OutputContainer
from av.packet import Packet

from video.mp4 import FRAGMENTED, copy_fast_start, mp4_writer, timescale
from video.output_file import OutputFile
from video.text_track import Words


class GrowingFilm:
    """Joins parts in order into a film at `path`; a context manager that lets go of its files.

    Raises (all methods):
        OSError: the disk refused the data, or a part cannot be read.
    """

    def __init__(self, path: Path, sound: Path, *, fps: Fraction, sample_rate: int) -> None:
        """Begin anew with the sound of a file; nothing is at `path` before the first part."""
        self.path = path
        self._fps = fps
        self._ticks_per_s = timescale(sample_rate, fps)
        self._sound = av.open(str(sound))
        self._sound_packets = self._read_sound()
        self._waiting: Packet[Any] | None = next(self._sound_packets, None)
        self._output = OutputFile(path)
        self._container: OutputContainer | None = None
        self._video: Any = None
        self._audio: Any = None
        self.num_frames = 0

    def _read_sound(self) -> "Iterator[Packet[Any]]":
        for packet in self._sound.demux(self._sound.streams.audio[0]):
            if packet.dts is not None:
                yield packet

    def append(self, part: Path, num_frames: int) -> None:
        """Take the next part, which holds `num_frames` pictures, with its sound."""
        with av.open(str(part)) as reader:
            stream = reader.streams.video[0]
            container = self._container or self._started(stream)
            for packet in reader.demux(stream):
                if packet.dts is None or packet.pts is None or packet.time_base is None:
                    continue
                shift = int(self.num_frames / self._fps / packet.time_base)
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                self._mux_sound(container, packet.dts * packet.time_base)
                packet.stream = self._video
                container.mux(packet)
                self._output.check()
        self.num_frames += num_frames

    def _started(self, template: Any) -> OutputContainer:
        """The container, whose pictures are of the first part's kind."""
        self._container = mp4_writer(self._output, FRAGMENTED, self._ticks_per_s)
        self._video = self._container.add_stream_from_template(template)
        self._audio = self._container.add_stream_from_template(self._sound.streams.audio[0])
        return self._container

    def _mux_sound(self, container: OutputContainer, until_s: Fraction | None) -> None:
        """Write the sound before a time, or all that is left."""
        while (packet := self._waiting) is not None:
            if packet.dts is None or packet.time_base is None:
                raise AssertionError("packets without time are left out")
            if until_s is not None and packet.dts * packet.time_base > until_s:
                return
            packet.stream = self._audio
            container.mux(packet)
            self._waiting = next(self._sound_packets, None)

    def finish(self, target: Path, words: Words | None = None) -> None:
        """End the film and put it at `target` in one step, with its index in front."""
        if self._container is None:
            raise OSError(f"{self.path}: no part was joined: give at least one")
        self._mux_sound(self._container, None)
        self._container.close()
        self._output.check()
        copy = target.with_name(f".{target.name}.tmp.mp4")
        copy_fast_start(self.path, copy, self._ticks_per_s, words=words)
        with copy.open("rb") as file:
            os.fsync(file.fileno())
        copy.replace(target)

    def close(self) -> None:
        """Let go of the files; harmless twice."""
        if self._container is not None:
            with contextlib.suppress(OSError, ValueError, av.error.FFmpegError):
                self._container.close()
        self._output.close()
        self._sound.close()

    def __enter__(self) -> Self:
        """The film itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of the files."""
        self.close()
