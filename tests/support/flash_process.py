"""A model process without a model: `python -m tests.support.flash_process --socket PATH`."""

import argparse
import sys
import time
from collections.abc import Callable

from viva.v1.messages import ModelMessage

from services.model_process import add_serving_options, run
from tests.support.flash_engine import FlashEngine


def main() -> int:
    parser = argparse.ArgumentParser()
    add_serving_options(parser)
    parser.set_defaults(capacity=8)
    parser.add_argument("--side", type=int, default=16)
    parser.add_argument("--frame-s", type=float, default=0.0)
    parser.add_argument("--load-s", type=float, default=0.0, help="how long loading takes")
    parser.add_argument("--fail", type=int, help="end with this status instead of loading")
    arguments = parser.parse_args()

    def make(on_message: Callable[[ModelMessage], None]) -> FlashEngine:
        time.sleep(arguments.load_s)
        if arguments.fail is not None:
            sys.exit(arguments.fail)
        side, capacity = arguments.side, arguments.capacity
        return FlashEngine(on_message, side=side, capacity=capacity, frame_s=arguments.frame_s)

    return run(arguments, make)


if __name__ == "__main__":
    sys.exit(main())
