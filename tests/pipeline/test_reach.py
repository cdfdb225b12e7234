"""Listeners that are found by a path on their own machine and by a port from any other."""

from pathlib import Path

import pytest

from pipeline.channel import Link, LinkDown, connect, listen
from pipeline.message import Message
from pipeline.reach import moved, nearest, widen

pytestmark = pytest.mark.unit


def test_only_paths_and_ports_can_be_found_from_elsewhere() -> None:
    assert widen("unix:/a/b", "h") == "unix:/a/b,tcp:h:0"
    assert widen("gloo+unix:/a/b", "h") == "gloo+unix:/a/b,tcp:h:0"
    assert widen("tcp:127.0.0.1:0", "h") == "tcp:h:0"
    assert widen("queue:a/b", "h") == "queue:a/b"


def test_a_listener_that_moves_keeps_its_path() -> None:
    assert moved("gloo+unix:/a,tcp:h:0", "g") == "gloo+unix:/a,tcp:g:0"
    assert moved("tcp:h:0", "g") == "tcp:g:0"
    assert moved("unix:/a", "g") == "unix:/a"


def exchange(address: str) -> tuple[str, str]:
    """Listen there, connect as `address` says, and tell who was reached by what."""
    listener = listen(address, timeout_s=5.0)
    links: list[Link] = []
    try:
        links.append(connect(listener.address, timeout_s=5.0))
        links[0].send(Message(kind="hello", facts={"from": "here"}))
        links.append(listener.accept(5.0))
        heard = links[1].recv(5.0).facts["from"]
        return listener.address, str(heard)
    finally:
        for link in links:
            link.close()
        listener.close()


def test_on_the_same_machine_the_path_is_taken(tmp_path: Path) -> None:
    address, heard = exchange(f"unix:{tmp_path / 's'},tcp:127.0.0.1:0")
    assert heard == "here"
    assert address.startswith(f"unix:{tmp_path / 's'},tcp:127.0.0.1:")
    assert not (tmp_path / "s").exists()
    (tmp_path / "s").touch()
    assert nearest(address) == f"unix:{tmp_path / 's'}"


def test_where_the_folder_is_not_there_is_only_the_port(tmp_path: Path) -> None:
    address, heard = exchange(f"unix:{tmp_path / 'elsewhere' / 's'},tcp:127.0.0.1:0")
    assert heard == "here"
    assert address.startswith("tcp:127.0.0.1:")


def test_from_another_machine_the_port_is_taken(tmp_path: Path) -> None:
    """The listener has both; whoever does not see the path takes the other."""
    listener = listen(f"unix:{tmp_path / 's'},tcp:127.0.0.1:0", timeout_s=5.0)
    path, port = listener.address.split(",")
    try:
        for address in (f"unix:{tmp_path / 'elsewhere' / 's'},{port}", listener.address, path):
            sender = connect(address, timeout_s=5.0)
            receiver = listener.accept(5.0)
            sender.send(Message(kind="hello"))
            assert receiver.recv(5.0).kind == "hello"
            sender.close()
            receiver.close()
    finally:
        listener.close()


def test_a_path_that_is_gone_leads_nowhere(tmp_path: Path) -> None:
    with pytest.raises(LinkDown):
        connect(f"unix:{tmp_path / 's'},unix:{tmp_path / 't'}", timeout_s=1.0)


def test_what_was_bound_is_given_back_when_the_rest_is_taken(tmp_path: Path) -> None:
    taken = listen("tcp:127.0.0.1:0", timeout_s=1.0)
    try:
        with pytest.raises(ValueError, match="cannot listen at"):
            listen(f"unix:{tmp_path / 's'},{taken.address}", timeout_s=1.0)
        assert not (tmp_path / "s").exists()
    finally:
        taken.close()
