"""Puts speech features on the video's frame grid with integer arithmetic: no drift at any rate.

Video frame j stands at the time j / fps and takes the nearest feature frame,
floor(j * rate / fps + 1/2), a tie going to the later one. Rates are fractions, so 30000/1001 is
exact after any number of hours.

Shape legend: L = layers, C = channels, T = frames.
"""

from fractions import Fraction

import torch

from audio.encoder import AudioFeatures


def num_frames(num_samples: int, sample_rate: int, fps: Fraction) -> int:
    """Video frames that sound of `num_samples` lasts: ceil(seconds * fps), so no sound is cut off.

    Frame j is shown from j / fps on; the frames are those with j / fps < num_samples / sample_rate.

    Raises:
        ValueError: a rate is not positive, or the number of samples is negative.
    """
    _check_rate("sample_rate", sample_rate)
    _check_rate("fps", fps)
    if num_samples < 0:
        raise ValueError(f"num_samples must be at least 0, got {num_samples}")
    return -(-num_samples * fps.numerator // (sample_rate * fps.denominator))


def feature_index(frame: int, rate: Fraction, fps: Fraction) -> int:
    """The feature frame nearest to a video frame's time."""
    step = rate / fps
    return (2 * frame * step.numerator + step.denominator) // (2 * step.denominator)


def _check_rate(name: str, rate: Fraction | int) -> None:
    """Refuse a rate that is no rate."""
    if rate <= 0:
        raise ValueError(f"{name} must be positive, got {rate}")


class Aligner:
    """Turns the features of a stream into one feature vector per video frame.

    What comes out are `AudioFeatures` again, with the video's rate and the index of the first
    video frame. Holds no feature that a later video frame does not need.
    """

    def __init__(self, rate: Fraction | int, fps: Fraction | int) -> None:
        """Map features of `rate` per second to `fps` video frames per second.

        Raises:
            ValueError: a rate is not positive.
        """
        _check_rate("rate", rate)
        _check_rate("fps", fps)
        self.rate = Fraction(rate)
        self.fps = Fraction(fps)
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next features start a stream."""
        self._next_frame = 0
        self._end = 0
        self._kept_LCT: torch.Tensor | None = None

    def push(self, features: AudioFeatures) -> AudioFeatures:
        """Take the next features; return the video frames that they complete (maybe none).

        An encoder's very last feature may complete one frame that begins where the sound ends:
        `num_frames` says how many to show.

        Raises:
            ValueError: features of another rate, or not following the last ones.
        """
        if features.rate != self.rate:
            raise ValueError(f"features have rate {features.rate}, expected {self.rate}")
        if features.start != self._end:
            raise ValueError(f"features start at {features.start}, expected {self._end}")
        kept = features.values_LCT
        if self._kept_LCT is not None:
            kept = torch.cat([self._kept_LCT, kept], dim=-1)
        self._end = features.end
        return self._take(kept, self._num_ready() - self._next_frame)

    def flush(self, total_frames: int) -> AudioFeatures:
        """Return the rest of `total_frames` video frames and reset.

        Frames beyond the last feature repeat it: the grids may end half a feature apart.

        Raises:
            ValueError: frames are wanted but no feature ever came.
        """
        if self._end == 0 and total_frames > 0:
            raise ValueError(f"no features came for {total_frames} frames: push features first")
        if self._kept_LCT is None:
            return AudioFeatures(values_LCT=torch.zeros(1, 1, 0), rate=self.fps, start=0)
        frames = self._take(self._kept_LCT, max(0, total_frames - self._next_frame))
        self.reset()
        return frames

    def _num_ready(self) -> int:
        """Video frames, from the start, whose feature index lies before `_end`.

        floor(j * s + 1/2) < end  <=>  j < (end - 1/2) / s, with s = rate / fps.
        """
        step = self.rate / self.fps
        return max(0, -(-(2 * self._end - 1) * step.denominator // (2 * step.numerator)))

    def _take(self, kept: torch.Tensor, count: int) -> AudioFeatures:
        """Gather the next `count` frames and let go of features no longer needed."""
        first = self._end - kept.shape[-1]
        start, self._next_frame = self._next_frame, self._next_frame + count
        wanted = [
            min(feature_index(j, self.rate, self.fps), self._end - 1) - first
            for j in range(start, self._next_frame)
        ]
        index = torch.tensor(wanted, dtype=torch.int64, device=kept.device)
        values = kept.index_select(-1, index)
        # The last feature stays, for a flush to repeat.
        needed = min(feature_index(self._next_frame, self.rate, self.fps), self._end - 1)
        self._kept_LCT = kept[..., max(0, needed - first) :].clone()
        return AudioFeatures(values_LCT=values, rate=self.fps, start=start)

    def export_state(self) -> dict[str, torch.Tensor]:
        """Everything needed to go on elsewhere."""
        kept = torch.zeros(0) if self._kept_LCT is None else self._kept_LCT.clone()
        return {"position": torch.tensor([self._next_frame, self._end]), "kept_LCT": kept}

    def import_state(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from what `export_state` gave."""
        self._next_frame, self._end = (int(value) for value in state["position"])
        kept = state["kept_LCT"]
        self._kept_LCT = kept.clone() if kept.ndim == 3 else None
