"""Training runs stop and go on as if they had not stopped."""

import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from training.errors import InputError
from training.loop import Trainer, export, run_until, seed_step, step_generator

pytestmark = pytest.mark.train


def _trainer(folder: Path, total: int) -> Trainer:
    torch.manual_seed(0)
    return Trainer(
        folder=folder,
        modules=nn.ModuleDict({"net": nn.Linear(3, 2)}),
        total=total,
        peak_rate=1e-2,
        warmup=2,
    )


def _train(trainer: Trainer, minutes: float, stop_at: int | None = None) -> None:
    for step in run_until(trainer, minutes):
        inputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
        loss = (trainer.modules["net"](inputs) - inputs[:, :2]).square().mean()
        trainer.update(loss, {"loss": float(loss.detach())})
        if trainer.step == stop_at:
            trainer.save()
            return


def test_a_resumed_run_equals_one_that_never_stopped(tmp_path: Path) -> None:
    whole = _trainer(tmp_path / "whole", 20)
    _train(whole, 1.0)
    _train(_trainer(tmp_path / "cut", 20), 1.0, stop_at=7)
    resumed = _trainer(tmp_path / "cut", 20)
    assert resumed.step == 7
    _train(resumed, 1.0)
    for name, tensor in whole.averaged().items():
        torch.testing.assert_close(resumed.averaged()[name], tensor, atol=1e-6, rtol=1e-6)


def test_ctrl_c_ends_the_step_and_saves_it(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, 20)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal

    def train() -> None:
        for step in run_until(trainer, 1.0):
            if step == 6:
                os.kill(os.getpid(), signal.SIGINT)
            trainer.update(trainer.modules["net"](torch.ones(1, 3)).square().mean(), {})

    try:
        with pytest.raises(KeyboardInterrupt, match="saved at step 7"):
            train()
    finally:
        signal.signal(signal.SIGINT, before)
    assert _trainer(tmp_path, 20).step == 7


def test_a_loss_that_is_no_number_is_refused_and_not_saved(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, 20)
    loss = trainer.modules["net"](torch.full((1, 3), float("nan"))).sum()
    with pytest.raises(InputError, match="step 0 is not finite"):
        trainer.update(loss, {})
    assert all(bool(torch.isfinite(p).all()) for p in trainer.parameters())


def test_chance_follows_from_seed_and_step_alone() -> None:
    first = torch.rand(3, generator=seed_step(1, 2))
    seed_step(5, 5)
    assert torch.equal(first, torch.rand(3, generator=seed_step(1, 2)))
    assert not torch.equal(first, torch.rand(3, generator=seed_step(1, 3)))
    assert step_generator(1, 2).random() != step_generator(2, 1).random()


def test_training_lowers_the_loss_and_the_average_follows(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, 300)
    before = trainer.averaged()["net.weight"].clone()
    _train(trainer, 1.0)
    inputs = torch.randn(64, 3)
    trainer.modules.load_state_dict(trainer.averaged())
    after = (trainer.modules["net"](inputs) - inputs[:, :2]).square().mean()
    assert float(after.detach()) < 0.2
    assert not torch.equal(trainer.averaged()["net.weight"], before)


def test_no_time_means_no_step(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, 10)
    _train(trainer, 0.0)
    assert trainer.step == 0
    assert (tmp_path / "state.safetensors").exists()


def test_export_keeps_one_part_in_half_the_space(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path / "run", 1)
    export(trainer.averaged(), "net.", tmp_path / "out" / "net.safetensors")
    weights = load_file(tmp_path / "out" / "net.safetensors")
    assert set(weights) == {"weight", "bias"}
    assert weights["weight"].dtype == torch.bfloat16
