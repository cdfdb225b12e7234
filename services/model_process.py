"""The process that makes pictures: `python -m services.model_process --socket PATH --model pocket`.

It loads a model, warms it up, and serves one gateway at a time at a Unix socket. Started with
`--parent`, it ends with its parent; with `--once`, when its gateway hangs up.
"""

import argparse
import logging
import sys
from pathlib import Path

from services.model_server import EngineMaker, ModelServer, SocketPathError, listening
from services.tether import tie_to_parent

log = logging.getLogger(__name__)


def serve_model(path: Path, make_engine: EngineMaker, *, once: bool) -> None:
    """Serve gateways at the socket with an engine that is made, and warm, before the first answer.

    Raises:
        SocketPathError: nothing can listen there.
    """
    with listening(path) as listener:
        server = ModelServer(listener, make_engine)
        try:
            server.serve(once=once)
        finally:
            server.close()


def add_serving_options(parser: argparse.ArgumentParser) -> None:
    """The options of every program that serves a model at a socket."""
    parser.add_argument("--socket", type=Path, required=True, help="path to listen at")
    parser.add_argument("--parent", type=int, help="end when this process is no longer the parent")
    parser.add_argument("--once", action="store_true", help="end when the gateway hangs up")
    parser.add_argument("--capacity", type=int, help="sessions to hold; measured if not given")
    parser.add_argument("--spare", action="store_true", help="load behind whatever else runs")


def run(arguments: argparse.Namespace, make_engine: EngineMaker) -> int:
    """Serve as the options say; the exit status."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s", level=logging.INFO)
    if arguments.parent is not None:
        tie_to_parent(arguments.parent)
    try:
        serve_model(arguments.socket, make_engine, once=arguments.once)
    except SocketPathError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201  # what the user of a program reads
        return 2
    except KeyboardInterrupt:
        return 130
    return 0
