"""`viva serve` as a user runs it: its address, its readiness, its drain, its refusals."""

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.support.program import ENVIRONMENT, ROOT, running

pytestmark = pytest.mark.cli


def ask(url: str, token: str = "", body: object = None) -> tuple[int, dict[str, Any]]:
    """Status and JSON of an answer."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    data = None
    if body is not None:
        data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
    request = urllib.request.Request(url, data=data, headers=headers)  # noqa: S310 # ours
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 # ours
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_it_serves_drains_at_the_first_signal_and_ends_at_the_second(tmp_path: Path) -> None:
    socket = tmp_path / "model"
    with running("tests.support.flash_process", "--socket", str(socket)):
        while not socket.exists():
            time.sleep(0.05)
        options = ("--port", "0", "--model-socket", str(socket), "--capacity", "2")
        with running("services.cli", "serve", *options) as process:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert ask(f"{url}readyz") == (200, {"status": "ok"})
            assert ask(f"{url}v1/model")[1]["capacity"] == 2
            status, made = ask(f"{url}v1/sessions", body={})
            assert status == 201
            session = f"{url}v1/sessions/{made['session_id']}"
            status, started = ask(f"{session}/start", made["token"], {})
            assert (status, started["state"]) == (200, "ready"), started
            process.send_signal(signal.SIGTERM)
            deadline_s = time.monotonic() + 10
            while ask(f"{url}readyz")[0] != 503 and time.monotonic() < deadline_s:
                time.sleep(0.05)
            assert ask(f"{url}readyz")[1]["code"] == "draining"
            assert ask(f"{url}healthz")[0] == 200
            assert ask(session, made["token"])[1]["state"] == "ready", "it may go on"
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--host", "0.0.0.0"], "there are no API keys"),  # noqa: S104 # refused
        (["--deployment", "nothing.yaml"], "cannot be read"),
        (["--port", "99999"], "port"),
        (["--chain", "cloud"], "chain.kind"),
        (["--tls-cert", "c.pem"], "belong together"),
        (
            ["--tls-cert", "c.pem", "--tls-key", "k.pem", "--model-socket", "/nowhere"],
            "no certificate",
        ),
        (["--ice", "http://a"], "not understood"),
        (["--model-socket", "/nowhere"], "no model process listens"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(options: list[str], says: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "services.cli", "serve", *options],
        env=ENVIRONMENT,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode in (1, 2)
    lines = [line for line in result.stderr.splitlines() if not line.startswith("{")]
    assert len(lines) == 1, result.stderr
    assert says in lines[0]
    assert result.stdout == ""
