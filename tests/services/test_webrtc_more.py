"""Media end to end in one process: what a viewer of ours gets, and that nothing stays behind."""

import asyncio
import contextlib

import numpy as np
import pytest

from services.encode_share import Encoders
from services.webrtc import Peer, PeerSettings
from tests.support.flash_performer import FlashPerformer
from tests.support.loopback import Loopback, offsets_s
from tests.support.media_rig import connect, play

pytestmark = pytest.mark.unit

FRAME_S = 0.04


async def watched(
    encoders: Encoders,
    performer: FlashPerformer,
    settings: PeerSettings | None = None,
    seconds: float = 2.0,
) -> Loopback:
    """A viewer that has played, both ends closed again."""
    async with performer:
        peer, viewer = Peer(encoders, settings), Loopback()
        await connect(peer, viewer, performer)
        await viewer.wait(seconds)
        await peer.close()
        await viewer.close()
    return viewer


def in_step(viewer: Loopback) -> bool:
    """The check that every planted offset must break."""
    offsets = offsets_s(viewer.video, viewer.audio)
    # Median: a busy machine may leave out the first picture of a flash.
    return len(offsets) >= 2 and bool(abs(np.median(offsets)) < FRAME_S)


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
