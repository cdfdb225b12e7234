"""What all our MP4s have in common: H.264 in BT.709, mono AAC, and a muxer that hides no error.

The same calls give the same bytes: fixed number of encoder threads, no dates, no version tags.

Shape legend: H = height, W = width, C = channels.
"""

import math
from collections import deque
from collections.abc import Collection
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from video.output_file import OutputFile
from video.text_track import Words, add_captions, add_chapters

CRF, PRESET = 18, "veryfast"
KEYFRAME_SECONDS = 2
FRAGMENTED = {"movflags": "frag_keyframe+delay_moov+default_base_moof", "flush_packets": "1"}
FAST_START = {"movflags": "faststart"}
_BT709 = 1
_LIMITED_RANGE = 1


def timescale(sample_rate: int, fps: Fraction) -> int:
    """Ticks a second in which both frames and samples are whole, where 32 bits can hold it."""
    ticks = math.lcm(sample_rate, fps.numerator)
    return ticks if ticks < 2**31 else sample_rate


def encodable(frame_HWC: npt.NDArray[np.uint8], number: int, fps: Fraction) -> av.VideoFrame:
    """An RGB picture as H.264 takes it, shown at `number / fps`."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC), format="rgb24")
    frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
    frame.pts, frame.time_base = number, 1 / fps
    return frame


def video_stream(
    container: OutputContainer,
    size: tuple[int, int],
    fps: Fraction,
    crf: int = CRF,
    preset: str = PRESET,
) -> VideoStream:
    """An H.264 stream in BT.709, a keyframe (and with it a fragment) every two seconds."""
    # The number of threads changes the bytes; two is what the smallest machine has.
    stream = container.add_stream(
        "libx264", rate=fps, options={"crf": str(crf), "preset": preset, "threads": "2"}
    )
    stream.width, stream.height = size
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.gop_size = round(fps * KEYFRAME_SECONDS)
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = _LIMITED_RANGE
    return stream


def audio_stream(container: OutputContainer, sample_rate: int) -> AudioStream:
    """A mono AAC stream with bits for the bandwidth: 4 per sample, at least 32 kb/s."""
    stream = container.add_stream("aac", rate=sample_rate, layout="mono", format="fltp")
    stream.codec_context.bit_rate = min(192_000, max(32_000, 4 * sample_rate))
    return stream


def mp4_writer(output: OutputFile, options: dict[str, str], timescale: int) -> OutputContainer:
    """An MP4 to write, without dates and version tags, its own clock ticking `timescale` a second.

    The default of 1000 would round the lengths of the tracks to milliseconds.
    """
    fixed = {"fflags": "bitexact", "movie_timescale": str(timescale)}
    return av.open(
        output, "w", format="mp4", options={**options, **fixed}, io_open=output.open_again
    )


def copy_fast_start(
    source: Path,
    target: Path,
    ticks_per_s: int,
    kinds: Collection[str] = ("video", "audio"),
    words: Words | None = None,
) -> None:
    """Copy a finished recording's packets, not re-encoded, into a file whose index is in front.

    Raises:
        OSError: the disk refused the data.
    """
    words = words or Words()
    output = OutputFile(target)
    with (
        output,
        av.open(str(source)) as reader,
        mp4_writer(output, FAST_START, ticks_per_s) as writer,
    ):
        wanted = [stream for stream in reader.streams if stream.type in kinds]
        copies = {s.index: writer.add_stream_from_template(s) for s in wanted}
        captions = deque(add_captions(writer, words.captions))
        add_chapters(writer, words.chapters)
        for packet in reader.demux(wanted):
            if packet.dts is None or packet.time_base is None:
                continue  # the demuxer's end marker has none
            _mux_until(writer, captions, packet.dts * packet.time_base)
            packet.stream = copies[packet.stream.index]
            writer.mux(packet)
            output.check()
        writer.close()
        output.check()


def _mux_until(writer: OutputContainer, packets: "deque[Packet[Any]]", time_s: Fraction) -> None:
    """Write the captions that begin before a time; those after the film's end are left out."""
    while packets and (packets[0].pts or 0) * (packets[0].time_base or 1) <= time_s:
        writer.mux(packets.popleft())
