"""Sound in, one window of speech features per chunk of latents out.

Shape legend: L = layers, C = channels, T = samples or video frames.
"""

from fractions import Fraction

import numpy as np
import torch

from audio.align import Aligner
from audio.chunk import AudioChunk
from audio.encoder import AudioFeatures, SpeechEncoder
from pipeline.resume import ResumableResampler
from pipeline.session_state import SessionState

# Silence beyond the last wanted frame, so that its nearest feature exists at any rate.
PADDING_S = Fraction(1, 4)


class SpeechWindows:
    """Resamples, encodes and aligns a stream; cuts it into windows of `window_frames` frames.

    Holds less than one window of features, whatever the length of the stream.
    """

    def __init__(
        self, encoder: SpeechEncoder, *, sample_rate: int, fps: Fraction, window_frames: int
    ) -> None:
        """Take sound of `sample_rate` and give one feature vector per video frame of `fps`."""
        self._encoder = encoder
        self._resampler = ResumableResampler(sample_rate, encoder.sample_rate)
        self._aligner = Aligner(encoder.rate, fps)
        self._window_frames = window_frames
        self._num_samples = 0
        self._num_windows = 0
        self._pending_LCT = torch.zeros(encoder.num_layers, encoder.channels, 0)

    def push(self, sound: AudioChunk) -> list[torch.Tensor]:
        """Take the next sound; return every audio_LCT window that it completes."""
        placed = AudioChunk(
            samples_T=sound.samples_T, sample_rate=sound.sample_rate, pts=self._num_samples
        )
        self._num_samples += sound.num_samples
        return self._cut(self._encoder.push(self._resampler.push(placed)))

    def flush(self, total_frames: int) -> list[torch.Tensor]:
        """Return the windows missing to `total_frames`, the last one filled with silence."""
        missing = -(-total_frames // self._window_frames) - self._num_windows
        if missing <= 0:
            return []
        windows = self.push(self._silence_after(self._num_windows + missing))
        windows += self._cut(self._encoder.push(self._resampler.flush()))
        windows += self._cut(self._encoder.flush())
        return windows[:missing]

    def _silence_after(self, num_windows: int) -> AudioChunk:
        """The silence between the sound's end and the end of window `num_windows`, and a bit."""
        sample_rate = self._resampler.from_rate
        wanted_s = num_windows * self._window_frames / self._aligner.fps + PADDING_S
        count = max(0, int(wanted_s * sample_rate) - self._num_samples)
        return AudioChunk(
            samples_T=np.zeros(count, np.float32), sample_rate=sample_rate, pts=self._num_samples
        )

    def _cut(self, features: AudioFeatures) -> list[torch.Tensor]:
        """Put features on the video's frames and cut off every full window."""
        values_LCT = self._aligner.push(features).values_LCT
        pending_LCT = torch.cat([self._pending_LCT.to(values_LCT), values_LCT], dim=-1)
        full = pending_LCT.shape[-1] // self._window_frames
        *windows, rest_LCT = pending_LCT.tensor_split(
            [self._window_frames * (i + 1) for i in range(full)], dim=-1
        )
        self._pending_LCT = rest_LCT.clone()
        self._num_windows += full
        return list(windows)

    def export_state(self) -> SessionState:
        """Everything a twin needs to go on; the resampler's filter memory is part of it."""
        own = SessionState(
            tensors={"pending_LCT": self._pending_LCT},
            numbers={"num_samples": self._num_samples, "num_windows": self._num_windows},
        )
        return SessionState.of(
            {
                "own": own,
                "resampler": self._resampler.export_state(),
                "encoder": self._encoder.export_state(),
                "aligner": self._aligner.export_state(),
            }
        )

    def import_state(self, state: SessionState) -> None:
        """Go on from an export of a twin with the same rates."""
        self._resampler.import_state(state.part("resampler"))
        self._encoder.import_state(state.part("encoder").tensors)
        self._aligner.import_state(state.part("aligner").tensors)
        own = state.part("own")
        self._pending_LCT = own.tensors["pending_LCT"].clone()
        self._num_samples = own.numbers["num_samples"]
        self._num_windows = own.numbers["num_windows"]
