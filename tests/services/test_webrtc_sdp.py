"""Strangers' SDP: whatever is wrong with it comes back as one SdpError in one line."""

import asyncio
import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.encode_share import Encoders
from services.webrtc import Peer
from services.webrtc_sdp import SdpError, Wishes, read_sdp
from tests.support.flash_performer import FlashPerformer
from tests.support.loopback import Loopback
from tests.support.media_rig import play

pytestmark = pytest.mark.unit


def made_offer(audio: str = "recvonly") -> str:
    async def offer() -> str:
        viewer = Loopback(audio=audio)
        try:
            return await viewer.offer()
        finally:
            await viewer.close()

    return asyncio.run(offer())


OFFER = made_offer()


def without(text: str) -> str:
    return "".join(line for line in OFFER.splitlines(keepends=True) if text not in line)


def test_wishes_are_read() -> None:
    assert read_sdp(OFFER, "offer") == Wishes(
        picture=True, sound=True, microphone=False, events=True
    )
    assert read_sdp(made_offer("sendrecv"), "offer").microphone


def test_a_microphone_must_send_and_need_not_receive() -> None:
    sends = OFFER.replace("a=recvonly", "a=sendonly")
    assert read_sdp(sends, "offer", is_mic=True) == Wishes(
        picture=False, sound=False, microphone=True, events=True
    )
    with pytest.raises(SdpError, match="sends no sound: give audio with sendonly"):
        read_sdp(OFFER, "offer", is_mic=True)


BAD = {
    "empty": ("", "is no SDP"),
    "JSON": ('{"sdp": "v=0"}', "is no SDP"),
    "no media": ("v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n", "has no media"),
    "large": (OFFER + "a=x:" + "y" * 70_000, "over 64 KiB"),
    "lines": (OFFER + "a=x\r\n" * 3000, "over 2000 lines"),
    "candidates": (OFFER + "a=candidate:1 1 udp 1 10.0.0.1 9 typ host\r\n" * 99, "candidates"),
    "mdns": (OFFER + "a=candidate:1 1 udp 1 ab.local 9 typ host\r\n" * 9, ".local"),
    "nul": (OFFER + "a=\0\r\n", "NUL"),
    "no ufrag": (without("a=ice-ufrag"), "no ICE credentials"),
    "no fingerprint": (without("a=fingerprint"), "no DTLS fingerprint"),
    "no setup": (without("a=setup"), "no DTLS fingerprint"),
    "no mux": (without("a=rtcp-mux"), "rtcp-mux"),
    "no mid": (without("a=mid"), "mid of its own"),
    "sends": (OFFER.replace("a=recvonly", "a=sendonly"), "receives nothing"),
    "port": (OFFER.replace("m=video ", "m=video nine"), "malformed"),
    "payload": (OFFER.replace("a=rtpmap:97", "a=rtpmap:x"), "malformed"),
    "fmtp": (OFFER + "a=fmtp:\r\n", "malformed"),
    "setup word": (OFFER.replace("a=setup:actpass", "a=setup:maybe"), "malformed"),
    "two videos": (OFFER + OFFER[OFFER.index("m=video") : OFFER.index("m=audio")], "one video"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said_in_one_line(name: str) -> None:
    text, reason = BAD[name]
    with pytest.raises(SdpError, match=reason) as caught:
        read_sdp(text, "offer")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


NEVER_CONNECTS = {
    "codec": (
        OFFER.replace("opus/48000/2", "flac/48000/2")
        .replace("G722", "X")
        .replace("PCMU", "Y")
        .replace("PCMA", "Z"),
        "shares no codec",
    ),
    "nonsense": ("v=0\r\nm=\r\n", "malformed"),
}


@pytest.mark.parametrize("name", NEVER_CONNECTS)
def test_a_refused_offer_leaves_a_closed_peer(name: str) -> None:
    text, reason = NEVER_CONNECTS[name]

    async def work(encoders: Encoders) -> None:
        peer = Peer(encoders)
        with pytest.raises(SdpError, match=reason):
            await peer.answer(text, FlashPerformer())
        assert peer.closed.is_set()

    play(work)


LINES = OFFER.splitlines()


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_damaged_offers_are_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    lines = list(LINES)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(lines) - 1))
        damage = data.draw(st.sampled_from(["drop", "cut", "swap", "text", "twice"]))
        if damage == "drop" and len(lines) > 1:
            del lines[at]
        elif damage == "cut":
            lines[at] = lines[at][: data.draw(st.integers(0, len(lines[at])))]
        elif damage == "swap":
            lines[at], lines[0] = lines[0], lines[at]
        elif damage == "twice":
            lines.insert(at, lines[at])
        else:
            lines[at] = lines[at][:6] + data.draw(st.text(max_size=30))
    with contextlib.suppress(SdpError):
        read_sdp("\r\n".join(lines) + "\r\n", "offer")


@settings(max_examples=60)
@given(st.text(max_size=300))
def test_any_text_is_refused(text: str) -> None:
    with pytest.raises(SdpError):
        read_sdp("v=0\r\n" + text, "offer")
