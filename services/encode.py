"""Encoder contexts of our own: pictures to VP8 or H.264, sound to Opus, ready to be sent live.

aiortc's encoders rebuild themselves at every bitrate change, know no limit for the size of a
keyframe and run once per viewer. These run once per stream: no look-ahead, one thread, keyframes
only when asked for and never larger than about a third of a second at the target bitrate.

Shape legend: H, W, C = rows, columns, RGB; T = samples.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, cast

import av
import numpy as np
import numpy.typing as npt
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, VideoReformatter

VideoCodec = Literal["VP8", "H264"]
VIDEO_CODECS: tuple[VideoCodec, ...] = ("VP8", "H264")
VIDEO_RATE = 90_000
VIDEO_TIME_BASE = Fraction(1, VIDEO_RATE)
SOUND_RATE = 48_000
SOUND_TIME_BASE = Fraction(1, SOUND_RATE)
PACKET_MS = 20
PACKET_SAMPLES = SOUND_RATE * PACKET_MS // 1000
MIN_BITRATE_BPS, MAX_BITRATE_BPS = 100_000, 8_000_000

# A keyframe that cannot be asked for again is a broken picture: far away, but not never.
_KEYFRAME_INTERVAL = 3000
_VBV_S = 0.2
_SMPTE170M = 6  # BT.601, what browsers take small pictures without a word about colour for
_Y_OF_BT601 = 5

_NAMES: dict[VideoCodec, str] = {"VP8": "libvpx", "H264": "libx264"}


@dataclass(frozen=True, slots=True)
class Packed:
    """One encoded picture or 20 ms of sound.

    `pts` counts in `time_base`: 1/90000 s for pictures, 1/48000 s for sound, from the same zero.
    """

    data: bytes
    pts: int
    time_base: Fraction
    is_keyframe: bool = False

    def packet(self) -> "av.Packet[Any]":
        """The same as PyAV's packet."""
        packet = av.Packet(self.data)
        packet.pts = self.pts
        packet.time_base = self.time_base
        return packet


def default_bitrate_bps(width: int, height: int, fps: Fraction) -> int:
    """A face that fills the picture needs an eighth of a bit per pixel; small ones more."""
    return clamp_bitrate(max(300_000, int(width * height * fps / 8)))


def clamp_bitrate(bitrate_bps: int) -> int:
    """The nearest bitrate that the encoders take."""
    return max(MIN_BITRATE_BPS, min(MAX_BITRATE_BPS, bitrate_bps))


class VideoEncoder:
    """Encodes the pictures of one stream; the size may change between pictures."""

    def __init__(
        self,
        codec: VideoCodec,
        *,
        fps: Fraction,
        bitrate_bps: int | None = None,
        max_side_px: int | None = None,
    ) -> None:
        """Prepare; the first picture opens the encoder. Without a bitrate the size decides.

        Pictures with a side over `max_side_px` are encoded smaller.

        Raises:
            ValueError: the codec is unknown, or the rate is not positive.
        """
        if codec not in _NAMES:
            raise ValueError(f"codec {codec!r} is unknown: choose one of {', '.join(_NAMES)}")
        if fps <= 0:
            raise ValueError(f"fps must be positive, got {fps}")
        self.codec, self.fps, self.max_side_px = codec, fps, max_side_px
        self.bitrate_bps = None if bitrate_bps is None else clamp_bitrate(bitrate_bps)
        self.num_opened = 0
        self._context: VideoCodecContext | None = None
        self._opened_bps = 0
        self._reformatter = VideoReformatter()

    def encode(
        self, picture_HWC: npt.NDArray[np.uint8], pts: int, *, keyframe: bool = False
    ) -> Packed:
        """Encode one picture (uint8 RGB, even sides); `pts` in 1/90000 s must rise.

        Raises:
            ValueError: the picture has another form.
        """
        width, height = fitted_size(*_checked_size(picture_HWC), self.max_side_px)
        context = self._context_for(width, height)
        frame = self._reformatter.reformat(
            av.VideoFrame.from_ndarray(picture_HWC, format="rgb24"),
            width=width,
            height=height,
            format="yuv420p",
            dst_colorspace=_Y_OF_BT601,
            dst_color_range=ColorRange.MPEG,
            # Else every stream gets a thread per core, which live until they are collected.
            threads=1,
        )
        frame.pts, frame.time_base = pts, VIDEO_TIME_BASE
        frame.pict_type = PictureType.I if keyframe else PictureType.NONE
        packets = context.encode(frame)
        return Packed(
            data=b"".join(bytes(packet) for packet in packets),
            pts=pts,
            time_base=VIDEO_TIME_BASE,
            is_keyframe=any(packet.is_keyframe for packet in packets),
        )

    def set_bitrate(self, bitrate_bps: int) -> None:
        """Aim at another bitrate from the next picture on.

        H.264 changes in place. libvpx through FFmpeg cannot, and H.264 above the bitrate that its
        buffer was opened for cannot: there the encoder is opened anew, which costs a keyframe.
        """
        self.bitrate_bps = clamp_bitrate(bitrate_bps)
        if self._context is None:
            return
        if self.codec == "H264" and self.bitrate_bps <= self._opened_bps:
            self._context.bit_rate = self.bitrate_bps
        elif self.bitrate_bps != self._opened_bps:
            self._context = None

    def _context_for(self, width: int, height: int) -> VideoCodecContext:
        """The open encoder of this size."""
        context = self._context
        if context is None or (context.width, context.height) != (width, height):
            context = self._context = self._open(width, height)
            self.num_opened += 1
        return context

    def _open(self, width: int, height: int) -> VideoCodecContext:
        """A new encoder; its first picture is a keyframe."""
        bitrate_bps = self.bitrate_bps or default_bitrate_bps(width, height, self.fps)
        self._opened_bps = bitrate_bps
        context = cast(VideoCodecContext, av.CodecContext.create(_NAMES[self.codec], "w"))
        context.width, context.height = width, height
        context.pix_fmt = "yuv420p"
        context.bit_rate = bitrate_bps
        context.framerate = self.fps
        context.time_base = VIDEO_TIME_BASE
        context.gop_size = _KEYFRAME_INTERVAL
        context.thread_count = 1
        context.color_range = ColorRange.MPEG
        context.colorspace = context.color_primaries = context.color_trc = _SMPTE170M
        if self.codec == "H264":
            context.options = _h264_options(bitrate_bps)
        else:
            context.qmin, context.qmax = 2, 56
            context.options = _vp8_options(bitrate_bps)
        return context


def _checked_size(picture_HWC: npt.NDArray[np.uint8]) -> tuple[int, int]:
    """Width and height of what can be encoded."""
    shape = picture_HWC.shape
    if picture_HWC.dtype != np.uint8 or len(shape) != 3 or shape[2] != 3:
        raise ValueError(f"a picture must be uint8 HxWx3, got {picture_HWC.dtype} of {shape}")
    if shape[0] % 2 or shape[1] % 2 or not shape[0] or not shape[1]:
        raise ValueError(f"a picture needs even sides, got {shape[1]}x{shape[0]}")
    return shape[1], shape[0]


def fitted_size(width: int, height: int, max_side_px: int | None) -> tuple[int, int]:
    """The even size of the same shape whose longer side is at most so long."""
    longest = max(width, height)
    if max_side_px is None or longest <= max_side_px:
        return width, height
    return (
        max(2, width * max_side_px // longest // 2 * 2),
        max(2, height * max_side_px // longest // 2 * 2),
    )


def _h264_options(bitrate_bps: int) -> dict[str, str]:
    """Fast, no delay, a small buffer that caps keyframes, and parameter sets with each of them."""
    return {
        "preset": "superfast",
        "profile": "baseline",
        "tune": "zerolatency",
        "maxrate": str(bitrate_bps),
        "bufsize": str(int(bitrate_bps * _VBV_S)),
        "forced-idr": "1",
        "x264-params": "repeat-headers=1:scenecut=0:sliced-threads=0",
    }


def _vp8_options(bitrate_bps: int) -> dict[str, str]:
    """Real time, constant bitrate, a lost picture harms no entropy state, capped keyframes."""
    return {
        "deadline": "realtime",
        "cpu-used": "-6",
        "lag-in-frames": "0",
        "error-resilient": "default",
        "minrate": str(bitrate_bps),
        "maxrate": str(bitrate_bps),
        # FFmpeg makes of it the buffer in ms: bufsize * 1000 / bit_rate.
        "bufsize": str(bitrate_bps),
        "max-intra-rate": "900",  # percent of an average picture
        "undershoot-pct": "95",
        "overshoot-pct": "15",
        "static-thresh": "1",
    }


class OpusEncoder:
    """Encodes mono sound at 48 kHz as packets of exactly 20 ms, with in-band error correction."""

    def __init__(self, bitrate_bps: int = 40_000) -> None:
        """Open the encoder."""
        context = av.CodecContext.create("libopus", "w")
        context.bit_rate = bitrate_bps
        context.format = "s16"
        context.layout = "mono"
        context.sample_rate = SOUND_RATE
        context.time_base = SOUND_TIME_BASE
        context.options = {
            "application": "voip",
            "frame_duration": str(PACKET_MS),
            "fec": "1",
            "packet_loss": "10",
            "compression_level": "5",
        }
        self._context = context

    def encode(self, samples_T: npt.NDArray[np.int16], pts: int) -> list[Packed]:
        """Encode 960 samples whose first stands at `pts`; the packet that completes (one).

        A packet's pts is that of the first sample a decoder gives for it: libopus looks ahead by
        6.5 ms, so that it lies 312 samples before `pts`.

        Raises:
            ValueError: another number of samples.
        """
        if samples_T.shape != (PACKET_SAMPLES,) or samples_T.dtype != np.int16:
            raise ValueError(
                f"a packet takes {PACKET_SAMPLES} int16 samples, got {samples_T.dtype} "
                f"of {samples_T.shape}"
            )
        frame = av.AudioFrame.from_ndarray(samples_T[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, pts, SOUND_TIME_BASE
        return [
            Packed(data=bytes(packet), pts=cast(int, packet.pts), time_base=SOUND_TIME_BASE)
            for packet in self._context.encode(frame)
        ]


# RFC 6716 section 3.1: samples at 48 kHz of one frame, by configuration number.
_OPUS_FRAME_SAMPLES = [480, 960, 1920, 2880] * 3 + [480, 960] * 2 + [120, 240, 480, 960] * 4


def opus_duration_ms(data: bytes) -> float:
    """How long the sound of an Opus packet is, read from its first bytes (RFC 6716, 3.1 and 3.2).

    Raises:
        ValueError: the packet is too short.
    """
    if not data:
        raise ValueError("an Opus packet must not be empty")
    count_code = data[0] & 3
    if count_code == 3 and len(data) < 2:
        raise ValueError("an Opus packet of many frames must say how many")
    num_frames = {0: 1, 1: 2, 2: 2}.get(count_code) or data[1] & 0x3F
    return _OPUS_FRAME_SAMPLES[data[0] >> 3] * num_frames * 1000 / SOUND_RATE
