"""What every training run shares: a deadline, a learning-rate curve, averaged weights, resuming.

Runs are resumable slices: state (weights, average, optimizer, step) is kept in one safetensors
file, so no pickles; a run continues where its folder stopped. Chance is drawn anew for every step
from (seed, step), so a run that was cut equals one that was not.
"""

import json
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from training.curves import HELD_OUT, LOG, draw_curves
from training.errors import InputError
from training.interrupt import Interrupt
from training.progress import step_progress
from training.stored import load_tensors

LOG_EVERY_STEPS = 50
SAVE_EVERY_S = 120.0
STATE = "state.safetensors"


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
        self.begin_average()
        if (self.folder / STATE).exists():
            self._resume(load_tensors(self.folder / STATE))

    def begin_average(self) -> None:
        """Let the average begin at the weights as they are."""
        self.average = {n: p.detach().clone() for n, p in self._named()}

    def parameters(self) -> list[nn.Parameter]:
        """Return the parameters being trained."""
        return [p for p in self.modules.parameters() if p.requires_grad]

    def _named(self) -> Iterable[tuple[str, nn.Parameter]]:
        return ((n, p) for n, p in self.modules.named_parameters() if p.requires_grad)

    def rate(self) -> float:
        """Return the learning rate of the current step."""
        if self.step < self.warmup:
            return self.peak_rate * (self.step + 1) / self.warmup
        share = min(1.0, (self.step - self.warmup) / max(1, self.total - self.warmup))
        return self.peak_rate * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * share)))

    def update(self, loss: torch.Tensor, parts: dict[str, float]) -> None:
        """Take one optimizer step on `loss`, follow it with the average, and log every 50.

        Raises:
            InputError: the loss is no number any more.
        """
        if not bool(torch.isfinite(loss.detach())):
            raise InputError(
                f"{self.folder}: the loss at step {self.step} is not finite: "
                "train at a lower rate, or look for broken clips"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        nn.utils.clip_grad_norm_(self.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        decay = min(self.average_decay, self.step / (self.step + 10.0))
        with torch.no_grad():
            for name, parameter in self._named():
                self.average[name].lerp_(parameter, 1.0 - decay)
        self._log(parts)

    def _log(self, parts: dict[str, float]) -> None:
        for name, value in parts.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._since += 1
        if self._since >= LOG_EVERY_STEPS:
            self._write_log()

    def _write_log(self) -> None:
        """Write the means since the last record."""
        if not self._since:
            return
        now = time.monotonic()
        record = {name: round(value / self._since, 5) for name, value in self._sums.items()}
        record |= {"step": self.step, "s_per_step": round((now - self._clock) / self._since, 3)}
        _append(self.folder / LOG, record)
        self._sums, self._since, self._clock = {}, 0, now

    def finish(self) -> None:
        """End a slice: log what is left, save, draw."""
        self._write_log()
        self.save()
        self.draw()

    def held_out(self, figures: dict[str, float]) -> None:
        """Write what was measured on held-out data at this step, and draw the curves."""
        _append(self.folder / HELD_OUT, {"step": self.step} | figures)
        self.draw()

    def draw(self) -> None:
        """Draw the run's curves, if there is anything to see yet."""
        if any((self.folder / name).exists() for name in (LOG, HELD_OUT)):
            draw_curves(self.folder)

    def save(self) -> None:
        """Write the run's state so that a new process can continue it."""
        tensors = {f"model.{n}": p.detach() for n, p in self.modules.state_dict().items()}
        tensors |= {f"average.{n}": a for n, a in self.average.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            for key in ("exp_avg", "exp_avg_sq"):
                tensors[f"optimizer.{index}.{key}"] = state[key]
        tensors["step"] = torch.tensor(self.step)
        partial = self.folder / "state.partial"
        save_file({n: t.contiguous().clone() for n, t in tensors.items()}, partial)
        partial.replace(self.folder / STATE)

    def _resume(self, tensors: dict[str, torch.Tensor]) -> None:
        try:
            self._take(tensors)
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            raise InputError(
                f"{self.folder / STATE} belongs to another network: choose another --run, "
                "or remove that folder to begin again"
            ) from error

    def _take(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take over a saved state; names or shapes that do not fit raise what torch raises."""
        self.step = int(tensors["step"] if "step" in tensors else self._step_beside())
        model = {n[6:]: t for n, t in tensors.items() if n.startswith("model.")}
        self.modules.load_state_dict(model)
        self.average = {n: tensors[f"average.{n}"] for n, _ in self._named()}
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = tensor
        for values in state.values():
            values["step"] = torch.tensor(float(self.step))
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})

    def _step_beside(self) -> int:
        """The step of a run begun before its state carried it."""
        return int(json.loads((self.folder / "state.json").read_text())["step"])

    def averaged(self) -> dict[str, torch.Tensor]:
        """Return the modules' state with averaged parameters in place of the latest ones."""
        return self.modules.state_dict() | self.average


def _append(path: Path, record: dict[str, float]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def run_until(trainer: Trainer, minutes: float) -> Iterator[int]:
    """Yield steps until `total` or the deadline; save every two minutes and at the end.

    Ctrl-C and SIGTERM let the step end and save before they stop the run.
    """
    start = saved = time.monotonic()
    name = trainer.folder.resolve().name
    with Interrupt() as asked, step_progress(name, trainer.step, trainer.total) as show:
        while trainer.step < trainer.total and time.monotonic() - start < minutes * 60.0:
            yield trainer.step
            show(trainer.step)
            if asked:
                break
            if time.monotonic() - saved > SAVE_EVERY_S:
                trainer.save()
                trainer.draw()
                saved = time.monotonic()
        trainer.finish()
    asked.obey(
        f"{trainer.folder}: stopped and saved at step {trainer.step}; the same command goes on"
    )


def step_generator(seed: int, step: int) -> np.random.Generator:
    """Chance for one step of a run, the same whether or not the run was ever cut."""
    return np.random.default_rng((seed, step))


def seed_step(seed: int, step: int) -> torch.Generator:
    """Like `step_generator`, for torch; also seeds torch's own generator."""
    mixed = int(
        np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> np.uint64(1)
    )
    torch.manual_seed(mixed)
    return torch.Generator().manual_seed(mixed)


def export(state: dict[str, torch.Tensor], prefix: str, path: Path) -> None:
    """Write one module's weights, halved to bfloat16 where they are floating point."""
    tensors = {
        name.removeprefix(prefix): tensor.to(torch.bfloat16).contiguous()
        for name, tensor in state.items()
        if name.startswith(prefix)
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    save_file(tensors, partial)
    partial.chmod(0o644)  # weights are for everybody who can read the folder
    partial.replace(path)
