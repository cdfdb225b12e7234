"""The short way to write many steps of one kind: how many, and how far shifted towards noise.

`schedule: {steps: 30, shift: 5, forecast: true}` in a plan file stands for its `stages`.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict

# As many steps as any plan may have.
MAX_STEPS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """`steps` steps from noise to clean, with what they have in common.

    `forecast` allows all but the first and the last to be forecast: the first has nothing to
    forecast from, and near clean latents the velocity changes fastest.

    Raises:
        ValueError: a value is out of its range.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    steps: int
    shift: float = 5.0
    rule: Literal["euler", "renoise"] = "euler"
    forecast: bool = False
    guidance: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what no plan could hold."""
        if not 1 <= self.steps <= MAX_STEPS:
            raise ValueError(f"steps {self.steps} must lie in 1..{MAX_STEPS}")
        if not 0.1 <= self.shift <= 100.0:
            raise ValueError(f"shift {self.shift} must lie in 0.1..100")

    def expanded(self, *, new_function_at: float = 0.0) -> list[dict[str, Any]]:
        """The stages that it stands for, as a plan file would write them: one, of all steps.

        The first step that starts at or below `new_function_at` is not forecast either, because
        the network is another one from there on.
        """
        sigmas = (*(shifted_level(1.0 - k / self.steps, self.shift) for k in range(self.steps)), 0)
        first_after = sum(sigma > new_function_at for sigma in sigmas[:-1])
        computed = {0, first_after, self.steps - 1}
        steps = [
            {
                "sigma_in": sigma_in,
                "sigma_out": sigma_out,
                "rule": self.rule,
                "guidance": self.guidance,
                "forecast": self.forecast and index not in computed,
            }
            for index, (sigma_in, sigma_out) in enumerate(pairwise(sigmas))
        ]
        return [{"name": "denoise", "steps": steps}]


def shifted_level(even: float, shift: float) -> float:
    """A level of an even spacing, moved towards noise; 1 and 0 stay."""
    return 1.0 if even == 1.0 else shift * even / (1.0 + (shift - 1.0) * even)
