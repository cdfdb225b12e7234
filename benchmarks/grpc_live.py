"""A minute of speech over gRPC in real time, from a process of its own, with the real model.

    python benchmarks/grpc_live.py                        # starts viva serve itself
    python benchmarks/grpc_live.py --address localhost:50051 --seconds 60

Holds the server to: every pts strictly rising, sound back bit for bit, first media of the speech
within 1.5 s of its first sample, and a stream that PyAV decodes from beginning to end.
"""

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from report import table, write_report
from viva.v1 import avatar_pb2

from services.client import AsyncClient, Connection, LiveOptions

ROOT = Path(__file__).resolve().parents[1]
SPEECH = ROOT / "configs" / "models" / "pocket" / "speech.flac"
RATE_HZ = 16_000
PIECE_MS = 40
MAX_FIRST_MEDIA_S = 1.5


@dataclass(slots=True)
class Received:
    """What came back, and when (seconds after the first sample was sent)."""

    pictures: list[avatar_pb2.Media] = field(default_factory=list)
    sound: list[avatar_pb2.Media] = field(default_factory=list)
    first_media_s: float = float("inf")
    late_s: list[float] = field(default_factory=list)
    started: avatar_pb2.SessionStarted | None = None
    status: avatar_pb2.SessionStatus | None = None


def speech(seconds: int) -> npt.NDArray[np.int16]:
    """The sample speech, over and over."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE_HZ)
    with av.open(str(SPEECH)) as file:
        frames = [out for frame in file.decode(audio=0) for out in resampler.resample(frame)]
    once_T = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    return np.resize(once_T, seconds * RATE_HZ).astype(np.int16)


@contextlib.contextmanager
def server() -> Iterator[str]:
    """A `viva serve` of our own; its gRPC address."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}"}
    command = ["-m", "services.cli", "serve", "--port", "0", "--grpc-port", "0", "--no-spare"]
    process = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, *command], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        for line in process.stdout or ():
            if line.startswith("grpc "):
                yield line.split()[1]
                break
        else:
            raise SystemExit("viva serve did not start")
    finally:
        process.terminate()
        process.communicate(timeout=60)


async def converse(address: str, pcm_T: npt.NDArray[np.int16], picture: str) -> Received:
    """Say the speech in real time and keep what comes."""
    got = Received()
    key = os.environ.get("VIVA_API_KEY", "")
    options = LiveOptions(sample_rate=RATE_HZ, picture="vp8" if picture == "vp8" else "h264")
    async with (
        AsyncClient(Connection(address=address, key=key)) as client,
        client.converse("", options) as call,
    ):
        messages = aiter(call)
        got.started = (await anext(messages)).session_started
        began_s = time.monotonic()

        async def say() -> None:
            step = RATE_HZ * PIECE_MS // 1000
            for at in range(0, len(pcm_T), step):
                await call.speak(pcm_T[at : at + step], "speech")
                due_s = began_s + (at + step) / RATE_HZ
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            await call.finish()

        saying = asyncio.create_task(say())
        async for message in messages:
            take(got, message, time.monotonic() - began_s)
        await saying
    return got


def take(got: Received, message: avatar_pb2.ConverseResponse, now_s: float) -> None:
    """Keep one message."""
    if message.HasField("status"):
        got.status = message.status
    if not message.HasField("media"):
        return
    media = message.media
    (got.sound if media.HasField("pcm_sound") else got.pictures).append(media)
    got.late_s.append(now_s - float(at_s(media)))
    if media.utterance and media.HasField("encoded_picture"):
        got.first_media_s = min(got.first_media_s, now_s)


def at_s(media: avatar_pb2.Media) -> Fraction:
    """Where media stands."""
    return media.pts * Fraction(media.time_base.numerator, media.time_base.denominator)


def decoded(pictures: list[avatar_pb2.Media], codec: str) -> int:
    """How many pictures a decoder makes of the stream."""
    context = av.CodecContext.create("vp8" if codec == "vp8" else "h264", "r")
    count = 0
    for media in pictures:
        packet = av.Packet(media.encoded_picture.data)
        packet.pts = media.pts
        count += len(context.decode(packet))
    return count + len(context.decode(None))


def judge(got: Received, pcm_T: npt.NDArray[np.int16], picture: str) -> dict[str, tuple[str, bool]]:
    """Each promise: what was measured, and whether it was kept."""
    back = b"".join(one.pcm_sound.s16le for one in got.sound if one.utterance == "speech")
    sent = pcm_T.astype("<i2").tobytes()
    is_exact = back[: len(sent)] == sent and not any(back[len(sent) :])
    picture_pts = [one.pts for one in got.pictures]
    sound_ends = [one.pts + len(one.pcm_sound.s16le) // 2 for one in got.sound]
    rises = all(a < b for a, b in pairwise(picture_pts))
    joins = all(one.pts == end for one, end in zip(got.sound[1:], sound_ends[:-1], strict=True))
    num_decoded = decoded(got.pictures, picture)
    stats = got.status.stats if got.status else avatar_pb2.Stats()
    jitter_ms = 1000 * float(np.percentile(got.late_s, 99) - np.percentile(got.late_s, 1))
    num_pictures = stats.num_pictures
    return {
        "picture pts rise": (f"{len(picture_pts)} pictures", rises),
        "sound pts without a gap": (f"{len(got.sound)} pieces", joins),
        "sound bit for bit": (f"{len(sent)} bytes sent, {len(back)} back", is_exact),
        "first media": (f"{got.first_media_s:.2f} s", got.first_media_s <= MAX_FIRST_MEDIA_S),
        "PyAV decodes": (f"{num_decoded} pictures", num_decoded == len(got.pictures)),
        "status last": ("yes" if got.status else "no", got.status is not None),
        "held pictures": (f"{stats.num_held} of {num_pictures}", True),
        "left out for the reader": (f"{stats.num_dropped} of {num_pictures}", True),
        "arrival against pts, p1 to p99": (f"{jitter_ms:.0f} ms", True),
    }


def main() -> int:
    """Run it; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--address", default="")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--picture", choices=("h264", "vp8"), default="h264")
    parser.add_argument("--no-report", action="store_true")
    options = parser.parse_args()
    pcm_T = speech(options.seconds)
    with contextlib.nullcontext(options.address) if options.address else server() as address:
        got = asyncio.run(converse(address, pcm_T, options.picture))
    found = judge(got, pcm_T, options.picture)
    for name, (figure, is_kept) in found.items():
        print(f"{'ok  ' if is_kept else 'FAIL'} {name}: {figure}")
    if not options.no_report:
        rows = [[name, figure, "yes" if kept else "NO"] for name, (figure, kept) in found.items()]
        title = f"{options.seconds} s of speech over gRPC in real time"
        print(write_report("grpc_live", title, table(["promise", "measured", "kept"], rows)))
    return 0 if all(is_kept for _, is_kept in found.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
