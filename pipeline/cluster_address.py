"""Where a Ray cluster is, and whether it answers: found out in bounded time, before Ray is asked.

Ray itself waits for more than a minute for a cluster that is not there, tells about it at length on
stderr and then ends the whole process; so a process of its own tries first. Knows nothing of Ray.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import ChainError

CONNECT_S = 5.0
PROBE_S = 20.0
_EXAMPLE = "write HOST:PORT such as 192.0.2.7:6379, auto, or local"
# Where `ray start` notes the address of the cluster it began.
_CURRENT_CLUSTER = Path("/tmp/ray/ray_current_cluster")  # noqa: S108 - Ray's own place

_PROBE = """
import os, sys
try:
    import ray
    ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)
except BaseException as error:
    print(" ".join(str(error).split())[:300], flush=True)
    os._exit(1)
os._exit(0)
"""


def find_address(given: str | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """HOST:PORT of the cluster to join, None for a Ray of one's own.

    An address that was given counts, else `RAY_ADDRESS`; `local` means one's own, `auto` the
    cluster that runs on this machine.

    Raises:
        ChainError: it is none, or no cluster runs here.
    """
    text = (given or environment.get("RAY_ADDRESS") or "local").strip()
    source = "--ray-address" if given else "RAY_ADDRESS"
    if text == "local":
        return None
    if text == "auto":
        text = _current_cluster(source)
    if text.startswith("ray://"):
        raise ChainError(
            f"{source} {text[:60]} is of Ray Client, through which no chain can be run: give the "
            "address of the cluster itself, HOST:6379"
        )
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise ChainError(f"{source} {text[:60]!r} is not understood: {_EXAMPLE}")
    return text


def _current_cluster(source: str) -> str:
    """The address that `ray start` noted."""
    try:
        return _CURRENT_CLUSTER.read_text().strip()
    except OSError:
        raise ChainError(
            f"{source} auto: no Ray cluster was started on this machine: {_EXAMPLE}"
        ) from None


def require_reachable(
    address: str, *, connect_s: float = CONNECT_S, probe_s: float = PROBE_S
) -> None:
    """Refuse an address where no Ray cluster lets us in, after `connect_s` + `probe_s` at most.

    Raises:
        ChainError: one line with the reason.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=connect_s).close()
    except OSError as error:
        reason = error.strerror or str(error) or "no answer"
        raise _unreachable(address, f"{reason} within {connect_s:g} s") from None
    try:
        probe = subprocess.run(  # noqa: S603 - this interpreter with the program above
            [sys.executable, "-c", _PROBE, address],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            timeout=probe_s,
            text=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _unreachable(
            address, f"something listens there, but no Ray answered within {probe_s:g} s"
        ) from None
    if probe.returncode:
        raise _unreachable(address, probe.stdout.strip() or "Ray gave up")


def _unreachable(address: str, reason: str) -> ChainError:
    return ChainError(
        f"the Ray cluster at {address} cannot be reached ({reason}): start it with ray start "
        "--head, correct --ray-address, or leave it out for a Ray of this run's own"
    )
