"""A model process without a model: `python -m tests.support.flash_process --socket PATH`."""

import argparse
import sys
import time

from services.model_process import add_serving_options, run
from services.model_server import Engine, Tell
from tests.support.flash_engine import FlashEngine


def main() -> int:
    parser = argparse.ArgumentParser()
    add_serving_options(parser)
    parser.set_defaults(capacity=8)
    parser.add_argument("--side", type=int, default=16)
    parser.add_argument("--frame-s", type=float, default=0.0)
    parser.add_argument("--load-s", type=float, default=0.0, help="how long loading takes")
    parser.add_argument(
        "--live", action="store_true", help="a live engine of faces without a model"
    )
    parser.add_argument("--fail", type=int, help="end with this status instead of loading")
    arguments = parser.parse_args()
    # Torch takes its time to load; tests that step back would wait for whatever else runs.
    arguments.spare = arguments.spare and not arguments.live

    def make(tell: Tell) -> Engine:
        time.sleep(arguments.load_s)
        if arguments.fail is not None:
            sys.exit(arguments.fail)
        if arguments.live:
            # Here, so that processes without torch stay quick to start.
            from services.model_engine import engine_of
            from tests.support.fake_face import FakeFaces

            return engine_of(FakeFaces(), tell, capacity=arguments.capacity)
        side, capacity = arguments.side, arguments.capacity
        return FlashEngine(tell, side=side, capacity=capacity, frame_s=arguments.frame_s)

    return run(arguments, make)


if __name__ == "__main__":
    sys.exit(main())
