"""The leak guard itself: a planted thread and a planted process must trip it."""

import subprocess
import sys
import threading

import pytest

from tests.support.leaks import Running

pytestmark = pytest.mark.unit


def test_a_planted_thread_is_named_and_its_end_is_seen() -> None:
    before, stop = Running.now(), threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    assert Running.now().leaked_since(before) == [f"thread {thread.ident}"]
    stop.set()
    thread.join()
    assert not Running.now().leaked_since(before)


def test_a_planted_process_is_named_and_its_end_is_seen() -> None:
    before = Running.now()
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert Running.now().leaked_since(before) == [f"process {process.pid}"]
    process.communicate(b"\n")
    assert not Running.now().leaked_since(before)
