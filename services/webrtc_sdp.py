"""Reads a stranger's SDP once, and says in one line what is wrong with it.

aiortc's parser answers nonsense with whatever exception it meets (AssertionError, KeyError,
StopIteration, UnboundLocalError): here every one of them is an `SdpError`, and what could be abused
(thousands of lines or candidates, mDNS names to look up) is refused before it is parsed.
"""

from dataclasses import dataclass
from typing import Literal

from aiortc import RTCRtpSender
from aiortc.rtcrtpparameters import RTCRtpCodecCapability
from aiortc.sdp import MediaDescription, SessionDescription

from services.encode import VIDEO_CODECS, VideoCodec

MAX_SDP_BYTES = 64 * 1024
MAX_LINES = 2000
MAX_SECTIONS = 4
MAX_CANDIDATES = 64
MAX_MDNS_NAMES = 8

_RECEIVES = ("recvonly", "sendrecv")


class SdpError(ValueError):
    """An offer or answer that cannot be used: one line for its sender."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the far end's description asks for."""

    picture: bool
    sound: bool
    microphone: bool
    events: bool


def read_sdp(text: str, kind: Literal["offer", "answer"], *, is_mic: bool = False) -> Wishes:
    """Check a description and say what is in it; `is_mic`: it comes only to be heard.

    Raises:
        SdpError: it is malformed, too large, or asks for nothing that can be given.
    """
    _check_size(text, kind)
    try:
        description = SessionDescription.parse(text)
    except Exception as error:  # noqa: BLE001 # the parser's exceptions are of any kind
        raise SdpError(f"the {kind} is malformed: {_reason(error)}") from None
    media = description.media
    _check_sections(media, kind)
    directions = {section.kind: section.direction or "sendrecv" for section in media}
    wishes = Wishes(
        picture=directions.get("video") in _RECEIVES,
        sound=directions.get("audio") in _RECEIVES,
        microphone=directions.get("audio") in ("sendonly", "sendrecv"),
        events="application" in directions,
    )
    if is_mic:
        if not wishes.microphone:
            raise SdpError(f"the {kind} sends no sound: give audio with sendonly")
        return wishes
    if not (wishes.picture or wishes.sound):
        raise SdpError(f"the {kind} receives nothing: ask for audio or video with recvonly")
    return wishes


def _check_size(text: str, kind: str) -> None:
    """Refuse what is too much to parse."""
    if len(text.encode("utf-8", "replace")) > MAX_SDP_BYTES:
        raise SdpError(f"the {kind} is over {MAX_SDP_BYTES // 1024} KiB: send fewer lines")
    if "\0" in text:
        raise SdpError(f"the {kind} holds a NUL: send SDP as text")
    lines = text.splitlines()
    if not lines or not lines[0].startswith("v="):
        raise SdpError(f"the {kind} is no SDP: its first line must be v=0")
    if len(lines) > MAX_LINES:
        raise SdpError(f"the {kind} has over {MAX_LINES} lines: send fewer")
    candidates = [line for line in lines if line.startswith("a=candidate:")]
    if len(candidates) > MAX_CANDIDATES:
        raise SdpError(f"the {kind} has over {MAX_CANDIDATES} candidates: send fewer")
    if sum(".local " in line for line in candidates) > MAX_MDNS_NAMES:
        raise SdpError(f"the {kind} has over {MAX_MDNS_NAMES} .local candidates: send fewer")


def _check_sections(media: list[MediaDescription], kind: str) -> None:
    """Refuse media that no connection can come of."""
    if not media:
        raise SdpError(f"the {kind} has no media: ask for audio and video")
    if len(media) > MAX_SECTIONS:
        raise SdpError(f"the {kind} has over {MAX_SECTIONS} media sections: send one of each kind")
    kinds = [section.kind for section in media]
    if len(set(kinds)) < len(kinds) or not set(kinds) <= {"audio", "video", "application"}:
        raise SdpError(f"the {kind} may have one audio, one video and one application section")
    mids = [section.rtp.muxId for section in media]
    if len(set(mids)) < len(mids) or not all(mids):
        raise SdpError(f"the {kind} must give every media section a mid of its own")
    for section in media:
        _check_section(section, kind)


def _check_section(section: MediaDescription, kind: str) -> None:
    """Refuse a section that lacks what DTLS and ICE need."""
    name = f"the {kind}'s {section.kind} section"
    ice = section.ice
    if ice is None or not ice.usernameFragment or not ice.password:
        raise SdpError(f"{name} has no ICE credentials: add a=ice-ufrag and a=ice-pwd")
    if section.dtls is None or not section.dtls.fingerprints:
        raise SdpError(f"{name} has no DTLS fingerprint and role: add a=fingerprint and a=setup")
    if section.kind == "application":
        if not section.profile.endswith("SCTP") or section.sctp_port is None:
            raise SdpError(f"{name} is no data channel: use UDP/DTLS/SCTP with a=sctp-port")
    elif not section.rtcp_mux:
        raise SdpError(f"{name} does not multiplex RTCP: add a=rtcp-mux")


def _reason(error: Exception) -> str:
    """An exception's text as the end of one short line."""
    text = " ".join(str(error).split())[:120]
    return text or "a line is not what it should be"


def in_one_line(kind: str, error: Exception) -> SdpError:
    """What aiortc refused, for the sender of the description."""
    text = str(error)
    if "send parameters" in text:
        return SdpError(
            f"the {kind} shares no codec with this server: offer VP8 or H.264, and Opus"
        )
    return SdpError(f"the {kind} cannot be used: {_reason(error)}")


def preferred_codecs(first: VideoCodec) -> list[RTCRtpCodecCapability]:
    """Video codecs in our order, retransmission last."""
    order = [first, *(codec for codec in VIDEO_CODECS if codec != first), "rtx"]
    every = RTCRtpSender.getCapabilities("video").codecs
    return [each for name in order for each in every if _short_name(each) == name]


def opus_only() -> list[RTCRtpCodecCapability]:
    """The only sound codec that is encoded here."""
    every = RTCRtpSender.getCapabilities("audio").codecs
    return [each for each in every if _short_name(each) == "opus"]


def _short_name(codec: RTCRtpCodecCapability) -> str:
    return codec.mimeType.split("/")[1]
