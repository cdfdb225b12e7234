"""Health (`grpc.health.v1`) of a server that also ends: who watches it hears so, and is let go."""

import asyncio

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health  # type: ignore[attr-defined]  # not in the stubs

from services.control_errors import Context

_HEARD_S = 0.05


class Health(health.HealthServicer):  # type: ignore[misc]  # not in the stubs
    """The package's own watches never end: one of them would hold a drain to its deadline."""

    def __init__(self) -> None:
        """Serve until `end`."""
        super().__init__()
        self._is_over = asyncio.Event()

    async def end(self) -> None:
        """Say that nothing is served any more, then end all watches."""
        await self.enter_graceful_shutdown()
        await asyncio.sleep(_HEARD_S)
        self._is_over.set()

    async def Watch(  # noqa: N802 - gRPC's name
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> None:
        """Tell of a service at each change."""
        watch = asyncio.create_task(super().Watch(request, context))
        over = asyncio.create_task(self._is_over.wait())
        try:
            await asyncio.wait({watch, over}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watch.cancel()
            over.cancel()
            await asyncio.gather(watch, over, return_exceptions=True)
