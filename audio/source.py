"""Where sound comes from: any file that PyAV opens, or an array, as bounded mono chunks.

Memory stays constant however long the file is. Channels are mixed to mono as ITU-R BS.775 does
(front left and right -3 dB, centre 0 dB, surrounds -6 dB, LFE dropped), the weights scaled to the
sum 1 so that nothing clips. The rate stays that of the source.

A broken file is refused, not half rendered: a packet that the container marks as cut off, a packet
that does not decode, or an end short of the length that the header states exactly. Formats that
state none (ogg, raw AAC, MP3 without a Xing tag) are taken for whole where they end.

Shape legend: T = samples, N = channels.
"""

import math
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer

from audio.chunk import AudioChunk
from audio.errors import AudioError

DEFAULT_MAX_SECONDS = 4 * 3600.0
CHUNKS_PER_SECOND = 10
# Headers of these state the exact length; elsewhere it may be an estimate from the bit rate.
_EXACT_LENGTH = frozenset({"wav", "w64", "aiff", "au", "caf", "flac"})
_SHORTFALL_S = Fraction(1, 10)
# Floats beyond this are not sound slightly over full scale but integers stored as floats.
_MAX_MAGNITUDE = 100.0
_CONVERT = "export it again, for instance as 16-bit WAV"
_ROOT_HALF = math.sqrt(0.5)
_WEIGHTS = {"FL": _ROOT_HALF, "FR": _ROOT_HALF, "FC": 1.0, "LFE": 0.0, "LFE2": 0.0}
_SURROUND_WEIGHT = 0.5


class AudioSource(Protocol):
    """Sound as a stream of chunks that follow each other without gap, pts starting at 0."""

    @property
    def sample_rate(self) -> int:
        """Samples per second."""
        ...

    def chunks(self) -> Iterator[AudioChunk]:
        """Iterate from the start, each time anew."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioInfo:
    """What a file says about its sound; `duration_s` is None where the header states none."""

    path: Path
    sample_rate: int
    num_channels: int
    codec: str
    duration_s: Fraction | None


def probe(path: str | Path) -> AudioInfo:
    """Read the header of a sound or video file and decode its first samples.

    Raises:
        AudioError: the file cannot be read or holds no sound; one line with the remedy.
    """
    path = Path(path)
    with _open(path) as container:
        stream = _audio_stream(container, path)
        for frame in _frames(container, stream, path):
            return AudioInfo(
                path=path,
                sample_rate=frame.sample_rate,
                num_channels=frame.layout.nb_channels,
                codec=stream.codec_context.name,
                duration_s=_declared_s(container, stream),
            )
    raise AudioError(f"{path} holds no sound (zero length): give a recording of some speech")


class ArraySource:
    """Samples already in memory."""

    def __init__(self, samples_T: npt.NDArray[np.float32], sample_rate: int) -> None:
        """Serve mono float32 samples.

        Raises:
            AudioError: the samples are empty, not one-dimensional, or not finite.
        """
        if samples_T.ndim != 1 or len(samples_T) == 0:
            raise AudioError(f"samples of shape {samples_T.shape}: give a non-empty mono array")
        self._samples_T = _checked(samples_T.astype(np.float32), "the sample array", 0.0)
        self.sample_rate = sample_rate

    def chunks(self) -> Iterator[AudioChunk]:
        """Iterate from the start, each time anew."""
        return _rechunk(iter([self._samples_T]), self.sample_rate)


class FileSource:
    """The sound of a file."""

    def __init__(self, path: str | Path, *, max_seconds: float = DEFAULT_MAX_SECONDS) -> None:
        """Open the file far enough to know that it holds sound, and close it again.

        Raises:
            AudioError: as `probe`, or the stated length is beyond `max_seconds`.
        """
        self.path = Path(path)
        self.max_seconds = max_seconds
        self.info = probe(self.path)
        duration_s = self.info.duration_s
        if duration_s is not None and duration_s > max_seconds:
            raise self._too_long(f"lasts {float(duration_s):.0f} s")

    @property
    def sample_rate(self) -> int:
        """Samples per second."""
        return self.info.sample_rate

    def chunks(self) -> Iterator[AudioChunk]:
        """Decode from the start, each time anew, in constant memory.

        Raises (while iterating):
            AudioError: the file is cut off or damaged, changes its rate, holds values that are not
                finite, or goes on beyond `max_seconds`.
        """
        return _rechunk(self._decode(), self.sample_rate)

    def _decode(self) -> Iterator[npt.NDArray[np.float32]]:
        """Mono samples as the decoder gives them."""
        num_samples = 0
        with _open(self.path) as container:
            stream = _audio_stream(container, self.path)
            for frame in _frames(container, stream, self.path):
                at_s = num_samples / self.sample_rate
                if frame.sample_rate != self.sample_rate:
                    raise AudioError(
                        f"{self.path} changes its sample rate at {at_s:.1f} s: {_CONVERT}"
                    )
                num_samples += frame.samples
                if num_samples > self.max_seconds * self.sample_rate:
                    raise self._too_long("goes on")
                yield _checked(to_mono(frame), str(self.path), at_s)
            if not num_samples:
                raise AudioError(f"{self.path} holds no sound any more: keep it while it is read")
            self._check_end(container, stream, Fraction(num_samples, self.sample_rate))

    def _check_end(
        self, container: InputContainer, stream: AudioStream, decoded_s: Fraction
    ) -> None:
        """Refuse an end short of the stated length."""
        declared_s = _declared_s(container, stream)
        if declared_s is None or not _states_length_exactly(container, self.path):
            return
        if decoded_s < declared_s - _SHORTFALL_S:
            raise AudioError(
                f"{self.path} is cut off at {float(decoded_s):.1f} s of {float(declared_s):.1f} s: "
                "copy the file again"
            )

    def _too_long(self, how: str) -> AudioError:
        """The error for sound beyond the limit."""
        return AudioError(
            f"{self.path} {how}, the limit is {self.max_seconds:.0f} s: "
            "cut it into parts or raise the limit"
        )


def to_mono(frame: AudioFrame) -> npt.NDArray[np.float32]:
    """Mix a decoded frame of any sample format and layout to mono float32."""
    samples = frame.to_ndarray()
    num_channels = frame.layout.nb_channels
    samples_NT = samples if frame.format.is_planar else samples.reshape(-1, num_channels).T
    if samples.dtype.kind == "u":
        samples_NT = (samples_NT.astype(np.float32) - 128.0) / 128.0
    elif samples.dtype.kind == "i":
        samples_NT = samples_NT * np.float32(2.0 ** (1 - 8 * samples.dtype.itemsize))
    if num_channels == 1:
        return np.asarray(samples_NT[0], np.float32)
    names = [channel.name for channel in frame.layout.channels]
    mono_T: npt.NDArray[np.float32] = downmix_weights(names) @ samples_NT.astype(np.float32)
    return mono_T


def downmix_weights(names: list[str]) -> npt.NDArray[np.float32]:
    """Weight of each channel in the mono mix, sum 1; channels without a place count the same."""
    weights = np.array([_WEIGHTS.get(name, _SURROUND_WEIGHT) for name in names], np.float32)
    if weights.sum() == 0:
        weights[:] = 1.0
    weights /= weights.sum()
    return weights


def _open(path: Path) -> InputContainer:
    """Open a regular file with the file protocol only.

    Raises:
        AudioError: there is no such file, or it is no sound or video file.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise AudioError(f"{path} is a directory: name a sound file in it")
        if not stat.S_ISREG(status.st_mode):
            raise AudioError(f"{path} is not a regular file: save the sound to a file first")
        if status.st_size == 0:
            raise AudioError(f"{path} is empty (0 bytes): record or copy it again")
        container = av.open(str(path.resolve()), options={"protocol_whitelist": "file"})
    except FileNotFoundError:
        raise AudioError(f"{path} does not exist: check the path") from None
    except PermissionError:
        raise AudioError(f"{path} may not be read: check its permissions") from None
    except AudioError:
        raise
    except (av.FFmpegError, OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise AudioError(
            f"{path} is no sound or video file that can be read ({_reason(error)}): {_CONVERT}"
        ) from None
    if container.format.name in ("hls", "concat", "dash", "sdp"):
        container.close()
        raise AudioError(f"{path} is a playlist: name the sound file itself")
    return container


def _reason(error: Exception) -> str:
    """What an error of the system or of FFmpeg says, without number and path."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _audio_stream(container: InputContainer, path: Path) -> AudioStream:
    """The stream to listen to.

    Raises:
        AudioError: there is none.
    """
    stream = container.streams.best("audio")
    if not isinstance(stream, AudioStream):
        raise AudioError(f"{path} has no sound in it: give a file with an audio track")
    return stream


def _frames(container: InputContainer, stream: AudioStream, path: Path) -> Iterator[AudioFrame]:
    """Decode a stream.

    Raises:
        AudioError: a packet is cut off or does not decode.
    """
    decoded_s = 0.0
    try:
        for packet in container.demux(stream):
            if packet.is_corrupt and not _is_streamed_wav(container, path):
                raise AudioError(f"{path} is cut off at {decoded_s:.1f} s: copy the file again")
            for frame in packet.decode():
                if not isinstance(frame, AudioFrame) or frame.samples == 0:
                    continue
                decoded_s += frame.samples / frame.sample_rate
                yield frame
    except av.FFmpegError as error:
        raise AudioError(
            f"{path} is damaged at {decoded_s:.1f} s ({_reason(error)}): "
            f"copy the file again, or {_CONVERT}"
        ) from None


def _is_streamed_wav(container: InputContainer, path: Path) -> bool:
    """Whether a WAV was written to a pipe: its header could not know the length."""
    if container.format.name != "wav":
        return False
    with path.open("rb") as file:
        return file.read(8)[4:] in (b"\xff\xff\xff\xff", b"\x00\x00\x00\x00")


def _states_length_exactly(container: InputContainer, path: Path) -> bool:
    """Whether the stated length is a count of samples rather than an estimate."""
    if container.format.name == "mp3":
        with path.open("rb") as file:
            head = file.read(1 << 18)
        return b"Xing\0\0\0" in head or b"Info\0\0\0" in head
    return container.format.name in _EXACT_LENGTH and not _is_streamed_wav(container, path)


def _declared_s(container: InputContainer, stream: AudioStream) -> Fraction | None:
    """The length that the header states, in seconds."""
    if stream.duration is not None and stream.time_base is not None:
        return stream.duration * stream.time_base
    return None if container.duration is None else Fraction(container.duration, av.time_base)


def _checked(
    samples_T: npt.NDArray[np.float32], name: str, start_s: float
) -> npt.NDArray[np.float32]:
    """Return samples limited to full scale.

    Raises:
        AudioError: a value is NaN, infinite, or so large that the scale must be wrong.
    """
    peak = np.abs(samples_T).max(initial=0.0)
    if not np.isfinite(peak):
        raise AudioError(f"{name} holds NaN or infinite samples near {start_s:.1f} s: {_CONVERT}")
    if peak > _MAX_MAGNITUDE:
        raise AudioError(f"{name} holds samples up to {peak:.0f}: scale floats to -1..1")
    return np.clip(samples_T, -1.0, 1.0) if peak > 1.0 else samples_T


def _rechunk(pieces: Iterator[npt.NDArray[np.float32]], sample_rate: int) -> Iterator[AudioChunk]:
    """Cut pieces of any length into chunks of a tenth of a second; the last may be shorter."""
    size = max(1, sample_rate // CHUNKS_PER_SECOND)
    pts = 0
    pending_T = np.zeros(0, np.float32)
    for piece_T in pieces:
        pending_T = np.concatenate([pending_T, piece_T])
        whole = len(pending_T) - len(pending_T) % size
        for start in range(0, whole, size):
            samples_T = pending_T[start : start + size].copy()
            yield AudioChunk(samples_T=samples_T, sample_rate=sample_rate, pts=pts)
            pts += size
        pending_T = pending_T[whole:]
    if len(pending_T):
        yield AudioChunk(samples_T=pending_T.copy(), sample_rate=sample_rate, pts=pts)
