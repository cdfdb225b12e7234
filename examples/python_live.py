"""Have a face say a recording, live, and write what comes back to a video file.

    python examples/python_live.py speech.wav out.mp4 --address localhost:50051 --portrait ada

Needs a server (`viva serve --grpc-port 50051`), PyAV and numpy. The recording is sent as fast as
the server takes it; pictures and sound come in real time.
"""

import argparse
import asyncio
import os
from fractions import Fraction

import av
import numpy as np
from viva.v1 import avatar_pb2

from services.client import AsyncClient, Connection, LiveOptions

RATE_HZ = 24_000


def read_speech(path: str) -> "np.ndarray[tuple[int], np.dtype[np.int16]]":
    """A recording as int16 mono at 24 kHz."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE_HZ)
    with av.open(path) as file:
        frames = [out for frame in file.decode(audio=0) for out in resampler.resample(frame)]
    frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


class Film:
    """A file that takes the H.264 pictures as they come, and the sound."""

    def __init__(self, path: str, started: avatar_pb2.SessionStarted) -> None:
        """Open the file."""
        rate = Fraction(started.frame_rate.numerator, started.frame_rate.denominator)
        self._file = av.open(path, "w")
        self._picture = self._file.add_stream("h264", rate=rate)
        self._picture.width, self._picture.height = started.size.width_px, started.size.height_px
        self._picture.pix_fmt = "yuv420p"
        self._sound = self._file.add_stream("aac", rate=started.sample_rate_hz, layout="mono")

    def take(self, media: avatar_pb2.Media) -> None:
        """Write a picture as it is, or encode some sound."""
        time_base = Fraction(media.time_base.numerator, media.time_base.denominator)
        if media.HasField("encoded_picture"):
            packet = av.Packet(media.encoded_picture.data)
            packet.stream, packet.time_base = self._picture, time_base
            packet.pts = packet.dts = media.pts
            packet.duration = 1
            packet.is_keyframe = media.encoded_picture.is_keyframe
            self._file.mux(packet)
        else:
            samples = np.frombuffer(media.pcm_sound.s16le, dtype="<i2")[None]
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, media.pts, time_base
            self._file.mux(self._sound.encode(frame))

    def close(self) -> None:
        """Finish the file."""
        self._file.mux(self._sound.encode(None))
        self._file.close()


async def perform(options: argparse.Namespace) -> None:
    """One session, from the first message to the last."""
    connection = Connection(address=options.address, key=os.environ.get("VIVA_API_KEY", ""))
    async with (
        AsyncClient(connection) as client,
        client.converse(options.portrait, LiveOptions(sample_rate=RATE_HZ)) as call,
    ):
        await call.speak(read_speech(options.speech))
        await call.finish()
        film = None
        async for message in call:
            if message.HasField("session_started"):
                film = Film(options.out, message.session_started)
            elif message.HasField("media") and film is not None:
                film.take(message.media)
            elif message.HasField("event"):
                print(avatar_pb2.EventKind.Name(message.event.kind), message.event.utterance)
        if film is not None:
            film.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("speech")
    parser.add_argument("out")
    parser.add_argument("--address", default="localhost:50051")
    parser.add_argument("--portrait", default="")
    asyncio.run(perform(parser.parse_args()))
