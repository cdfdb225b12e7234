"""Give generated faces back the amplitude that learning a mean takes from them.

Networks trained by squared error estimate what is likely; of what sound leaves open they move the
mean, so mouths open less than they should. The last step's estimate of clean latents is the sum of
the prior's output and the network's, so a gain on facial components is put into both last layers,
and taken out of the condition where the network reads it.

Shape legend: C = latent channels, D = width of the network, P = values of a patch.
"""

import torch

from training.errors import InputError
from video.head_pose import POSE_CHANNELS

Weights = dict[str, torch.Tensor]


def express_prior(weights: Weights, gain: float) -> Weights:
    """Return the prior's weights with facial motion `gain` times as large."""
    return weights | {name: scaled(weights, name, gain) for name in ("out.weight", "out.bias")}


def express_dit(weights: Weights, gain: float) -> Weights:
    """Return the network's weights for a prior made larger by `express_prior`."""
    head = _named(weights, "head.head.weight")
    condition = _named(weights, "cond_encoder.weight").clone()
    condition[:, POSE_CHANNELS:] /= gain
    channels = condition.shape[1]
    # A patch's values lie channel by channel within each of its cells.
    is_face_P = torch.arange(head.shape[0]) % channels >= POSE_CHANNELS
    gain_P = torch.where(is_face_P, gain, 1.0)
    bias = _named(weights, "head.head.bias")
    return weights | {
        "cond_encoder.weight": condition,
        "head.head.weight": head * gain_P[:, None].to(head),
        "head.head.bias": bias * gain_P.to(bias),
    }


def scaled(weights: Weights, name: str, gain: float) -> torch.Tensor:
    """Return a weight times a gain."""
    return _named(weights, name) * gain


def _named(weights: Weights, name: str) -> torch.Tensor:
    """Return a weight.

    Raises:
        InputError: there is none of that name.
    """
    if name not in weights:
        raise InputError(f"no weight {name!r}: give the parts that `viva train base` left")
    return weights[name]
