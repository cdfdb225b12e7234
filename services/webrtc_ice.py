"""Which addresses and UDP ports a peer uses, beyond what aioice can be told.

aioice 0.13 binds a random port on every address but 127.0.0.1, and knows no range (aiortc issues 75
and 487): `settle` gives the connections of one peer a gatherer of ours, which binds inside a range
and on the addresses wanted. STUN and TURN stay aioice's. Without STUN servers none is asked:
aiortc's own default is a public one, and an unreachable server costs 5 s.
"""

import asyncio
import logging
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from aioice import Candidate, Connection
from aioice.candidate import candidate_foundation, candidate_priority
from aioice.ice import StunProtocol, server_reflexive_candidate
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection

from services.webrtc_end import ice_connections

_STUN_S = 5.0
_log = logging.getLogger("viva.ice")


@dataclass(frozen=True, slots=True, kw_only=True)
class IceSettings:
    """Addresses and ports for media.

    `udp_ports` are the first and the last port that may be bound, None for any. `addresses` are
    the local ones to offer, None for all but the loopback. `servers` are STUN and TURN, of which
    aioice uses the first of each.

    Raises:
        ValueError: the range is empty or outside 1024..65535.
    """

    udp_ports: tuple[int, int] | None = None
    addresses: tuple[str, ...] | None = None
    servers: tuple[RTCIceServer, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a range that holds no usable port."""
        if self.udp_ports is not None:
            first, last = self.udp_ports
            if not 1024 <= first <= last <= 65535:
                raise ValueError(f"UDP ports {first}-{last} must rise within 1024-65535")


def ice_server(urls: str | Sequence[str], username: str = "", credential: str = "") -> RTCIceServer:
    """A STUN or TURN server as aiortc takes it."""
    return RTCIceServer(
        urls=urls if isinstance(urls, str) else list(urls),
        username=username or None,
        credential=credential or None,
    )


def connection(settings: IceSettings) -> RTCPeerConnection:
    """A peer connection with these servers.

    Raises:
        ValueError: a server's address is malformed (raised when media are added).
    """
    return RTCPeerConnection(RTCConfiguration(iceServers=list(settings.servers)))


def settle(peer: RTCPeerConnection, settings: IceSettings) -> None:
    """Have a peer's candidates gathered by these settings; call before its local description."""
    if settings.udp_ports is None and settings.addresses is None:
        return
    for ice in ice_connections(peer):
        # aioice offers no option: the instance's own method is what gathering calls.
        setattr(ice, "get_component_candidates", partial(_gather, ice, settings))  # noqa: B010 # of a foreign type


async def _gather(
    ice: Connection,
    settings: IceSettings,
    component: int,
    addresses: list[str],
    timeout: int = 5,  # noqa: ASYNC109 # aioice's own signature
) -> list[Candidate]:
    """aioice's gathering with hosts of ours."""
    hosts = addresses if settings.addresses is None else list(settings.addresses)
    protocols = []
    for host in hosts:
        protocol = await _bind(ice, host, settings.udp_ports)
        if protocol is not None:
            protocol.local_candidate = _host_candidate(protocol, component)
            protocols.append(protocol)
            ice._protocols.append(protocol)  # at once: who hangs up meanwhile closes it
    if hosts and not protocols:
        _log.warning("no UDP port is free in %s: widen the range", settings.udp_ports)
    candidates = [protocol.local_candidate for protocol in protocols]
    if ice.stun_server:
        candidates += await _reflexive(protocols, ice.stun_server)
    # No hosts are left for it: it goes to the TURN server only.
    return candidates + await Connection.get_component_candidates(ice, component, [], timeout)


async def _bind(ice: Connection, host: str, ports: tuple[int, int] | None) -> StunProtocol | None:
    """A socket on a free port of the range, from a random place on; None if there is none."""
    for port in _from_anywhere(ports):
        try:
            _, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: StunProtocol(ice), local_addr=(host, port)
            )
        except OSError:
            continue
        return protocol
    return None


def _from_anywhere(ports: tuple[int, int] | None) -> Iterable[int]:
    """Every port of a range once; 0 lets the system choose."""
    if ports is None:
        return [0]
    count = ports[1] - ports[0] + 1
    begin = random.randrange(count)  # noqa: S311 # spreads load, hides nothing
    return [ports[0] + (begin + n) % count for n in range(count)]


def _host_candidate(protocol: StunProtocol, component: int) -> Candidate:
    """The candidate of a bound socket."""
    host, port = protocol.transport.get_extra_info("sockname")[:2]
    return Candidate(
        foundation=candidate_foundation("host", "udp", host),
        component=component,
        transport="udp",
        priority=candidate_priority(component, "host"),
        host=host,
        port=port,
        type="host",
    )


async def _reflexive(protocols: list[StunProtocol], server: tuple[str, int]) -> list[Candidate]:
    """How a STUN server sees the IPv4 sockets, as far as it answers in time."""
    asked = [
        asyncio.create_task(server_reflexive_candidate(protocol, server))
        for protocol in protocols
        if ":" not in protocol.local_candidate.host
    ]
    if not asked:
        return []
    done, late = await asyncio.wait(asked, timeout=_STUN_S)
    for task in late:
        task.cancel()
    return [task.result()[0] for task in done if task.exception() is None]
