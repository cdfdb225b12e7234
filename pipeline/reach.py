"""Addresses in a chain that may span machines: which of a listener's addresses leads to it.

Such a listener has two, written `unix:PATH,tcp:HOST:PORT`. The path lies in the chain's folder, so
whoever sees it is on the same machine (or shares its memory, which is all that counts) and takes
it; everybody else takes the other. So a stage that moves to another machine is found from wherever
it is looked for, and nothing but the addresses themselves says who is near whom.
"""

from pathlib import Path

from pipeline.channel import LinkDown


def widen(address: str, host: str) -> str:
    """The address of a listener that shall be found from other machines too, by `host`."""
    prefix, inner = _parts(address)
    if inner.startswith("unix:"):
        return f"{prefix}{inner},tcp:{host}:0"
    return f"{prefix}tcp:{host}:0" if inner.startswith("tcp:") else address


def moved(address: str, host: str) -> str:
    """The address for a listener that will be on the machine of that name."""
    prefix, inner = _parts(address)
    parts = [f"tcp:{host}:0" if p.startswith("tcp:") else p for p in inner.split(",")]
    return prefix + ",".join(parts)


def places_here(address: str) -> list[str]:
    """Where to listen: a path only if its folder is on this machine."""
    parts = address.split(",")
    if len(parts) == 1:
        return parts
    return [p for p in parts if not p.startswith("unix:") or _path(p).parent.is_dir()]


def nearest(address: str) -> str:
    """Where to connect: by the path if it is on this machine.

    Raises:
        LinkDown: there is no way from here.
    """
    parts = address.split(",")
    for part in parts:
        if len(parts) == 1 or not part.startswith("unix:") or _path(part).exists():
            return part
    raise LinkDown(f"nobody listens at {address}")


def _parts(address: str) -> tuple[str, str]:
    """What comes before `+`, if anything, with it; and the rest."""
    kind = address.partition(":")[0]
    length = kind.rfind("+") + 1
    return address[:length], address[length:]


def _path(part: str) -> Path:
    return Path(part.removeprefix("unix:"))
