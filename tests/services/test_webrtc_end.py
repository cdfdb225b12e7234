"""Peers that end before they are connected, by our hand or by waiting in vain."""

import asyncio
import contextlib

import pytest

from services.encode_share import Encoders
from services.webrtc import Peer, PeerSettings
from tests.support.flash_performer import FlashPerformer
from tests.support.loopback import Loopback
from tests.support.media_rig import connect, play

pytestmark = pytest.mark.unit


def test_closing_while_the_connection_is_made_leaves_nothing() -> None:
    async def work(encoders: Encoders) -> None:
        async with FlashPerformer() as performer:
            for ms in range(0, 48, 6):
                peer, viewer = Peer(encoders), Loopback()
                await connect(peer, viewer, performer)
                await asyncio.sleep(ms / 1000)
                await peer.close()
                await viewer.close()

    play(work)


def test_a_peer_that_never_connects_gives_up() -> None:
    async def work(encoders: Encoders) -> None:
        async with FlashPerformer() as performer:
            peer, viewer = Peer(encoders, PeerSettings(connect_s=0.2)), Loopback()
            await peer.answer(await viewer.offer(), performer)
            await asyncio.wait_for(peer.closed.wait(), 5)
            with contextlib.suppress(Exception):
                await viewer.close()

    play(work)
