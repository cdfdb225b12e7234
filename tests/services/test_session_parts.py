"""The pure parts of sessions: places, time, rates, keys, tokens, ICE, deployments, logs."""

import asyncio
import io
import itertools
import json
import logging
from pathlib import Path

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth import ApiKeys, KeyFileError, SessionTokens, read_keys
from services.deployment import DeploymentError, parse_deployment, read_deployment
from services.ice import IceError, IcePlan, turn_credentials
from services.json_log import JsonFormatter
from services.limits import Rate, RateLimit
from services.places import Places
from services.problem import Problem
from services.serve import given as with_options
from services.serve import model_arguments, read_serving_keys
from services.session_state import IllegalTransition, State, Terms, Times, checked, end_reason
from services.tts import TtsError, find_voice

pytestmark = pytest.mark.unit

SECRET = b"k" * 32


@given(st.lists(st.tuples(st.sampled_from("twra"), st.integers(0, 9)), max_size=60))
def test_places_are_never_oversold_and_the_queue_keeps_its_order(
    steps: list[tuple[str, int]],
) -> None:
    places, queue = Places(3, 4), list[str]()
    for what, number in steps:
        name = str(number)
        if what == "t" and places.take(name) and name in queue:
            queue.remove(name)
        elif what == "w" and not places.has(name) and places.wait(name) and name not in queue:
            queue.append(name)
        elif what == "r":
            places.release(name)
            queue = [other for other in queue if other != name]
        elif what == "a" and (admitted := places.admit()):
            assert admitted == queue.pop(0)
        assert places.num_taken <= 3
        assert places.num_queued == len(queue) <= 4
        assert [places.position(q) for q in queue] == list(range(1, len(queue) + 1))


def test_states_follow_each_other_only_as_they_may() -> None:
    legal = {
        ("new", "ready"), ("new", "closed"), ("ready", "streaming"), ("ready", "draining"),
        ("streaming", "ready"), ("streaming", "draining"), ("draining", "closed"),
    }  # fmt: skip
    for now, then in itertools.product(State, State):
        if (now.value, then.value) in legal:
            assert checked(now, then) is then
        else:
            with pytest.raises(IllegalTransition):
                checked(now, then)


TERMS = Terms(
    idle_timeout_s=300, max_duration_s=3600, grace_s=30, claim_s=20, max_wait_s=100, token_ttl_s=60
)


@pytest.mark.parametrize(
    ("state", "times", "now_s", "reason"),
    [
        (State.NEW, Times(made_s=0, active_s=0), 59, None),
        (State.NEW, Times(made_s=0, active_s=0), 60, "auth"),
        (State.NEW, Times(made_s=0, active_s=0, queued_s=50), 149, None),
        (State.NEW, Times(made_s=0, active_s=0, queued_s=50), 150, "capacity"),
        (State.READY, Times(made_s=0, active_s=0, started_s=0, away_s=0), 30, "client"),
        (State.READY, Times(made_s=0, active_s=0, started_s=0, unclaimed_s=0), 20, "client"),
        (State.STREAMING, Times(made_s=0, active_s=0, started_s=0), 300, "idle_timeout"),
        (State.STREAMING, Times(made_s=0, active_s=3599, started_s=0), 3600, "max_duration"),
        (State.DRAINING, Times(made_s=0, active_s=0, started_s=0), 9999, None),
        (State.CLOSED, Times(made_s=0, active_s=0, started_s=0), 9999, None),
    ],
)
def test_why_time_ends_a_session(
    state: State, times: Times, now_s: float, reason: str | None
) -> None:
    assert end_reason(state, times, TERMS, now_s) == reason


def test_a_rate_lets_a_burst_through_and_then_so_many_a_second() -> None:
    now_s = 0.0
    limit = RateLimit(Rate(per_s=2, burst=3), lambda: now_s, max_callers=2)
    assert [limit.wait_s("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert limit.wait_s("b") == 0, "callers do not share"
    now_s = 0.5
    assert limit.wait_s("a") == 0
    with pytest.raises(Problem, match="too many"):
        limit.take("a")


def test_tokens_say_only_what_was_signed() -> None:
    now_s = 1000.0
    tokens = SessionTokens(SECRET, ttl_s=60, wall_clock=lambda: now_s)
    good = tokens.issue("s_1", may_start=True)
    assert (tokens.read(good).session, tokens.read(good).may_start) == ("s_1", True)
    said = jwt.decode(good, SECRET, algorithms=["HS256"], options={"verify_exp": False})
    forged = [
        jwt.encode(said, b"x" * 32, algorithm="HS256"),
        jwt.encode(said, SECRET + SECRET, algorithm="HS512"),
        jwt.encode(said, "", algorithm="none"),
        jwt.encode(said | {"iss": "other"}, SECRET, algorithm="HS256"),
        jwt.encode(said | {"jti": 5}, SECRET, algorithm="HS256"),
        jwt.encode({k: v for k, v in said.items() if k != "exp"}, SECRET, algorithm="HS256"),
        good[:-2], good + "x" * 3000, "", "a.b.c", "\ud800",
    ]  # fmt: skip
    for token in forged:
        with pytest.raises(Problem) as refused:
            tokens.read(token)
        assert refused.value.code == "token_invalid"
    now_s += 60
    with pytest.raises(Problem):
        tokens.read(good)


@given(st.text(max_size=200))
def test_no_text_is_a_token(text: str) -> None:
    with pytest.raises(Problem):
        SessionTokens(SECRET, ttl_s=60, wall_clock=lambda: 0.0).read(text)


def test_keys_come_from_text_and_file(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# ours\nkey-number-one-0123 # the first\n\n")
    keys = read_keys("key-number-two-0123,", path)
    assert len(keys) == 2
    assert keys.name_of("key-number-one-0123") != keys.name_of("key-number-two-0123")
    assert keys.name_of("key-number-one-012") is None
    assert "number" not in str(keys.name_of("key-number-one-0123"))
    with pytest.raises(KeyFileError, match="shorter"):
        ApiKeys(["short"])
    with pytest.raises(KeyFileError, match="no file"):
        read_keys("", tmp_path / "missing")


def test_turn_credentials_are_those_of_coturn() -> None:
    """The password is what `openssl dgst -sha1 -hmac secret` says."""
    name, password = turn_credentials("secret", "s_1", 1_700_000_000)
    assert (name, password) == ("1700000000:s_1", "E3XbXQGaCtXWR6OB+vQPTZJuwbo=")


def test_ice_servers_carry_what_they_need() -> None:
    urls = ("stun:a.example:3478", "turn:b.example:3478?transport=tcp")
    plan = IcePlan(urls=urls, turn_secret=SECRET.decode(), ttl_s=60)
    stun, turn = plan.servers_for("x", lambda: 40.0)
    assert "username" not in stun
    assert turn["username"] == "100:x"
    for bad in ("http://a", "turn:", "turn:a b", "turn:a\r\nX: y"):
        with pytest.raises(IceError):
            IcePlan(urls=(bad,))


def test_deployments_are_read_and_refused_by_field(tmp_path: Path) -> None:
    laptop = read_deployment("laptop")
    assert (laptop.host, laptop.port, laptop.is_loopback) == ("127.0.0.1", 8080, True)
    path = tmp_path / "d.yaml"
    for text, named in (
        ("ports: 1", "ports"), ("port: 99999", "port"), ("sessions: {grace_s: 0}", "grace_s"),
        ("cors_origins: ['*']", "cors_origins"), ("- 1", "the file"), ("a: [", "cannot be read"),
    ):  # fmt: skip
        path.write_text(text)
        with pytest.raises(DeploymentError, match=named):
            read_deployment(str(path))
    with pytest.raises(DeploymentError, match="missing"):
        read_deployment(str(tmp_path / "missing"))


def test_options_go_before_the_file_and_reach_the_model() -> None:
    chosen = with_options(parse_deployment({}, name="x"), port=0, plan="live", threads=2, host=None)
    assert (chosen.port, chosen.host) == (0, "127.0.0.1")
    assert model_arguments(chosen)[2:] == ["--model", "pocket", "--plan", "live", "--threads", "2"]
    ray = parse_deployment({"chain": {"kind": "ray", "devices": "cpu:2"}}, name="x")
    assert model_arguments(ray)[4:] == ["--chain", "ray", "--devices", "cpu:2"]


def test_beyond_this_machine_there_must_be_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VIVA_API_KEYS", raising=False)
    assert len(read_serving_keys(parse_deployment({}, name="x"))) == 0
    with pytest.raises(KeyFileError, match="no API keys"):
        read_serving_keys(parse_deployment({"host": "0.0.0.0"}, name="x"))  # noqa: S104 # refused


def test_logs_are_json_without_secrets() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    log = logging.Logger("test")
    log.addHandler(handler)
    log.info("made", extra={"session": "s_1", "session_token": "eyJ", "took_ms": 1.5, "sdp": "v"})
    line = json.loads(stream.getvalue())
    assert (line["what"], line["session"], line["took_ms"]) == ("made", "s_1", 1.5)
    assert "eyJ" not in stream.getvalue()
    assert "sdp" not in line


def test_espeak_speaks_a_text_and_refuses_what_is_none() -> None:
    voice = find_voice(50)
    if voice is None:
        pytest.skip("espeak-ng is not installed")

    async def spoken(text: str, name: str) -> bytes:
        return b"".join([pcm async for pcm in voice.stream(voice.check(text, name), name)])

    pcm = asyncio.run(spoken("hello there\0 -v de [[x", "en-gb"))
    assert len(pcm) > 22_050
    assert len(pcm) % 2 == 0
    for text, name in (("", ""), (" \n", ""), ("x" * 51, ""), ("x", "../x"), ("x", "-f")):
        with pytest.raises(TtsError):
            voice.check(text, name)
    with pytest.raises(TtsError, match="not there"):
        asyncio.run(spoken("x", "zz"))


def test_a_text_that_is_left_in_the_middle_leaves_no_program() -> None:
    voice = find_voice(5000)
    if voice is None:
        pytest.skip("espeak-ng is not installed")

    async def run() -> None:
        stream = voice.stream("word " * 900, "en")
        assert await anext(stream)
        await stream.aclose()

    asyncio.run(run())
