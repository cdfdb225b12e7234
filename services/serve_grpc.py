"""The gRPC side of `viva serve`: live calls on HTTP's places and keys, and the batch queue."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from services.auth import ApiKeys
from services.deployment import Deployment, DeploymentError
from services.gateway_parts import Parts
from services.limits import RateLimit
from services.tts import TextToSpeech

if TYPE_CHECKING:
    from services.control import Control, ControlConfig
    from services.job_queue import JobQueue

log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def grpc_beside(
    deployment: Deployment,
    parts: Parts,
    keys: ApiKeys,
    *,
    voice: TextToSpeech | None,
    draining: asyncio.Event,
    ending: asyncio.Event,
    queue: "JobQueue | None" = None,
) -> AsyncIterator["Control | None"]:
    """A gRPC server for as long as the block lasts, if the deployment has a port for one.

    Once `draining` is set live calls are ended with a status, within the deployment's time; the
    block's end waits for that, unless `ending` is set.

    Raises:
        DeploymentError: it cannot listen, or the package is missing.
    """
    if deployment.grpc_port is None:
        yield None
        return
    try:
        from services.control import ControlError, encoding_threads, start_control
        from services.control_auth import Gate
        from services.control_converse import LiveHouse
        from services.converse_call import CallTerms
    except ImportError as error:
        reason = f"grpc_port needs the package {error.name}: pip install 'viva-voce[grpc]'"
        raise DeploymentError(reason) from error
    sessions, limits = deployment.sessions, deployment.limits
    threads = encoding_threads()
    house = LiveHouse(
        model=parts.model,
        places=parts.sessions.places,
        gallery=parts.portraits,
        threads=threads,
        voice=voice,
        released=parts.sessions.let_in,
        terms=CallTerms(
            idle_timeout_s=sessions.idle_timeout_s,
            max_duration_s=sessions.max_duration_s,
            max_queued_s=min(120, int(limits.max_queued_s)),
        ),
    )
    rate = RateLimit(limits.request_rate, asyncio.get_running_loop().time)
    gate = Gate(keys=keys, tokens=parts.gate.tokens, rate=rate)
    try:
        control = await start_control(control_config(deployment), gate, house=house, queue=queue)
    except ControlError as error:
        threads.shutdown()
        raise DeploymentError(str(error)) from error
    drain = asyncio.create_task(_drain(control, draining, sessions.drain_s))
    try:
        yield control
    finally:
        if draining.is_set():
            await _until_first(drain, ending)
        await _dropped(drain)
        await control.stop()
        threads.shutdown(wait=True)


async def _drain(control: "Control", draining: asyncio.Event, deadline_s: float) -> None:
    """End live calls once it is time."""
    await draining.wait()
    await control.drain(deadline_s)


async def _until_first(drain: "asyncio.Task[None]", ending: asyncio.Event) -> None:
    """Wait until live calls have ended, or are to end at once."""
    now = asyncio.create_task(ending.wait())
    try:
        await asyncio.wait({drain, now}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        now.cancel()
        await asyncio.gather(now, return_exceptions=True)


async def _dropped(drain: "asyncio.Task[None]") -> None:
    """Leave a drain; what it failed of is in the log."""
    drain.cancel()
    (outcome,) = await asyncio.gather(drain, return_exceptions=True)
    if isinstance(outcome, Exception):
        log.error("live calls over gRPC did not end in order", exc_info=outcome)


def control_config(deployment: Deployment) -> "ControlConfig":
    """Where gRPC listens: the same host and certificate as HTTP, another port."""
    from services.control import ControlConfig, ControlTls

    tls, ca = deployment.tls, deployment.grpc_client_ca
    files = None if tls is None else ControlTls(cert=tls.cert, key=tls.key, client_ca=ca)
    return ControlConfig(
        host=deployment.host,
        port=deployment.grpc_port or 0,
        tls=files,
        max_upload_bytes=deployment.jobs.max_upload_bytes,
        max_transfers=deployment.jobs.max_transfers,
    )
