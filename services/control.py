"""The gRPC server: what it listens on, how much it takes, how it starts and how it ends.

Covered: sizes of messages, streams a connection, calls at a time, keepalive, TLS and mutual TLS,
health (`grpc.health.v1`), reflection, a drain with a deadline. Deadlines of calls are gRPC's own:
a call whose time is over is cancelled, and frees what it holds.
"""

import asyncio
import ssl
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from viva.v1 import avatar_pb2, render_pb2
from viva.v1.avatar_pb2_grpc import add_AvatarServiceServicer_to_server
from viva.v1.render_pb2_grpc import add_RenderServiceServicer_to_server

from services.control_auth import Gate, GateKeeper
from services.control_converse import AvatarControl, LiveHouse
from services.control_health import Health
from services.control_render import RenderControl
from services.job_queue import JobQueue

AVATAR = avatar_pb2.DESCRIPTOR.services_by_name["AvatarService"].full_name
RENDER = render_pb2.DESCRIPTOR.services_by_name["RenderService"].full_name
_LOOK_AGAIN_S = 0.05


class ControlError(ValueError):
    """The server cannot be started as asked: one line naming the option and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlTls:
    """Certificate chain and key (PEM files); with `client_ca` clients must have one, too."""

    cert: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlConfig:
    """Where the server listens and what it takes. `port` 0 is any free one."""

    host: str = "127.0.0.1"
    port: int = 0
    tls: ControlTls | None = None
    max_message_bytes: int = 16 << 20
    max_streams: int = 1024
    max_calls: int = 4096
    max_upload_bytes: int = 4 << 30
    max_transfers: int = 32
    stall_limit_s: float = 10.0
    keepalive_s: float = 30.0
    keepalive_timeout_s: float = 10.0
    min_ping_interval_s: float = 5.0

    def options(self) -> Sequence[tuple[str, Any]]:
        """What gRPC calls these."""
        return (
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.max_send_message_length", self.max_message_bytes),
            ("grpc.max_concurrent_streams", self.max_streams),
            ("grpc.max_metadata_size", 16 << 10),
            ("grpc.keepalive_time_ms", round(self.keepalive_s * 1000)),
            ("grpc.keepalive_timeout_ms", round(self.keepalive_timeout_s * 1000)),
            ("grpc.keepalive_permit_without_calls", 1),
            (
                "grpc.http2.min_ping_interval_without_data_ms",
                round(self.min_ping_interval_s * 1000),
            ),
            # Two servers on one port would each get half of the calls.
            ("grpc.so_reuseport", 0),
        )


@dataclass(slots=True, kw_only=True)
class Control:
    """A server that runs."""

    server: grpc.aio.Server
    port: int
    avatar: AvatarControl | None
    health: Health
    render: RenderControl | None

    async def drain(self, deadline_s: float) -> None:
        """Say that no more is taken, let live calls end with a status, then stop.

        Unary calls and downloads that are under way may finish within the deadline; who watches a
        job is told to come back.
        """
        if self.render is not None:
            self.render.drain()
        await self.health.end()
        loop = asyncio.get_running_loop()
        until_s = loop.time() + deadline_s
        if self.avatar is not None:
            self.avatar.drain()
            while self.avatar.num_calls and loop.time() < until_s:  # noqa: ASYNC110 - has an end
                await asyncio.sleep(_LOOK_AGAIN_S)
        await self.stop(max(0.0, until_s - loop.time()))

    async def stop(self, grace_s: float = 0.0) -> None:
        """Stop; calls that still run after the grace time are cancelled."""
        await self.server.stop(grace_s)


async def start_control(
    config: ControlConfig,
    gate: Gate,
    *,
    house: LiveHouse | None = None,
    queue: JobQueue | None = None,
) -> Control:
    """A running server with live calls, renders, or both.

    Raises:
        ControlError: the address is taken, or a TLS file cannot be used.
    """
    server = grpc.aio.server(
        interceptors=[GateKeeper(gate)],
        options=config.options(),
        maximum_concurrent_rpcs=config.max_calls,
    )
    avatar = render = None
    if house is not None:
        avatar = AvatarControl(
            house, max_message_bytes=config.max_message_bytes, has_render=queue is not None
        )
        add_AvatarServiceServicer_to_server(avatar, server)
    if queue is not None:
        render = RenderControl(
            queue,
            max_upload_bytes=config.max_upload_bytes,
            stall_limit_s=config.stall_limit_s,
            max_transfers=config.max_transfers,
        )
        add_RenderServiceServicer_to_server(render, server)
    names = [name for name, is_there in ((AVATAR, house), (RENDER, queue)) if is_there]
    told = await _add_health(server, names)
    reflection.enable_server_reflection(
        (
            *names,
            health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
            reflection.SERVICE_NAME,
        ),
        server,
    )
    port = _bind(server, config)
    await server.start()
    return Control(server=server, port=port, avatar=avatar, render=render, health=told)


async def _add_health(server: grpc.aio.Server, names: Sequence[str]) -> Health:
    """Health of the server and of each service: all serve as soon as they are there."""
    told = Health()
    health_pb2_grpc.add_HealthServicer_to_server(told, server)
    for name in ("", *names):
        await told.set(name, health_pb2.HealthCheckResponse.SERVING)
    return told


def _bind(server: grpc.aio.Server, config: ControlConfig) -> int:
    """Listen; the port that was got."""
    host = f"[{config.host}]" if ":" in config.host else config.host
    address = f"{host}:{config.port}"
    try:
        if config.tls is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, _credentials(config.tls))
    except RuntimeError as error:
        raise ControlError(f"gRPC cannot listen on {address}: choose another port") from error


def _credentials(tls: ControlTls) -> grpc.ServerCredentials:
    """What TLS files say."""
    _require_pair(tls)
    try:
        pair = (tls.key.read_bytes(), tls.cert.read_bytes())
        client_ca = tls.client_ca.read_bytes() if tls.client_ca else None
    except OSError as error:
        raise ControlError(f"TLS: {error.filename} cannot be read: check its path") from error
    return grpc.ssl_server_credentials(
        [pair], root_certificates=client_ca, require_client_auth=client_ca is not None
    )


def _require_pair(tls: ControlTls) -> None:
    """Parse the files: gRPC itself only says that it cannot listen.

    Raises:
        ControlError: names those that are wrong.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(tls.cert, tls.key, password="")  # a locked key asks nobody
    except ssl.SSLError as error:
        raise ControlError(
            f"TLS: {tls.cert} and {tls.key} are no certificate and its key ({error}): give PEM "
            "files that belong together"
        ) from error
    except OSError:
        pass  # which file it is, reading them says
    try:
        if tls.client_ca is not None:
            context.load_verify_locations(tls.client_ca)
    except ssl.SSLError as error:
        raise ControlError(
            f"TLS: {tls.client_ca} holds no certificate ({error}): give a PEM file"
        ) from error
    except OSError:
        pass


def encoding_threads(num_threads: int = 2) -> ThreadPoolExecutor:
    """Threads that encode pictures for live calls; shut them down behind the server."""
    return ThreadPoolExecutor(num_threads, thread_name_prefix="viva-grpc-encode")
