"""The network of a stage as each step's adapter makes it: one adapter at a time.

An adapter is a file in the model's folder, `adapters/NAME.safetensors` or PEFT's folder
`adapters/NAME`, or any file by its path. It is merged into a copy that shares all other weights
with the network, or works beside the weights where copies would be large. Which of the two depends
on the size of the adapted weights alone, so that cuts and placements do not change the numbers;
only a process whose steps all have one adapter merges a large one too, into its own network.

Source: AlignHuman (one adapter for each segment of the noise schedule).
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import PlanError
from pipeline.segments import ADAPTER_SUFFIX, is_adapter_path
from video.lora import LoraSwitch, merge_into, merged_copy
from video.lora_file import LoraFile, read_lora, require_fit

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from pipeline.plan import Plan, Step
    from video.dit import SpeechToVideoDiT

FOLDER = "adapters"
# Adapted weights up to this size are copied for each adapter, which makes them cost nothing more
# per pass; the published network's 27 GB are not.
MERGED_BYTES = 1 << 30


class AdaptedNetwork:
    """A network with none or one of some adapters at work.

    Adapters are applied when they are first worn.
    """

    def __init__(
        self,
        network: "SpeechToVideoDiT",
        files: Mapping[str, LoraFile],
        *,
        merged_bytes: int = MERGED_BYTES,
    ) -> None:
        """Take a network with its weights; adapters with more than `merged_bytes` stay beside it.

        Raises:
            WeightsError: an adapter does not fit.
        """
        self._network, self._files, self._merged_bytes = network, dict(files), merged_bytes
        self._switch = LoraSwitch(network)
        self._merged: dict[str, SpeechToVideoDiT] = {}
        self._beside: set[str] = set()
        self._lock = threading.Lock()
        for file in self._files.values():
            require_fit(network, file)

    @classmethod
    def of_one(
        cls, network: "SpeechToVideoDiT", name: str, files: Mapping[str, LoraFile]
    ) -> "AdaptedNetwork":
        """The network with an adapter merged into its own weights, for good.

        Raises:
            WeightsError: the adapter does not fit.
        """
        merge_into(network, files[name])
        made = cls(network, {name: files[name]})
        made._merged[name] = network
        return made

    @property
    def names(self) -> tuple[str, ...]:
        """The adapters that can be worn."""
        return tuple(self._files)

    def on(self, network: "SpeechToVideoDiT") -> "AdaptedNetwork":
        """The same adapters for a copy of the network, on another device."""
        return AdaptedNetwork(network, self._files, merged_bytes=self._merged_bytes)

    def wearing(self, name: str | None) -> "AbstractContextManager[SpeechToVideoDiT]":
        """The network with the adapter of that name at work, None the bare one, for a while.

        Raises:
            KeyError: there is none of that name.
            WeightsError: it holds what is no number.
            ValueError: another is at work beside the same weights.
        """
        if name is None:
            return nullcontext(self._network)
        with self._lock:
            self._apply(name)
        return nullcontext(self._merged[name]) if name in self._merged else self._switched(name)

    def is_merged(self, name: str) -> bool:
        """Whether an adapter is, or would be, merged."""
        return name in self._merged or self._adapted_bytes(name) <= self._merged_bytes

    def _apply(self, name: str) -> None:
        """Read an adapter once."""
        if name in self._merged or name in self._beside:
            return
        if self.is_merged(name):
            self._merged[name] = merged_copy(self._network, self._files[name])
        else:
            self._switch.add(name, self._files[name])
            self._beside.add(name)

    @contextmanager
    def _switched(self, name: str) -> Iterator["SpeechToVideoDiT"]:
        with self._switch.active(name):
            yield self._network

    def _adapted_bytes(self, name: str) -> int:
        """Bytes of the weights that an adapter changes."""
        layers = self._files[name].layers
        weights = [self._network.get_parameter(f"{layer}.weight") for layer in layers]
        return sum(weight.numel() * weight.element_size() for weight in weights)


def adapt_network(
    network: "SpeechToVideoDiT", folder: Path, plan: "Plan", *, stage: int | None = None
) -> AdaptedNetwork:
    """The network with the adapters of a plan; with `stage` of that one alone, which owns it.

    Raises:
        PlanError: an adapter is not there.
        WeightsError: one cannot be used with this network.
    """
    steps = plan.steps if stage is None else plan.stages[stage].steps
    files = find_adapters(folder, plan, steps)
    if stage is not None and len(files) == 1 and all(step.adapter in files for step in steps):
        return AdaptedNetwork.of_one(network, next(iter(files)), files)
    return AdaptedNetwork(network, files)


def find_adapters(
    folder: Path, plan: "Plan", steps: Sequence["Step"] | None = None
) -> dict[str, LoraFile]:
    """The adapters that a plan's steps name, by name, from their files' headers.

    Raises:
        PlanError: one is not there.
        WeightsError: a file is no adapter.
    """
    found: dict[str, LoraFile] = {}
    for index, step in enumerate(plan.steps):
        name = step.adapter
        if name is None or name in found or not (steps is None or step in steps):
            continue
        path = _adapter_path(folder, name)
        if path is None:
            known = ", ".join(_shipped(folder)) or "none"
            raise PlanError(
                f"plan {plan.name}: step {index}: adapter {name!r} is not there: {folder / FOLDER} "
                f"has {known}; put it there, or write the path of a {ADAPTER_SUFFIX} file"
            )
        found[name] = read_lora(path)
    return found


def require_adapters(plan: "Plan", adapters: AdaptedNetwork | None) -> None:
    """Refuse a network that lacks an adapter of the plan.

    Raises:
        PlanError: names the step.
    """
    names = () if adapters is None else adapters.names
    for index, step in enumerate(plan.steps):
        if step.adapter is not None and step.adapter not in names:
            raise PlanError(
                f"plan {plan.name}: step {index}: adapter {step.adapter!r} is not loaded with this "
                "network: take the denoiser of this plan"
            )


def _adapter_path(folder: Path, name: str) -> Path | None:
    """The file or folder that a name stands for, if there is one."""
    if is_adapter_path(name):
        candidates = [Path(name)]
    else:
        candidates = [folder / FOLDER / f"{name}{ADAPTER_SUFFIX}", folder / FOLDER / name]
    return next((path for path in candidates if path.exists()), None)


def _shipped(folder: Path) -> list[str]:
    """Names of the adapters in a model's folder, sorted."""
    held = (folder / FOLDER).iterdir() if (folder / FOLDER).is_dir() else ()
    return sorted({p.stem if p.suffix == ADAPTER_SUFFIX else p.name for p in held})
