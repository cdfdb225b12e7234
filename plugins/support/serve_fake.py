"""Serves gRPC with the tests' fake model until stdin ends; the first line says where."""

import asyncio
import sys

from tests.support.control_house import hosted
from tests.support.fake_model import FakeSettings


async def serve(capacity: int) -> None:
    """Say the address, and wait for the end."""
    settings = FakeSettings(width=64, height=48, work_ms=5.0, capacity=capacity)
    async with hosted(settings=settings) as house:
        sys.stdout.write(house.address + "\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(serve(int(sys.argv[1])))
