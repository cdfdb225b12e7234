"""Have a film made of a portrait and a recording, watch it being made, and take it home.

    python examples/python_batch.py ada.png speech.flac film.mp4 --address localhost:50051

Needs a server that takes renders. The files are uploaded, so no storage is shared.
"""

import argparse
import os
from pathlib import Path

from viva.v1 import render_pb2

from services.client import Client, Connection


def make(options: argparse.Namespace) -> int:
    """Upload, submit, watch, download; the exit status."""
    connection = Connection(address=options.address, key=os.environ.get("VIVA_API_KEY", ""))
    with Client(connection) as client:
        spec = render_pb2.RenderSpec(
            portrait=client.upload(Path(options.portrait)), audio=client.upload(Path(options.audio))
        )
        job = client.submit(spec, key=options.key).id
        render = client.get(job)
        for render in client.watch(job):
            progress = render.progress
            state = render_pb2.RenderState.Name(render.state)
            print(f"{state} {progress.num_frames_done}/{progress.num_frames_total}")
        if render.state != render_pb2.RENDER_STATE_SUCCEEDED:
            print(render.failure.message)
            return 1
        client.download(job, Path(options.out))
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("portrait")
    parser.add_argument("audio")
    parser.add_argument("out")
    parser.add_argument("--address", default="localhost:50051")
    parser.add_argument("--key", default="", help="the same key never makes the film twice")
    raise SystemExit(make(parser.parse_args()))
