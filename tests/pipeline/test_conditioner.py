"""The conditioner: speech and behaviour into the prior, chunk after chunk, resumable."""

from fractions import Fraction

import pytest
import torch

from pipeline.behaviour import behaviour
from pipeline.conditioner import Conditioner
from pipeline.session_state import SessionState
from video.prior import MotionPrior, MotionPriorConfig

pytestmark = pytest.mark.stream

REFERENCE = torch.randn(1, 16, 1, 8, 8, generator=torch.Generator().manual_seed(1))
AUDIO = torch.randn(1, 5, 96, generator=torch.Generator().manual_seed(2))


def prior(behaviour_channels: int) -> MotionPrior:
    torch.manual_seed(0)
    sizes = {"audio_channels": 5, "latent_channels": 16, "hidden": 8, "audio_hidden": 12}
    config = MotionPriorConfig(behaviour_channels=behaviour_channels, **sizes)
    return MotionPrior(config).eval().requires_grad_(False)


def conditioner(network: MotionPrior | None, seed: int = 4) -> Conditioner:
    fps = Fraction(25)
    return Conditioner(network, REFERENCE, frames_per_latent=4, seed=seed, fps=fps)


def test_the_prior_is_told_the_behaviour_of_each_frame() -> None:
    network = prior(3)
    streamed = conditioner(network)
    made = torch.cat([streamed.push(AUDIO[..., s : s + 12]) for s in range(0, 96, 12)], dim=1)
    drive = torch.cat((AUDIO, behaviour(4, 0, 96, Fraction(25))[None]), dim=1)
    whole = network(drive, REFERENCE, network.initial_past(1, drive))[0]
    torch.testing.assert_close(made, whole, atol=1e-5, rtol=1e-5)


def test_a_prior_without_behaviour_hears_the_speech_alone() -> None:
    network = prior(0)
    one, other = conditioner(network, seed=1), conditioner(network, seed=2)
    assert torch.equal(one.push(AUDIO), other.push(AUDIO))
    network = prior(3)
    one, other = conditioner(network, seed=1), conditioner(network, seed=2)
    assert not torch.equal(one.push(AUDIO), other.push(AUDIO))


def test_an_exported_session_goes_on_blinking_where_it_was() -> None:
    network = prior(3)
    first, twin = conditioner(network), conditioner(network)
    first.push(AUDIO[..., :48])
    twin.import_state(SessionState.of({"c": first.export_state()}).part("c"))
    assert torch.equal(first.push(AUDIO[..., 48:]), twin.push(AUDIO[..., 48:]))


def test_a_model_without_prior_is_conditioned_on_nothing() -> None:
    cond_CTHW = conditioner(None).push(AUDIO[..., :12])
    assert cond_CTHW.shape == (16, 3, 8, 8)
    assert not cond_CTHW.any()
