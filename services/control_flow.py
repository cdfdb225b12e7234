"""Writing to a caller who may stop reading: one message at a time, and not for ever.

gRPC's flow control lets `write` wait while the caller's window is full, so a caller that does not
read holds up its own call and nothing else; after the limit the call is ended.
"""

import asyncio

import grpc
from google.protobuf.message import Message

from services.control_errors import Context, Refusal


class Writer:
    """Writes the messages of one call, from any of its tasks, in the order they are given."""

    def __init__(self, context: Context, stall_limit_s: float) -> None:
        """Wait at most so long for one message to be taken."""
        self._context, self.stall_limit_s = context, stall_limit_s
        self._lock = asyncio.Lock()

    async def write(self, message: Message) -> None:
        """Send a message once there is room for it.

        Raises:
            Refusal: RESOURCE_EXHAUSTED, the caller has not read for so long.
        """
        async with self._lock:
            try:
                async with asyncio.timeout(self.stall_limit_s):
                    await self._context.write(message)
            except TimeoutError:
                raise stalled(self.stall_limit_s) from None


def stalled(limit_s: float) -> Refusal:
    """Refuse to keep more for who does not read."""
    return Refusal(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "READER_STALLED",
        f"nothing was read for {limit_s:g} s: read faster, or ask for less",
    )
