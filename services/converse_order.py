"""What a live call asks for in its first message, as checked values."""

from dataclasses import dataclass
from typing import Literal

from viva.v1 import avatar_pb2, common_pb2

from services.control_errors import bad_field
from services.encode import MAX_BITRATE_BPS, MIN_BITRATE_BPS, VideoCodec
from services.render_words import size_of

SAMPLE_RATES_HZ = (8000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
DEFAULT_RATE_HZ = 16_000
MAX_PORTRAIT_BYTES = 12 << 20
MAX_NAME_CHARS = 128
MAX_PLAN_CHARS = 64
MIN_STATS_MS = 100

PictureKind = VideoCodec | Literal["RGB", "NONE"]
SoundKind = Literal["PCM", "OPUS", "NONE"]

PICTURE_KINDS: dict[int, PictureKind] = {
    common_pb2.PICTURE_FORMAT_UNSPECIFIED: "H264",
    common_pb2.PICTURE_FORMAT_H264: "H264",
    common_pb2.PICTURE_FORMAT_VP8: "VP8",
    common_pb2.PICTURE_FORMAT_RAW_RGB: "RGB",
    common_pb2.PICTURE_FORMAT_NONE: "NONE",
}
SOUND_KINDS: dict[int, SoundKind] = {
    common_pb2.SOUND_FORMAT_UNSPECIFIED: "PCM",
    common_pb2.SOUND_FORMAT_PCM_S16LE: "PCM",
    common_pb2.SOUND_FORMAT_OPUS: "OPUS",
    common_pb2.SOUND_FORMAT_NONE: "NONE",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConverseOrder:
    """What the session shall be; a size of 0 and a plan of "" are the deployment's.

    Exactly one of `portrait_name` and `portrait_file` is there; an empty name is the first of the
    cast.
    """

    portrait_name: str
    portrait_file: bytes
    sample_rate: int
    width: int
    height: int
    picture: PictureKind
    sound: SoundKind
    bitrate_bps: int | None
    seed: int
    plan: str
    stats_interval_s: float
    skip_idle: bool


def order_of(config: avatar_pb2.SessionConfig) -> ConverseOrder:
    """The order that a config is.

    Raises:
        Refusal: INVALID_ARGUMENT, naming the field.
    """
    rate = config.sample_rate_hz or DEFAULT_RATE_HZ
    if rate not in SAMPLE_RATES_HZ:
        choices = ", ".join(str(one) for one in SAMPLE_RATES_HZ)
        raise bad_field("config.sample_rate_hz", f"{rate} is none of {choices}")
    if config.picture_format not in PICTURE_KINDS:
        raise bad_field("config.picture_format", f"{config.picture_format} is none of the formats")
    if config.sound_format not in SOUND_KINDS:
        raise bad_field("config.sound_format", f"{config.sound_format} is none of the formats")
    if config.seed < 0:
        raise bad_field("config.seed", "must not be negative")
    if len(config.plan) > MAX_PLAN_CHARS:
        raise bad_field("config.plan", f"has more than {MAX_PLAN_CHARS} characters")
    if 0 < config.stats_interval_ms < MIN_STATS_MS:
        raise bad_field("config.stats_interval_ms", f"must be 0 or at least {MIN_STATS_MS}")
    name, file = portrait_of(config)
    width, height = size_of(config.size, "config.size")
    return ConverseOrder(
        portrait_name=name,
        portrait_file=file,
        sample_rate=rate,
        width=width,
        height=height,
        picture=PICTURE_KINDS[config.picture_format],
        sound=SOUND_KINDS[config.sound_format],
        bitrate_bps=_bitrate_of(config),
        seed=config.seed,
        plan=config.plan,
        stats_interval_s=config.stats_interval_ms / 1000,
        skip_idle=config.skip_idle,
    )


def portrait_of(config: avatar_pb2.SessionConfig) -> tuple[str, bytes]:
    """Name and file of the portrait; one of them is empty.

    Raises:
        Refusal: INVALID_ARGUMENT.
    """
    if config.WhichOneof("portrait") != "portrait_file":
        if len(config.portrait_name) > MAX_NAME_CHARS:
            raise bad_field("config.portrait_name", f"has more than {MAX_NAME_CHARS} characters")
        return config.portrait_name, b""
    if not config.portrait_file:
        raise bad_field("config.portrait_file", "is empty: send a PNG, JPEG or WebP file")
    if len(config.portrait_file) > MAX_PORTRAIT_BYTES:
        raise bad_field("config.portrait_file", f"has more than {MAX_PORTRAIT_BYTES} bytes")
    return "", config.portrait_file


def _bitrate_of(config: avatar_pb2.SessionConfig) -> int | None:
    """Bits a second of the picture; None where the size is to decide."""
    bps = config.picture_bitrate_bps
    if bps and not MIN_BITRATE_BPS <= bps <= MAX_BITRATE_BPS:
        limits = f"{MIN_BITRATE_BPS} to {MAX_BITRATE_BPS}"
        raise bad_field("config.picture_bitrate_bps", f"{bps} must be 0 or {limits}")
    return bps or None
