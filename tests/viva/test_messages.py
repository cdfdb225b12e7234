"""Messages: every type comes back as it went; no wrong type, field, value or version passes."""

import math
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from viva.v1.framing import HEADER, FrameDecoder, WireError
from viva.v1.messages import (
    TYPE_FIELD,
    TYPES,
    AnyMessage,
    Hello,
    OpenSession,
    Ping,
    SliceMade,
    Speak,
    Want,
    encode,
    parse,
)
from viva.v1.rules import Real, rules_of
from wire_inputs import ODD_VALUES, frame_of, good_message, seeded

pytestmark = pytest.mark.unit


def over_the_wire(message: AnyMessage) -> AnyMessage:
    (payload,) = FrameDecoder().feed(encode(message))
    return parse(payload)


def payload_of(message: AnyMessage) -> dict[str, Any]:
    payload: dict[str, Any] = msgpack.unpackb(encode(message)[HEADER.size :])
    return payload


@pytest.mark.parametrize("tag", sorted(TYPES))
def test_every_type_comes_back_as_it_went(tag: str) -> None:
    rng = seeded(tag)
    for _ in range(30):
        message = good_message(rng, TYPES[tag])
        assert over_the_wire(message) == message


def test_the_table_of_types_is_closed_and_known() -> None:
    """Adding a type, or changing a tag, is a visible change of the wire."""
    assert sorted(TYPES) == [
        "close", "closed", "degraded", "end", "export", "failed", "hello", "import", "interrupt",
        "open", "opened", "ping", "pong", "ready", "slice", "speak", "state", "trace", "want",
    ]  # fmt: skip


@pytest.mark.parametrize("tag", sorted(TYPES))
def test_every_field_is_needed_and_no_other_is_taken(tag: str) -> None:
    payload = payload_of(good_message(seeded(1), TYPES[tag]))
    for name in rules_of(TYPES[tag]):
        with pytest.raises(WireError, match=f"missing or unknown: '{name}'"):
            parse({key: value for key, value in payload.items() if key != name})
    with pytest.raises(WireError, match="missing or unknown: 'extra'"):
        parse(payload | {"extra": 1})


@pytest.mark.parametrize("tag", sorted(TYPES))
def test_a_value_of_another_type_is_refused_by_the_name_of_its_field(tag: str) -> None:
    message = good_message(seeded(2), TYPES[tag])
    payload = payload_of(message)
    for name, rule in rules_of(TYPES[tag]).items():
        for odd in ODD_VALUES:
            if type(odd) is type(payload[name]) or (
                isinstance(rule, Real) and type(odd) in (int, float)
            ):
                continue
            frame = frame_of(msgpack.packb(payload | {name: odd}))
            with pytest.raises(WireError, match=rf"{name}|no plain value|no flat msgpack map"):
                [parse(got) for got in FrameDecoder().feed(frame)]


@pytest.mark.parametrize("tag", [None, 1, b"ping", "", "Ping", "__class__", "x" * 500])
def test_an_unknown_type_is_refused_in_a_short_line(tag: object) -> None:
    with pytest.raises(WireError, match=r"message type .* is unknown") as caught:
        parse({TYPE_FIELD: tag, "nonce": 1})  # type: ignore[dict-item]  # the point of the test
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize("due_in_ms", [math.nan, math.inf, -math.inf, 1e14, True])
def test_times_are_finite(due_in_ms: float) -> None:
    with pytest.raises(WireError, match="want: due_in_ms is"):
        Want(session="s", until_index=1, due_in_ms=due_in_ms)


@pytest.mark.parametrize("session", ["", "s" * 129, "\ud800"])
def test_names_are_short_texts(session: str) -> None:
    with pytest.raises(WireError, match="want: session"):
        Want(session=session, until_index=1, due_in_ms=0.0)


def test_sound_comes_in_whole_samples_and_pictures_in_their_size() -> None:
    with pytest.raises(WireError, match="1 bytes of pcm are no 16-bit samples"):
        Speak(session="s", utterance="u", epoch=0, pcm=b"\0")
    with pytest.raises(WireError, match="11 bytes are no 2x2"):
        SliceMade(
            session="s", index=0, epoch=0, utterance="", rgb=bytes(11), width=2, height=2, pcm=b""
        )


@pytest.mark.parametrize("nonce", [-1, 1 << 53, 1.0, True, None])
def test_the_sender_cannot_make_what_would_be_refused(nonce: Any) -> None:
    with pytest.raises(WireError, match="ping: nonce"):
        Ping(nonce=nonce)


def test_portraits_have_a_limit() -> None:
    with pytest.raises(WireError, match=r"open: portrait has .* bytes, more than"):
        OpenSession(session="s", portrait=bytes((1 << 25) + 1), seed=0, sample_rate=48000)


@given(st.dictionaries(st.text(max_size=12), st.integers() | st.binary() | st.text() | st.none()))
def test_any_map_is_a_message_or_refused(payload: dict[str, Any]) -> None:
    for tag in (None, "ping", "slice"):
        with pytest.raises(WireError):
            parse(payload | ({TYPE_FIELD: tag} if tag else {}))


def test_hello_says_the_version_by_itself() -> None:
    assert Hello().version == 1
