"""Ends a connection at any moment, also while it is being made.

aiortc 1.16 makes connections in a task that nobody holds. Where `close` comes between two of its
steps, the later ones are done all the same: aioice begins to ask for consent and never ends,
a sender sends and a receiver starts its decoder's thread, and nobody stops them.
"""

from aioice import Connection
from aiortc import RTCPeerConnection


async def hang_up(peer: RTCPeerConnection) -> None:
    """Close a connection; of it no task, thread or socket is left."""
    for ice in ice_connections(peer):
        _hinder(ice, "query_consent")
    for transceiver in peer.getTransceivers():
        _hinder(transceiver.sender, "send")
        _hinder(transceiver.receiver, "receive")
    await peer.close()


def ice_connections(peer: RTCPeerConnection) -> list[Connection]:
    """aioice's connections of a peer."""
    transports = getattr(peer, "_RTCPeerConnection__iceTransports")  # noqa: B009 # private name
    return [transport.iceGatherer._connection for transport in transports]


def _hinder(whose: object, step: str) -> None:
    """Have a step do nothing from now on; what it began before goes on until it is stopped."""
    setattr(whose, step, _do_nothing)


async def _do_nothing(*_: object) -> None:
    """In place of a step."""
