"""What a model must reach before it is shipped, by the name of the measured figure."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, slots=True)
class Gate:
    """The range a figure must lie in."""

    low: float = -inf
    high: float = inf

    def admits(self, value: float) -> bool:
        """Whether the value is in the range; NaN never is."""
        return self.low <= value <= self.high


GATES: Mapping[str, Mapping[str, Gate]] = {
    "codec": {
        "opening_corr": Gate(low=0.95),
        "opening_amplitude": Gate(low=0.9),
        "lids_left": Gate(high=0.25),
        "mouth_hidden_error_of_copy": Gate(high=0.5),
        "eyes_hidden_error_of_copy": Gate(high=0.5),
        "psnr_db": Gate(low=30.0),
        "mouth_sharpness": Gate(low=0.8),
    },
    "speech": {
        "opening_corr": Gate(low=0.8),
        "lag_frames": Gate(low=-1, high=1),
        "opening_amplitude": Gate(low=0.7, high=1.3),
        "press_closed_share": Gate(low=0.8),
        "rounding_corr": Gate(low=0.5),
        "wrong_sound_corr": Gate(high=0.2),
    },
    "recording": {
        "envelope_corr": Gate(low=0.5),
        "pause_opening_share": Gate(high=0.25),
    },
    "long": {
        "background_drift_levels": Gate(high=2.0),
        "face_colour_drift_levels": Gate(high=4.0),
        "identity_loss_db": Gate(high=1.0),
        "blinks_per_minute": Gate(low=8.0, high=25.0),
        "pop_ratio": Gate(high=1.2),
    },
    "hours": {
        "last_minute_speed": Gate(low=0.95),
        "memory_growth_mb": Gate(high=50.0),
        "identity_drift_growth": Gate(high=1.5),
        "colour_drift_growth": Gate(high=1.5),
    },
    "clips": {
        "opening_corr": Gate(low=0.8),
        "lag_frames": Gate(low=-1, high=1),
        "identity_from_portrait": Gate(high=0.05),
        "sharpness_of_portrait": Gate(low=0.6),
        "face_colour_drift_levels": Gate(high=4.0),
        "flicker_levels": Gate(high=1.5),
    },
    "clips_reference": {
        "opening_corr_change": Gate(low=-0.03),
        "psnr_db": Gate(low=30.0),
        "ssim": Gate(low=0.9),
    },
    "video": {
        "identity_drift": Gate(high=0.03),
        "face_colour_drift_levels": Gate(high=4.0),
        "flicker_levels": Gate(high=1.5),
        "sharpness_kept": Gate(low=0.85),
        "face_lost_share": Gate(high=0.05),
    },
    "video_sound": {
        "sync_corr": Gate(low=0.4),
        "sync_lag_ms": Gate(low=-80.0, high=80.0),
        "frozen_share": Gate(high=0.1),
    },
    "video_truth": {
        "truth_corr": Gate(low=0.7),
        "truth_lag_ms": Gate(low=-60.0, high=60.0),
    },
    "video_portrait": {
        "identity_from_portrait": Gate(high=0.05),
        "sharpness_of_portrait": Gate(low=0.6),
    },
    "video_reference": {
        "psnr_db": Gate(low=30.0),
        "ssim": Gate(low=0.9),
    },
}


def missed(kind: str, figures: Mapping[str, float]) -> list[str]:
    """Return the names of the figures of a kind that are outside their gates, or not measured."""
    gates = GATES[kind].items()
    return [name for name, gate in gates if not gate.admits(figures.get(name, float("nan")))]
