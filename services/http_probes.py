"""Routes for who watches the server: health, readiness, metrics, and what model there is."""

import asyncio

from aiohttp import web

from services.gateway_parts import Parts
from services.live_metrics import CONTENT_TYPE
from services.problem import Problem


class ProbeRoutes:
    """Handlers for /healthz, /readyz, /metrics and /v1/model."""

    def __init__(self, parts: Parts) -> None:
        """Serve these parts."""
        self._parts = parts

    def routes(self) -> list[web.RouteDef]:
        """All of them."""
        return [
            web.get("/healthz", self.health),
            web.get("/readyz", self.readiness),
            web.get("/metrics", self.metrics),
            web.get("/v1/model", self.model),
        ]

    async def health(self, request: web.Request) -> web.Response:
        """This process answers."""
        del request
        return web.json_response({"status": "ok"})

    async def readiness(self, request: web.Request) -> web.Response:
        """Sessions can be started, as far as this server goes.

        Raises:
            Problem: 503 `draining`, `not_ready`.
        """
        del request
        self._parts.sessions.refuse_draining()
        if not getattr(self._parts.model, "is_up", True):
            raise Problem(503, "not_ready", "the model process is not there", retry_after_s=2)
        return web.json_response({"status": "ok"})

    async def metrics(self, request: web.Request) -> web.Response:
        """All figures."""
        del request
        self._parts.metrics.tasks(len(asyncio.all_tasks()))
        return web.Response(body=self._parts.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def model(self, request: web.Request) -> web.Response:
        """What the model is, and how full the server."""
        del request
        ready, places = self._parts.model.ready, self._parts.sessions.places
        answer = {
            "model": ready.model,
            "plan": ready.plan,
            "fps": ready.fps_num / ready.fps_den,
            "width": ready.width,
            "height": ready.height,
            "capacity": places.capacity,
            "sessions": places.num_taken,
            "queued": places.num_queued,
            "keys_needed": self._parts.gate.keys_needed,
            "speech": self._parts.desk.has_voice,
            "stages": self._parts.metrics.stages,
        }
        return web.json_response(answer)
