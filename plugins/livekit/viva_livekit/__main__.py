"""`viva-livekit`: a worker in front of a server that was started with `viva serve --grpc-port`."""

import argparse
import os
from pathlib import Path

from aiohttp import web
from viva.v1.face_call import FaceOrder

from viva_livekit.worker import FaceWorker, WorkerTerms

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def main() -> None:
    """Serve until a signal comes."""
    parser = argparse.ArgumentParser(prog="viva-livekit", description=__doc__)
    parser.add_argument("--server", default="localhost:50051", help="gRPC address of viva serve")
    parser.add_argument("--ca", type=Path, help="PEM file: speak TLS to the server")
    parser.add_argument("--portrait", default="", help="who talks where an agent names nobody")
    parser.add_argument("--sample-rate", type=int, default=16_000)
    parser.add_argument("--size", default="", help="WIDTHxHEIGHT of the pictures")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--livekit-url", action="append", default=[], help="join only these")
    options = parser.parse_args()
    keys = tuple(filter(None, os.getenv("VIVA_LIVEKIT_KEYS", "").split(",")))
    if not keys and options.host not in LOOPBACK:
        parser.error("VIVA_LIVEKIT_KEYS: keys are needed on any address but loopback")
    width, _, height = options.size.partition("x")
    face = FaceOrder(
        address=options.server,
        key=os.getenv("VIVA_API_KEY", ""),
        ca=options.ca.read_bytes() if options.ca else None,
        portrait=options.portrait,
        sample_rate=options.sample_rate,
        width=int(width or 0),
        height=int(height or 0),
    )
    terms = WorkerTerms(face=face, keys=keys, livekit_urls=tuple(options.livekit_url))
    web.run_app(FaceWorker(terms).app, host=options.host, port=options.port, print=None)


if __name__ == "__main__":
    main()
