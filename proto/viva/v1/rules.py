"""Rules for the fields of messages: each says in a few words what is wrong with a value."""

import math
from dataclasses import dataclass, fields
from typing import Any, cast, get_type_hints


@dataclass(frozen=True, slots=True)
class Text:
    """A text of so many characters that can be written as UTF-8."""

    max_chars: int
    min_chars: int = 0

    def problem(self, value: object) -> str | None:
        """What is wrong with the value."""
        if not isinstance(value, str):
            return "is no text"
        if not self.min_chars <= len(value) <= self.max_chars:
            return f"has {len(value)} characters, not {self.min_chars} to {self.max_chars}"
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            return "is no Unicode text"
        return None


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes, so many at most."""

    max_bytes: int

    def problem(self, value: object) -> str | None:
        """What is wrong with the value."""
        if not isinstance(value, bytes):
            return "is no bytes"
        if len(value) > self.max_bytes:
            return f"has {len(value)} bytes, more than {self.max_bytes}"
        return None


@dataclass(frozen=True, slots=True)
class Whole:
    """An integer of a range, both ends included."""

    low: int
    high: int

    def problem(self, value: object) -> str | None:
        """What is wrong with the value."""
        if not isinstance(value, int) or isinstance(value, bool):
            return "is no integer"
        return None if self.low <= value <= self.high else f"is not {self.low} to {self.high}"


@dataclass(frozen=True, slots=True)
class Real:
    """A finite number, whole ones included, within a range around 0."""

    limit: float

    def problem(self, value: object) -> str | None:
        """What is wrong with the value."""
        if not isinstance(value, int | float) or isinstance(value, bool):
            return "is no number"
        is_near = math.isfinite(value) and abs(value) <= self.limit
        return None if is_near else f"is not within {self.limit:g} of 0"


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    def problem(self, value: object) -> str | None:
        """What is wrong with the value."""
        return None if isinstance(value, bool) else "is neither true nor false"


Rule = Text | Blob | Whole | Real | Flag


def rules_of(cls: type[Any]) -> dict[str, Rule]:
    """The rule of each field of a dataclass, read from its annotation."""
    hints: dict[str, Any] = get_type_hints(cls, include_extras=True)
    names = [field.name for field in fields(cast(Any, cls))]
    return {name: Flag() if hints[name] is bool else hints[name].__metadata__[0] for name in names}
