"""A gain on facial motion scales what the networks say of faces, and leaves head pose alone."""

import pytest
import torch

from training.base import POCKET_DIT, predict_clean
from training.errors import InputError
from training.expression import express_dit, express_prior
from training.prior import POCKET_PRIOR
from video.dit import SpeechToVideoDiT
from video.head_pose import POSE_CHANNELS
from video.prior import MotionPrior

pytestmark = pytest.mark.train


def _random(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(tensor.shape, generator=generator) * 0.1
        for name, tensor in module.state_dict().items()
    }


def _clean(
    dit_weights: dict[str, torch.Tensor], prior_weights: dict[str, torch.Tensor]
) -> torch.Tensor:
    dit, prior = SpeechToVideoDiT(POCKET_DIT), MotionPrior(POCKET_PRIOR)
    dit.load_state_dict(dit_weights)
    prior.load_state_dict(prior_weights)
    generator = torch.Generator().manual_seed(1)
    drive = torch.randn(1, prior.drive_channels, 12, generator=generator)
    reference = torch.randn(1, 32, 1, 8, 8, generator=generator)
    noisy = torch.randn(1, 32, 3, 8, 8, generator=generator)
    with torch.inference_mode():
        cond = prior(drive, reference, prior.initial_past(1, drive))
        audio = drive[:, : POCKET_DIT.audio_dim]
        return predict_clean(dit, noisy, torch.ones(1), audio, reference, cond)


def test_faces_move_more_and_heads_as_before() -> None:
    dit, prior = _random(SpeechToVideoDiT(POCKET_DIT)), _random(MotionPrior(POCKET_PRIOR))
    plain = _clean(dit, prior)
    larger = _clean(express_dit(dit, 1.25), express_prior(prior, 1.25))
    torch.testing.assert_close(larger[:, :POSE_CHANNELS], plain[:, :POSE_CHANNELS])
    torch.testing.assert_close(
        larger[:, POSE_CHANNELS:], 1.25 * plain[:, POSE_CHANNELS:], atol=1e-4, rtol=1e-4
    )


def test_parts_of_something_else_are_refused() -> None:
    with pytest.raises(InputError, match=r"head\.head\.weight"):
        express_dit({"x": torch.zeros(1)}, 1.1)
