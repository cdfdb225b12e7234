"""The cast of a model: portraits that come with it and can be named instead of a file.

`portraits/cast.json` in a model's folder lists objects with name, title, domain and licence; each
portrait is `portraits/NAME.png` beside it.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from pipeline.catalog import exists, is_bare_name
from pipeline.errors import ModelError

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_FIELDS = ("name", "title", "domain", "licence")


@dataclass(frozen=True, slots=True, kw_only=True)
class CastMember:
    """One portrait: its name, caption, domain (`heads` or `drawn`), licence and file."""

    name: str
    title: str
    domain: str
    licence: str
    path: Path


def read_cast(model_folder: Path) -> tuple[CastMember, ...]:
    """The cast of a model folder in the list's order; empty where there is no list.

    Raises:
        ModelError: the list cannot be read or is not such a list.
    """
    path = model_folder / "portraits" / "cast.json"
    try:
        if not path.is_file():
            return ()
        entries = json.loads(path.read_text(encoding="utf-8"))
        return tuple(_member(entry, path.parent) for entry in entries)
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        reason = " ".join(str(error).split())[:100]
        raise ModelError(f"{path} is not a list of portraits ({reason}): fix it") from error


def find_portrait(text: str, model_folder: Path) -> Path:
    """The file that a name from the model's cast, or a path, stands for.

    As with models and plans, what comes with the program wins over a file of the same name, so
    that a name means the same in every folder; `./NAME` is the file. A path need not exist.

    Raises:
        ModelError: a bare name without a suffix that is neither in the cast nor a file.
    """
    if not is_bare_name(text):
        return Path(text)
    members = {member.name: member.path for member in read_cast(model_folder)}
    if text in members:
        return members[text]
    path = Path(text)
    if members and not path.suffix and not exists(path):
        raise ModelError(
            f"unknown portrait {text[:80]!r}: use one of {', '.join(members)}, "
            "or the path of a picture"
        )
    return path


def _member(entry: dict[str, str], folder: Path) -> CastMember:
    """An entry of the list; a name must not lead out of the folder."""
    name, title, domain, licence = (str(entry[field]) for field in _FIELDS)
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name[:40]!r} is no name")
    return CastMember(
        name=name, title=title, domain=domain, licence=licence, path=folder / f"{name}.png"
    )
