"""Decides frame by frame whether someone speaks, over a stream cut anyhow.

The decision itself is `audio.activity_rule`.

Shape legend: T = samples or frames.
"""

from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import torch

from audio.activity_rule import ActivityConfig, ActivityState, level_db, next_state
from audio.chunk import AudioChunk
from audio.encoder import ChunkClock

__all__ = ["ActivityConfig", "ActivityDetector", "ActivityState", "level_db", "next_state"]


class ActivityDetector:
    """Speech or silence for every frame of a stream; the cut of the stream does not matter."""

    def __init__(self, sample_rate: int, config: ActivityConfig | None = None) -> None:
        """Start before the first sample; whole frames of `frame_ms`, rounded down to samples.

        Raises:
            ValueError: the rate is so low that a frame holds no sample.
        """
        self.config = config or ActivityConfig()
        self.frame_samples = sample_rate * self.config.frame_ms // 1000
        if self.frame_samples < 1:
            raise ValueError(f"a rate of {sample_rate} Hz leaves no sample in a frame")
        self._clock = ChunkClock(sample_rate)
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next chunk starts a stream."""
        self.state = ActivityState(floor_db=self.config.floor_start_db)
        self._pending_T = np.zeros(0, np.float32)
        self._clock.reset()

    @property
    def speaking(self) -> bool:
        """Whether the last whole frame counted as speech."""
        return self.state.speaking

    def push(self, chunk: AudioChunk) -> npt.NDArray[np.bool_]:
        """Take the next sound; return the decision for every frame that it completes.

        Raises:
            AudioError: a sample is NaN or infinite.
            ValueError: another sample rate, or a gap in the stream.
        """
        self._clock.check(chunk)
        samples_T = np.concatenate([self._pending_T, chunk.samples_T])
        whole = len(samples_T) - len(samples_T) % self.frame_samples
        self._pending_T = samples_T[whole:]
        decisions = []
        for start in range(0, whole, self.frame_samples):
            level = level_db(samples_T[start : start + self.frame_samples])
            self.state = next_state(self.state, level, self.config)
            decisions.append(self.state.speaking)
        return np.array(decisions, dtype=np.bool_)

    def export_state(self) -> dict[str, torch.Tensor]:
        """Everything needed to go on elsewhere."""
        values = [float(value) for value in asdict(self.state).values()]
        return {
            "state": torch.tensor(values, dtype=torch.float64),
            "pending_T": torch.from_numpy(self._pending_T.copy()),
            "clock": self._clock.export_state(),
        }

    def import_state(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from what `export_state` gave."""
        floor_db, loud_frames, hangover_left = state["state"].tolist()
        self.state = ActivityState(
            floor_db=floor_db, loud_frames=int(loud_frames), hangover_left=int(hangover_left)
        )
        self._pending_T = state["pending_T"].cpu().numpy().copy()
        self._clock.import_state(state["clock"])
