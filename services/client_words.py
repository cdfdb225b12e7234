"""What both clients send and how they connect: addresses, keys, configs, upload pieces."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import grpc
import numpy as np
import numpy.typing as npt
from google.rpc import error_details_pb2, status_pb2
from viva.v1 import avatar_pb2, common_pb2, render_pb2

MAX_MESSAGE_BYTES = 64 << 20
PIECE_BYTES = 1 << 18
PICTURES = {
    "h264": common_pb2.PICTURE_FORMAT_H264,
    "vp8": common_pb2.PICTURE_FORMAT_VP8,
    "rgb": common_pb2.PICTURE_FORMAT_RAW_RGB,
    "none": common_pb2.PICTURE_FORMAT_NONE,
}
SOUNDS = {
    "pcm": common_pb2.SOUND_FORMAT_PCM_S16LE,
    "opus": common_pb2.SOUND_FORMAT_OPUS,
    "none": common_pb2.SOUND_FORMAT_NONE,
}
TERMINAL_STATES = (
    render_pb2.RENDER_STATE_SUCCEEDED,
    render_pb2.RENDER_STATE_FAILED,
    render_pb2.RENDER_STATE_CANCELLED,
)

Pcm = bytes | npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Where a server is and who asks: `key` an API key or a token, the files PEM.

    With `ca` (or `use_tls`, for certificates that the machine trusts) the connection is encrypted;
    `cert` and `cert_key` are for servers that want to know their clients.
    """

    address: str
    key: str = ""
    use_tls: bool = False
    ca: Path | None = None
    cert: Path | None = None
    cert_key: Path | None = None

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with each call."""
        return (("authorization", f"Bearer {self.key}"),) if self.key else ()

    def options(self) -> tuple[tuple[str, int], ...]:
        """Limits of messages, and keepalive."""
        return (
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.keepalive_time_ms", 30_000),
        )

    def credentials(self) -> grpc.ChannelCredentials | None:
        """What TLS takes; None: the connection is not encrypted."""
        if not (self.use_tls or self.ca):
            return None
        return grpc.ssl_channel_credentials(
            self.ca.read_bytes() if self.ca else None,
            self.cert_key.read_bytes() if self.cert_key else None,
            self.cert.read_bytes() if self.cert else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveOptions:
    """What a live session shall be; zeros are the server's own choice."""

    sample_rate: int = 16_000
    picture: Literal["h264", "vp8", "rgb", "none"] = "h264"
    sound: Literal["pcm", "opus", "none"] = "pcm"
    width: int = 0
    height: int = 0
    bitrate_bps: int = 0
    seed: int = 0
    plan: str = ""
    stats_interval_ms: int = 0
    skip_idle: bool = False

    def first_message(self, portrait: str | Path | bytes) -> avatar_pb2.ConverseRequest:
        """The config: a portrait by name, or the file (or its bytes) itself."""
        config = avatar_pb2.SessionConfig(
            sample_rate_hz=self.sample_rate,
            picture_format=PICTURES[self.picture],
            sound_format=SOUNDS[self.sound],
            picture_bitrate_bps=self.bitrate_bps,
            seed=self.seed,
            plan=self.plan,
            stats_interval_ms=self.stats_interval_ms,
            skip_idle=self.skip_idle,
        )
        if self.width:
            config.size.width_px, config.size.height_px = self.width, self.height
        if isinstance(portrait, str):
            config.portrait_name = portrait
        else:
            data = portrait if isinstance(portrait, bytes) else portrait.read_bytes()
            config.portrait_file = data
        return avatar_pb2.ConverseRequest(config=config)


def sound_messages(pcm: Pcm, utterance: str) -> Iterator[avatar_pb2.ConverseRequest]:
    """Sound in messages of a size that every server takes."""
    data = pcm if isinstance(pcm, bytes) else pcm.astype("<i2", copy=False).tobytes()
    for begin in range(0, len(data), PIECE_BYTES):
        piece = data[begin : begin + PIECE_BYTES]
        sound = avatar_pb2.SpeechSound(utterance=utterance, pcm_s16le=piece)
        yield avatar_pb2.ConverseRequest(sound=sound)


def text_message(text: str, utterance: str) -> avatar_pb2.ConverseRequest:
    """Words for the server's voice."""
    return avatar_pb2.ConverseRequest(text=avatar_pb2.SpeechText(utterance=utterance, text=text))


def end_message(utterance: str) -> avatar_pb2.ConverseRequest:
    """The end of an utterance."""
    end = avatar_pb2.EndOfUtterance(utterance=utterance)
    return avatar_pb2.ConverseRequest(end_of_utterance=end)


def interrupt_message() -> avatar_pb2.ConverseRequest:
    """Stop what is said."""
    control = avatar_pb2.Control(interrupt=avatar_pb2.Interrupt())
    return avatar_pb2.ConverseRequest(control=control)


def upload_messages(path: Path) -> Iterator[render_pb2.UploadInputRequest]:
    """A file, its size and checksum first."""
    with path.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    start = render_pb2.UploadStart(
        file_name=path.name, size_bytes=path.stat().st_size, sha256=checksum
    )
    yield render_pb2.UploadInputRequest(start=start)
    with path.open("rb") as file:
        while data := file.read(PIECE_BYTES):
            yield render_pb2.UploadInputRequest(data=data)


def is_over(render: render_pb2.Render) -> bool:
    """Whether nothing more happens to a job."""
    return render.state in TERMINAL_STATES


def reason_of(error: grpc.RpcError) -> str:
    """The word for programs in an error of ours, such as CAPACITY; "" if there is none."""
    # What is raised is a call, too, or says the same in asyncio; the stubs know neither.
    said: Any = getattr(error, "trailing_metadata", tuple)() or ()
    for name, value in said:
        if name == "grpc-status-details-bin":
            return _reason_in(bytes(value))
    return ""


def _reason_in(details: bytes) -> str:
    """The reason in a google.rpc.Status."""
    for detail in status_pb2.Status.FromString(details).details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return str(info.reason)
    return ""
