"""Which cluster is meant, and that one which does not answer is found out soon and in one line."""

import socket
import time
from pathlib import Path

import pytest

from pipeline import cluster_address
from pipeline.cluster_address import find_address, require_reachable
from pipeline.errors import ChainError

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("given", "environment", "address"),
    [
        (None, {}, None),
        ("local", {"RAY_ADDRESS": "10.0.0.1:6379"}, None),
        (None, {"RAY_ADDRESS": "10.0.0.1:6379"}, "10.0.0.1:6379"),
        ("10.0.0.2:1", {"RAY_ADDRESS": "10.0.0.1:6379"}, "10.0.0.2:1"),
        ("[::1]:6379", {}, "[::1]:6379"),
        (None, {"RAY_ADDRESS": "local"}, None),
    ],
)
def test_what_is_given_counts_before_the_environment(
    given: str | None, environment: dict[str, str], address: str | None
) -> None:
    assert find_address(given, environment) == address


def test_auto_is_the_cluster_that_was_started_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = tmp_path / "ray_current_cluster"
    monkeypatch.setattr(cluster_address, "_CURRENT_CLUSTER", note)
    with pytest.raises(ChainError, match="no Ray cluster was started on this machine"):
        find_address("auto", {})
    note.write_text("10.0.0.1:6379\n")
    assert find_address("auto", {}) == "10.0.0.1:6379"


@pytest.mark.parametrize("text", ["here", "host:", ":1", "host:70000", "host:ray", "10.0.0.1"])
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(ChainError, match=r"--ray-address .* is not understood: write HOST:PORT"):
        find_address(text, {})


def test_an_address_of_ray_client_is_told_apart() -> None:
    with pytest.raises(ChainError, match="RAY_ADDRESS ray://host:10001 is of Ray Client"):
        find_address(None, {"RAY_ADDRESS": "ray://host:10001"})


def test_nobody_there_is_said_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(ChainError, match=f"{address} cannot be reached .*refused") as error:
        require_reachable(address)
    assert "\n" not in str(error.value)


def test_somebody_else_there_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        began_s = time.monotonic()
        with pytest.raises(ChainError, match=r"no Ray answered within 0\.5 s"):
            require_reachable(address, probe_s=0.5)
    assert time.monotonic() - began_s < 30.0


def test_the_longest_wait_is_under_half_a_minute() -> None:
    assert cluster_address.CONNECT_S + cluster_address.PROBE_S < 30.0
