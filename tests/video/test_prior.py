"""The prior: causal, streaming equals whole, no head motion of its own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from video.errors import WeightsError
from video.head_pose import POSE_CHANNELS
from video.prior import MotionPrior, MotionPriorConfig

pytestmark = pytest.mark.stream


@pytest.fixture(scope="module")
def prior() -> MotionPrior:
    torch.manual_seed(0)
    config = MotionPriorConfig(audio_channels=5, latent_channels=16, hidden=8, audio_hidden=12)
    return MotionPrior(config).eval().requires_grad_(False)


@settings(max_examples=10, deadline=None)
@given(cut=st.integers(1, 5))
def test_any_cut_gives_the_latents_of_the_whole(prior: MotionPrior, cut: int) -> None:
    audio = torch.randn(1, 5, 24, generator=torch.Generator().manual_seed(cut))
    reference = torch.randn(1, 16, 1, 8, 8, generator=torch.Generator().manual_seed(9))
    past = prior.initial_past(1, audio)
    whole = prior(audio, reference, past)
    first, second = audio[..., : 4 * cut], audio[..., 4 * cut :]
    parts = [
        prior(first, reference, past),
        prior(second, reference, prior.next_past(first, past)),
    ]
    torch.testing.assert_close(torch.cat(parts, dim=2), whole, atol=1e-5, rtol=1e-5)


def test_later_sound_does_not_change_earlier_motion(prior: MotionPrior) -> None:
    audio = torch.randn(1, 5, 16)
    reference, past = torch.randn(1, 16, 1, 8, 8), prior.initial_past(1, audio)
    changed = audio.clone()
    changed[..., 8:] += 1.0
    before, after = prior(audio, reference, past), prior(changed, reference, past)
    torch.testing.assert_close(before[:, :, :2], after[:, :, :2])
    assert float((before[:, :, 2:] - after[:, :, 2:]).abs().max()) > 0


def test_the_head_stays_still(prior: MotionPrior) -> None:
    audio = torch.randn(2, 5, 8)
    made = prior(audio, torch.randn(2, 16, 1, 8, 8), prior.initial_past(2, audio))
    assert made.shape == (2, 16, 2, 8, 8)
    assert torch.count_nonzero(made[:, :POSE_CHANNELS]) == 0


def test_unknown_config_fields_are_named() -> None:
    with pytest.raises(WeightsError, match="hiden"):
        MotionPriorConfig.from_dict({"hiden": 8})
