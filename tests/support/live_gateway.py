"""A gateway on a free port of this machine, with a fake model behind real performers and peers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from pipeline.cast import read_cast
from services.auth import ApiKeys
from services.deployment import Deployment
from services.gateway import PARTS, Backing, build_gateway
from services.http_server import GatewayRunner
from services.live_model import LiveModel
from services.live_sessions import LiveSessions
from services.live_studio import LiveStudio
from services.tts import TextToSpeech

_CAST = Path(__file__).parents[2] / "configs" / "models" / "pocket"


@dataclass(frozen=True, slots=True)
class Served:
    """Where it listens, and what it knows of its sessions."""

    url: str
    sessions: LiveSessions


@asynccontextmanager
async def served(
    model: LiveModel,
    deployment: Deployment | None = None,
    *,
    keys: tuple[str, ...] = (),
    voice: TextToSpeech | None = None,
) -> AsyncIterator[Served]:
    """Serve `model`; everything is ended at the end, the model too."""
    deployment = deployment or Deployment()
    studio = LiveStudio(deployment, chunk_frames=model.ready.chunk_frames)
    backing = Backing(
        deployment=deployment,
        model=model,
        studio=studio,
        cast=read_cast(_CAST),
        keys=ApiKeys(keys),
        secret=b"a secret of tests, thirty-two by",
        voice=voice,
    )
    app = build_gateway(backing)
    runner = GatewayRunner(app, header_timeout_s=5.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield Served(f"http://127.0.0.1:{runner.addresses[0][1]}/", app[PARTS].sessions)
    finally:
        await runner.cleanup()
        await studio.close()
        await model.close()
