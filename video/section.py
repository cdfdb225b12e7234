"""What the sections of a model's config.json have in common."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, ClassVar, Self

from video.errors import WeightsError

MAX_SIZE = 4096  # beyond any dimension that these small networks could sensibly have


class Section:
    """A dataclass of sizes, built from parsed JSON; refuses what no network could have.

    Fields named in `may_be_zero` count something that a network can do without.
    """

    __slots__ = ()
    may_be_zero: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from a section of config.json.

        Raises:
            WeightsError: a field is unknown or not an integer in 1..MAX_SIZE (0.. where it may be
                zero); names it.
        """
        assert is_dataclass(cls)  # noqa: S101 - a slip of ours, not of the outside
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise WeightsError(f"{cls.__name__}: unknown fields {', '.join(unknown)}: remove them")
        for name, value in values.items():
            least = 0 if name in cls.may_be_zero else 1
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not whole or not least <= value <= MAX_SIZE:
                allowed = f"{least} to {MAX_SIZE}"
                raise WeightsError(
                    f"{cls.__name__}: {name} is {value!r}: use an integer from {allowed}"
                )
        return cls(**values)
