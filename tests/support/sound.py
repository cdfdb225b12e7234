"""Sound made by tests: signals, and files of every kind written with PyAV."""

from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import torch
from av.audio.stream import AudioStream

from audio.chunk import AudioChunk
from audio.encoder import SpeechEncoder


def sine(sample_rate: int, seconds: float, hertz: float = 440.0) -> npt.NDArray[np.float32]:
    """A sine of amplitude 0.3."""
    times_s = np.arange(round(sample_rate * seconds)) / sample_rate
    return (0.3 * np.sin(2 * np.pi * hertz * times_s)).astype(np.float32)


def noise(num_samples: int, seed: int = 0, level: float = 0.1) -> npt.NDArray[np.float32]:
    """White noise."""
    samples = level * np.random.default_rng(seed).standard_normal(num_samples)
    return samples.astype(np.float32)


def write_sound(
    path: Path,
    samples_NT: npt.NDArray[np.float32],
    *,
    sample_rate: int = 16_000,
    codec: str = "pcm_s16le",
    layout: str = "mono",
    container: str | None = None,
    with_video: bool = False,
) -> Path:
    """Encode samples [channels, T] into a file; the suffix names the container."""
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=sample_rate, layout=layout)
        assert isinstance(stream, AudioStream)
        video = output.add_stream("mpeg4", rate=25) if with_video else None
        if video is not None:
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            picture = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            for packet in [*video.encode(picture), *video.encode(None)]:
                output.mux(packet)
        frame = av.AudioFrame.from_ndarray(samples_NT, format="fltp", layout=layout)
        frame.sample_rate, frame.pts = sample_rate, 0
        convert = av.AudioResampler(
            format=stream.format,
            layout=layout,
            rate=stream.rate,
            frame_size=stream.codec_context.frame_size or 1024,
        )
        for piece in [*convert.resample(frame), *convert.resample(None)]:
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))
    return path


def push_in_pieces(encoder: SpeechEncoder, samples: np.ndarray, cuts: list[int]) -> torch.Tensor:
    """Push 16 kHz sound in pieces; return all features and check that they leave no gap."""
    pieces, start = [], 0
    for size in [*cuts, len(samples)]:
        chunk = samples[start : start + size]
        pieces.append(encoder.push(AudioChunk(samples_T=chunk, sample_rate=16_000, pts=start)))
        start += len(chunk)
    pieces.append(encoder.flush())
    assert [p.start for p in pieces] == list(np.cumsum([0] + [p.num_frames for p in pieces[:-1]]))
    return torch.cat([p.values_LCT for p in pieces], dim=-1)
