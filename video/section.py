"""What the sections of a model's config.json have in common."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Self

from video.errors import WeightsError

MAX_SIZE = 4096  # beyond any dimension that these small networks could sensibly have


class Section:
    """A dataclass of sizes, built from parsed JSON; refuses what no network could have."""

    __slots__ = ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from a section of config.json.

        Raises:
            WeightsError: a field is unknown or not an integer in 1..MAX_SIZE; names it.
        """
        assert is_dataclass(cls)  # noqa: S101 - a slip of ours, not of the outside
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise WeightsError(f"{cls.__name__}: unknown fields {', '.join(unknown)}: remove them")
        for name, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_SIZE:
                raise WeightsError(
                    f"{cls.__name__}: {name} is {value!r}: use an integer from 1 to {MAX_SIZE}"
                )
        return cls(**values)
