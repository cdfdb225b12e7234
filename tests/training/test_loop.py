"""Training runs stop and go on as if they had not stopped."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from training.loop import Trainer, export, run_until

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
