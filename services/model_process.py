"""The process that makes pictures: `python -m services.model_process --socket PATH --model pocket`.

It loads a model, warms it up, and serves one gateway at a time at a Unix socket. Started with
`--parent`, it ends with its parent; with `--once`, when its gateway hangs up. A thread that fails
ends the process: whoever started it has a spare, and nobody waits for half a model.
"""

import argparse
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import NoReturn

from services.model_server import Engine, EngineMaker, ModelServer, Tell, listening
from services.tether import tie_to_parent

STATUS_BAD_INPUT = 2
STATUS_FAULT = 70
SPARE_NICENESS = 5
CHAIN_OPTIONS = ("stages", "devices", "strategy", "ray-address", "spares")
log = logging.getLogger(__name__)


def serve_model(path: Path, make_engine: EngineMaker, *, once: bool) -> None:
    """Serve gateways at the socket with an engine that is made, and warm, before the first answer.

    Raises:
        ValueError: nothing can listen there, or the engine cannot be made.
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
    """Serve as the options say; the exit status.

    A `ValueError` while the engine is made is something the user can change: one line says what.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s", level=logging.INFO)
    threading.excepthook = _end_at_fault
    signal.signal(signal.SIGTERM, _leave)
    if arguments.parent is not None:
        tie_to_parent(arguments.parent)
    maker = behind_others(make_engine) if arguments.spare else make_engine
    try:
        serve_model(arguments.socket, maker, once=arguments.once)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201  # what the user of a program reads
        return STATUS_BAD_INPUT
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


def behind_others(make_engine: EngineMaker) -> EngineMaker:
    """Make the engine in a thread that other processes go before; it works at the usual rank.

    A process may always step back, but only root forward again: so a thread does it, and ends.
    """

    def make(tell: Tell) -> Engine:
        with ThreadPoolExecutor(1, "loader", initializer=_step_back) as loader:
            return loader.submit(make_engine, tell).result()

    return make


def _step_back() -> None:
    """Have this thread run when others do not (Linux; elsewhere nothing)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), SPARE_NICENESS)


def _end_at_fault(fault: threading.ExceptHookArgs) -> NoReturn:
    """Say what a thread failed with, and end the process."""
    name = fault.thread.name if fault.thread is not None else "a thread"
    trace = (fault.exc_type, fault.exc_value or fault.exc_type(), fault.exc_traceback)
    log.critical("%s failed: the process ends", name, exc_info=trace)
    os._exit(STATUS_FAULT)


def _leave(signum: int, _: FrameType | None) -> NoReturn:
    """End in order: the socket's file goes, stages elsewhere are told."""
    sys.exit(128 + signum)


def _parser() -> argparse.ArgumentParser:
    """The options; those of the chain are `viva render`'s."""
    parser = argparse.ArgumentParser(
        prog="python -m services.model_process", description="Serve a model at a Unix socket."
    )
    add_serving_options(parser)
    parser.add_argument("--model", default="pocket", help="a shipped model's name, or a folder")
    parser.add_argument("--plan", default="", help="a live plan's name or file; the model's own")
    parser.add_argument("--threads", type=int, default=0, help="of the model; 0: as torch likes")
    parser.add_argument("--chain", default="local", help="local or ray")
    for option in CHAIN_OPTIONS:
        parser.add_argument(f"--{option}", default="", help=f"as in viva render --{option}")
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run the program; the exit status."""
    arguments = _parser().parse_args(words)

    def make(tell: Tell) -> Engine:
        # Here, so that the socket is there before torch is.
        from services.model_engine import EngineOptions, open_engine
        from services.options import parse_chain

        chain = parse_chain(
            arguments.chain,
            stages=arguments.stages,
            devices=arguments.devices,
            strategy=arguments.strategy,
            address=arguments.ray_address,
            spares=arguments.spares,
        )
        options = EngineOptions(
            model=arguments.model,
            plan=arguments.plan,
            threads=arguments.threads,
            capacity=arguments.capacity,
            chain=chain,
        )
        return open_engine(options, tell)

    return run(arguments, make)


if __name__ == "__main__":
    sys.exit(main())
