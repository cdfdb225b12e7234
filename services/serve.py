"""`viva serve`: model process, gateway and port, from start to drain."""

import asyncio
import contextlib
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

from aiohttp import web

from pipeline.cast import read_cast
from pipeline.catalog import model_path
from services.auth import ApiKeys, KeyFileError, make_secret, read_keys
from services.deployment import Deployment, DeploymentError, parse_deployment
from services.gateway import PARTS, Backing, build_gateway
from services.http_server import GatewayRunner
from services.json_log import log_as_json
from services.live_studio import LiveStudio
from services.model_client import ModelClient
from services.model_worker import WorkerSource, attached, spawned
from services.serve_grpc import grpc_beside
from services.serve_jobs import jobs_beside
from services.tracing import Tracer, make_tracer
from services.tts import find_voice

KEYS_VARIABLE = "VIVA_API_KEYS"
SECRET_VARIABLE = "VIVA_TOKEN_SECRET"  # noqa: S105 - the variable's name


@dataclass(slots=True)
class Stop:
    """Signals: the first asks for a drain, the second for an end at once."""

    drain: asyncio.Event = field(default_factory=asyncio.Event)
    now: asyncio.Event = field(default_factory=asyncio.Event)

    def signalled(self) -> None:
        """One more signal came."""
        (self.now if self.drain.is_set() else self.drain).set()


def serve(deployment: Deployment) -> int:
    """Serve until a signal; the exit status.

    Raises:
        DeploymentError, KeyFileError, ModelUnavailable, OSError: it cannot begin; one line why.
    """
    keys = read_serving_keys(deployment)
    # What is wrong with these is said before the model takes its time to load.
    deployment.ice_plan()
    tls_context(deployment)
    secret = make_secret(os.environ.get(SECRET_VARIABLE, ""))
    tracer = make_tracer(wanted=deployment.traces)
    log_as_json()
    try:
        return asyncio.run(_serve(deployment, keys, secret, tracer))
    finally:
        tracer.close()


def read_serving_keys(deployment: Deployment) -> ApiKeys:
    """The API keys from environment and file; beyond this machine there must be some.

    Raises:
        KeyFileError: there are none, or they cannot be used.
    """
    keys = read_keys(os.environ.get(KEYS_VARIABLE, ""), deployment.keys_file)
    if not len(keys) and not deployment.is_loopback:
        raise KeyFileError(
            f"--host {deployment.host} is open to others and there are no API keys: set "
            f"{KEYS_VARIABLE}, or keys_file in the deployment, or serve on 127.0.0.1"
        )
    return keys


def model_arguments(deployment: Deployment) -> list[str]:
    """How the model process is started."""
    arguments = ["-m", "services.model_process", "--model", deployment.model]
    options = {
        "--plan": deployment.plan,
        "--threads": str(deployment.threads) if deployment.threads else "",
        "--chain": deployment.chain.kind if deployment.chain.kind != "local" else "",
        "--stages": deployment.chain.stages,
        "--devices": deployment.chain.devices,
        "--strategy": deployment.chain.strategy,
        "--ray-address": deployment.chain.ray_address,
        "--spares": deployment.chain.spares,
    }
    for option, value in options.items():
        if value:
            arguments += [option, value]
    return arguments


async def _serve(deployment: Deployment, keys: ApiKeys, secret: bytes, tracer: Tracer) -> int:
    """The same on the loop."""
    stop = Stop()
    with _signals(stop.signalled):
        async with _model(deployment) as model:
            studio = LiveStudio(deployment, chunk_frames=model.ready.chunk_frames)
            try:
                backing = Backing(
                    deployment=deployment,
                    model=model,
                    studio=studio,
                    cast=read_cast(model_path(deployment.model)),
                    keys=keys,
                    secret=secret,
                    voice=find_voice(deployment.limits.max_text_chars),
                    tracer=tracer,
                )
                app = build_gateway(backing)
                await _beside(app, backing, stop)
            finally:
                await studio.close()
    return 0


async def _beside(app: web.Application, backing: Backing, stop: Stop) -> None:
    """Open the batch queue and gRPC's port, if they are wanted, then HTTP's, until the end."""
    deployment = backing.deployment
    async with (
        jobs_beside(deployment, draining=stop.drain, ending=stop.now) as queue,
        grpc_beside(
            deployment,
            app[PARTS],
            backing.keys,
            voice=backing.voice,
            draining=stop.drain,
            ending=stop.now,
            queue=queue,
        ) as control,
    ):
        if control is not None:
            _say(f"grpc {deployment.host}:{control.port}\n")
        await _listen(app, deployment, stop)


async def _listen(app: web.Application, deployment: Deployment, stop: Stop) -> None:
    """Open the port, say where, and drain at the first signal; the second cuts that short."""
    runner = GatewayRunner(app, header_timeout_s=deployment.limits.header_timeout_s)
    await runner.setup()
    try:
        site = web.TCPSite(
            runner, deployment.host, deployment.port, ssl_context=tls_context(deployment)
        )
        await site.start()
        _say(f"{_url(runner, deployment)}\n")
        await stop.drain.wait()
        sessions = app[PARTS].sessions
        drain = asyncio.create_task(sessions.drain(deployment.sessions.drain_s))
        now = asyncio.create_task(stop.now.wait())
        await asyncio.wait({drain, now}, return_when=asyncio.FIRST_COMPLETED)
        for task in (drain, now):
            task.cancel()
        await asyncio.gather(drain, now, return_exceptions=True)
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def _model(deployment: Deployment) -> AsyncIterator[ModelClient]:
    """The model, warm; its processes end with it."""
    source: WorkerSource = (
        attached(deployment.model_socket)
        if deployment.model_socket
        else spawned(model_arguments(deployment))
    )
    has_spare = deployment.spare and deployment.model_socket is None
    model = await ModelClient.start(source, has_spare=has_spare)
    try:
        yield model
    finally:
        await model.close()


@contextlib.contextmanager
def _signals(on_signal: Callable[[], None]) -> Iterator[None]:
    """Call `on_signal` for SIGTERM and SIGINT."""
    loop = asyncio.get_running_loop()
    caught = (signal.SIGTERM, signal.SIGINT)
    for number in caught:
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    finally:
        for number in caught:
            loop.remove_signal_handler(number)


def tls_context(deployment: Deployment) -> ssl.SSLContext | None:
    """TLS with the deployment's certificate; None without.

    Raises:
        DeploymentError: the files cannot be used.
    """
    if deployment.tls is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(deployment.tls.cert, deployment.tls.key)
    except (OSError, ssl.SSLError) as error:
        raise DeploymentError(
            f"tls: {deployment.tls.cert} and {deployment.tls.key} are no certificate and its key "
            f"({error}): give PEM files that belong together"
        ) from error
    return context


def _url(runner: web.AppRunner, deployment: Deployment) -> str:
    """Where the page is."""
    host, port = runner.addresses[0][:2]
    shown = f"[{host}]" if ":" in str(host) else host
    return f"{'https' if deployment.tls else 'http'}://{shown}:{port}/"


def _say(line: str) -> None:
    """A result on stdout; that nobody reads it is no failure."""
    with contextlib.suppress(OSError):
        sys.stdout.write(line)
        sys.stdout.flush()


def given(deployment: Deployment, **options: object) -> Deployment:
    """The deployment with the command line's options in place of the file's; None: not given.

    Raises:
        DeploymentError: what comes out cannot be used.
    """
    changes = {name: value for name, value in options.items() if value is not None}
    return parse_deployment({**deployment.model_dump(), **changes}, name="viva serve")
