"""What every training run shares: a deadline, a learning-rate curve, averaged weights, resuming.

Runs are resumable slices: state (weights, average, optimizer, step) is kept in one safetensors
file and one JSON file, so no pickles; a run continues where its folder stopped.
"""

import argparse
import json
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn


@dataclass(slots=True, kw_only=True)
class Trainer:
    """AdamW with warm-up and cosine decay, an exponential average and a log, for named modules.

    `modules` maps a name to a module; only parameters that require grad are trained. `total`
    steps shape the curve. State lives in `folder`.
    """

    folder: Path
    modules: nn.ModuleDict
    total: int
    peak_rate: float
    warmup: int = 50
    average_decay: float = 0.995
    step: int = 0
    optimizer: torch.optim.AdamW = field(init=False)
    average: dict[str, torch.Tensor] = field(init=False)
    _sums: dict[str, float] = field(init=False, default_factory=dict)
    _since: int = field(init=False, default=0)
    _clock: float = field(init=False, default_factory=time.monotonic)

    def __post_init__(self) -> None:
        """Create the optimizer and resume from the folder if it holds a run."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.optimizer = torch.optim.AdamW(
            self.parameters(), lr=self.peak_rate, betas=(0.9, 0.98), weight_decay=1e-4
        )
        self.average = {n: p.detach().clone() for n, p in self.trained()}
        if (self.folder / "state.json").exists():
            self._resume()

    def parameters(self) -> list[nn.Parameter]:
        """Return the parameters being trained."""
        return [p for p in self.modules.parameters() if p.requires_grad]

    def trained(self) -> Iterable[tuple[str, nn.Parameter]]:
        """Return the parameters being trained with their names."""
        return ((n, p) for n, p in self.modules.named_parameters() if p.requires_grad)

    def rate(self) -> float:
        """Return the learning rate of the current step."""
        if self.step < self.warmup:
            return self.peak_rate * (self.step + 1) / self.warmup
        share = min(1.0, (self.step - self.warmup) / max(1, self.total - self.warmup))
        return self.peak_rate * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * share)))

    def update(self, loss: torch.Tensor, parts: dict[str, float]) -> None:
        """Take one optimizer step on `loss`, follow it with the average, and log every 50."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        nn.utils.clip_grad_norm_(self.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        decay = min(self.average_decay, self.step / (self.step + 10.0))
        with torch.no_grad():
            for name, parameter in self.trained():
                self.average[name].lerp_(parameter, 1.0 - decay)
        self._log(parts)

    def _log(self, parts: dict[str, float]) -> None:
        for name, value in parts.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._since += 1
        if self._since < 50:
            return
        now = time.monotonic()
        record = {name: round(value / self._since, 5) for name, value in self._sums.items()}
        record |= {"step": self.step, "s_per_step": round((now - self._clock) / self._since, 3)}
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(record) + "\n")
        self._sums, self._since, self._clock = {}, 0, now

    def save(self) -> None:
        """Write the run's state so that a new process can continue it."""
        tensors = {f"model.{n}": p.detach() for n, p in self.modules.state_dict().items()}
        tensors |= {f"average.{n}": a for n, a in self.average.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            for key in ("exp_avg", "exp_avg_sq"):
                tensors[f"optimizer.{index}.{key}"] = state[key]
        partial = self.folder / "state.partial"
        save_file({n: t.contiguous().clone() for n, t in tensors.items()}, partial)
        partial.replace(self.folder / "state.safetensors")
        (self.folder / "state.json").write_text(json.dumps({"step": self.step}))

    def _resume(self) -> None:
        tensors = load_file(self.folder / "state.safetensors")
        model = {n[6:]: t for n, t in tensors.items() if n.startswith("model.")}
        self.modules.load_state_dict(model)
        self.average = {n[8:]: t for n, t in tensors.items() if n.startswith("average.")}
        self.step = int(json.loads((self.folder / "state.json").read_text())["step"])
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = tensor
        for values in state.values():
            values["step"] = torch.tensor(float(self.step))
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})

    def averaged(self) -> dict[str, torch.Tensor]:
        """Return the modules' state with averaged parameters in place of the latest ones."""
        return self.modules.state_dict() | self.average


def run_until(trainer: Trainer, minutes: float) -> Iterable[int]:
    """Yield steps until `total` or the deadline; save every two minutes and at the end."""
    start = saved = time.monotonic()
    while trainer.step < trainer.total and time.monotonic() - start < minutes * 60.0:
        yield trainer.step
        if time.monotonic() - saved > 120.0:
            trainer.save()
            saved = time.monotonic()
    trainer.save()


def add_run_options(parser: argparse.ArgumentParser, *, steps: int, batch: int) -> None:
    """Add the options that every training program has, with this program's defaults."""
    parser.add_argument("--run", type=Path, required=True, help="folder of the run's state and log")
    parser.add_argument("--out", type=Path, default=None, help="where to export the weights")
    parser.add_argument("--steps", type=int, default=steps, help="steps of the whole run")
    parser.add_argument("--minutes", type=float, default=1e9, help="end this slice after so long")
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--seed", type=int, default=0)


def export(state: dict[str, torch.Tensor], prefix: str, path: Path) -> None:
    """Write one module's weights, halved to bfloat16 where they are floating point."""
    tensors = {
        name.removeprefix(prefix): tensor.to(torch.bfloat16).contiguous()
        for name, tensor in state.items()
        if name.startswith(prefix)
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    path.chmod(0o644)  # weights are for everybody who can read the folder
