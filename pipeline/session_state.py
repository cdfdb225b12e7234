"""What a session needs to go on in another process: named tensors and a few numbers."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import torch

ValueT = TypeVar("ValueT")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionState:
    """An exported session; tensors are copies on the CPU, owned by whoever holds this.

    `numbers` holds positions and identities (seed, chunk index, sample counts).
    """

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)

    def part(self, name: str) -> "SessionState":
        """What was exported under `name/`."""
        return SessionState(tensors=_below(self.tensors, name), numbers=_below(self.numbers, name))

    def only(self, names: Collection[str]) -> "SessionState":
        """The parts of these names, still under their names."""
        return SessionState(
            tensors={k: v for k, v in self.tensors.items() if k.split("/")[0] in names},
            numbers={k: v for k, v in self.numbers.items() if k.split("/")[0] in names},
        )

    @classmethod
    def joined(cls, states: Iterable["SessionState"]) -> "SessionState":
        """Several states as one, all under the names that they have; nothing is copied.

        Raises:
            ValueError: two of them use one name.
        """
        tensors: dict[str, torch.Tensor] = {}
        numbers: dict[str, int] = {}
        for state in states:
            repeated = [*(tensors.keys() & state.tensors), *(numbers.keys() & state.numbers)]
            if repeated:
                raise ValueError(f"two parts of a session are called {min(repeated)}")
            tensors |= state.tensors
            numbers |= state.numbers
        return cls(tensors=tensors, numbers=numbers)

    @classmethod
    def of(cls, parts: Mapping[str, "SessionState | dict[str, torch.Tensor]"]) -> "SessionState":
        """Several parts as one, each under its own name; tensors are copied to the CPU."""
        tensors: dict[str, torch.Tensor] = {}
        numbers: dict[str, int] = {}
        for name, part in parts.items():
            named = part.tensors if isinstance(part, SessionState) else part
            for key, value in named.items():
                copied = value.detach().to("cpu", copy=True).contiguous()
                tensors[f"{name}/{key}"] = copied
            if isinstance(part, SessionState):
                numbers |= {f"{name}/{key}": value for key, value in part.numbers.items()}
        return cls(tensors=tensors, numbers=numbers)


def _below(values: dict[str, ValueT], name: str) -> dict[str, ValueT]:
    """The entries under `name/`, without that prefix."""
    prefix = f"{name}/"
    return {key[len(prefix) :]: v for key, v in values.items() if key.startswith(prefix)}
