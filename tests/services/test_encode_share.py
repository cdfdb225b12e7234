"""One encode for all who watch: packets for everybody, keyframes for who joins, and an end."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from fractions import Fraction

import pytest

from services.encode_share import Encoders, Kind, Viewer
from services.packet_queue import Due, PacketQueue, ViewerGone
from tests.support.flash_performer import FlashPerformer, FlashQueue

pytestmark = pytest.mark.unit

VP8, H264 = Kind("VP8"), Kind("H264")


class Scripted(FlashPerformer):
    """Beats come when the test says so."""

    def tell(self, tick: int, *, picture: bool = True) -> None:
        beat = self.beat(tick)
        for queue in list(self.queues):
            queue.put(beat if picture else replace(beat, picture_HWC=None))


async def settled(source: Scripted) -> None:
    """Until nothing waits to be encoded."""
    async with asyncio.timeout(10):
        while any(len(queue) for queue in source.queues):  # noqa: ASYNC110 # theirs, no event
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)


def taken(queue: PacketQueue) -> list[Due]:
    return [queue._waiting.popleft() for _ in range(len(queue))]


def run(work: Callable[[Encoders, Scripted], Awaitable[None]], **settings: object) -> None:
    async def all_of_it() -> None:
        encoders, source = Encoders(), Scripted(**settings)  # type: ignore[arg-type] # passed on
        await work(encoders, source)
        await encoders.close()
        assert len(asyncio.all_tasks()) == 1
        assert not source.queues

    before = threading.active_count()
    asyncio.run(all_of_it())
    assert threading.active_count() == before


async def beats(source: Scripted, ticks: range) -> None:
    await asyncio.sleep(0.01)
    for tick in ticks:
        source.tell(tick)
        await settled(source)


def test_one_encode_serves_all_viewers_of_a_codec() -> None:
    async def work(encoders: Encoders, source: Scripted) -> None:
        share = encoders.share(source)
        viewers = [encoders.share(source).watch(VP8) for _ in range(8)]
        other = share.watch(H264)
        await beats(source, range(5))
        assert share.figures.num_pictures == 10
        assert share.figures.num_packets == 10
        packets = [[due.packed for due in taken(viewer.pictures)] for viewer in viewers]
        assert all(each == packets[0] for each in packets)
        assert [packed.is_keyframe for packed in packets[0]] == [True] + [False] * 4
        assert [packed.pts for packed in packets[0]] == [0, 3600, 7200, 10800, 14400]
        sound = [due.packed.pts for due in taken(other.sound)]
        assert sound == [960 * i - 312 for i in range(10)]

    run(work)


def test_who_joins_late_begins_with_a_keyframe_and_the_same_clock() -> None:
    async def work(encoders: Encoders, source: Scripted) -> None:
        share = encoders.share(source)
        first = share.watch(VP8)
        await beats(source, range(3))
        second = share.watch(VP8)
        await beats(source, range(3, 6))
        joined = [due.packed for due in taken(second.pictures)]
        assert joined[0].is_keyframe
        assert joined == [due.packed for due in taken(first.pictures)][3:]
        assert taken(second.sound)[0].packed.pts == 3 * 1920 - 312

    run(work)


def test_a_lost_picture_is_answered_once_for_all() -> None:
    async def work(encoders: Encoders, source: Scripted) -> None:
        viewers = [encoders.share(source).watch(VP8) for _ in range(3)]
        await beats(source, range(2))
        await asyncio.sleep(0.5)
        for viewer in viewers:
            viewer.ask_keyframe()
        await beats(source, range(2, 6))
        keys = [due.packed.is_keyframe for due in taken(viewers[0].pictures)]
        assert keys == [True, False, True, False, False, False]

    run(work)


def test_the_second_packet_of_a_beat_is_due_20_ms_after_the_first() -> None:
    async def work(encoders: Encoders, source: Scripted) -> None:
        viewer = encoders.share(source).watch(VP8)
        await beats(source, range(1))
        first, second = taken(viewer.sound)
        assert second.at_s - first.at_s == pytest.approx(0.02)

    run(work)


def test_dropped_pictures_are_skipped_and_sound_goes_on() -> None:
    async def work(encoders: Encoders, source: Scripted) -> None:
        share = encoders.share(source)
        viewer = share.watch(VP8)
        await beats(source, range(1))
        source.tell(1, picture=False)
        await settled(source)
        # The encoder is busy while four beats come: it leaves out all but the latest.
        gate = threading.Event()
        busy = [asyncio.create_task(encoders.run(gate.wait)) for _ in range(2)]
        await asyncio.sleep(0.01)
        for tick in (2, 3, 4, 5):
            share._place(source.beat(tick))
            source.tell(tick, picture=False)
            await asyncio.sleep(0.01)
        gate.set()
        await asyncio.gather(*busy)
        await settled(source)
        assert len(taken(viewer.sound)) == 12
        assert [due.packed.pts // 3600 for due in taken(viewer.pictures)] == [0, 2, 5]

    run(work)


def test_a_viewer_that_does_not_read_is_bounded_and_begins_anew_with_a_keyframe() -> None:
    async def work(encoders: Encoders, source: Scripted) -> None:
        share = encoders.share(source)
        viewer = share.watch(VP8)
        viewer.pictures = PacketQueue(3)
        await beats(source, range(4))
        assert len(viewer.pictures) == 0
        assert viewer.needs_keyframe
        await asyncio.sleep(0.5)
        await beats(source, range(4, 6))
        assert [due.packed.is_keyframe for due in taken(viewer.pictures)] == [True, False]

    run(work)


def test_the_slowest_viewer_sets_the_bitrate() -> None:
    async def work(encoders: Encoders, source: Scripted) -> None:
        share = encoders.share(source)
        share.watch(H264)
        viewer = share.watch(H264)
        await beats(source, range(1))
        encoding = share._encodings[H264]
        assert encoding.encoder is not None
        assert encoding.encoder.bitrate_bps is None
        viewer.bandwidth_bps = 250_000
        await beats(source, range(1, 2))
        assert encoding.encoder.bitrate_bps == 165_000

    run(work, side=256)


def test_sound_alone_needs_no_picture() -> None:
    async def work(encoders: Encoders, source: Scripted) -> None:
        share = encoders.share(source)
        viewer = share.watch(Kind(None))
        await beats(source, range(2))
        assert share.figures.num_pictures == 0
        assert len(taken(viewer.sound)) == 4

    run(work, fps=Fraction(25), sample_rate=48000)


def test_the_last_viewer_ends_the_encoding_and_readers_are_told() -> None:
    async def work(encoders: Encoders, source: Scripted) -> None:
        share = encoders.share(source)
        viewers: list[Viewer] = [share.watch(VP8), share.watch(VP8)]
        await beats(source, range(1))
        assert len(source.queues) == 1
        viewers[0].close()
        viewers[0].close()
        viewers[1].close()
        await asyncio.sleep(0.05)
        assert not source.queues
        assert encoders.share(source) is not share
        with pytest.raises(ViewerGone):
            await viewers[1].sound.get()

    run(work)


def test_a_picture_that_cannot_be_encoded_ends_watching_instead_of_freezing_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work(encoders: Encoders, source: Scripted) -> None:
        viewer = encoders.share(source).watch(VP8)
        await asyncio.sleep(0.01)
        source.side = 63
        source.tell(0)
        await asyncio.sleep(0.1)
        with pytest.raises(ViewerGone):
            await viewer.pictures.get()

    run(work)
    assert "encoding broke" in caplog.text
    assert "even sides" in caplog.text


def test_a_stream_that_ends_ends_its_viewers() -> None:
    async def work(encoders: Encoders, source: Scripted) -> None:
        viewer = encoders.share(source).watch(VP8)
        await beats(source, range(1))
        queue: FlashQueue
        for queue in list(source.queues):
            queue.put(None)
        await asyncio.sleep(0.05)
        with pytest.raises(ViewerGone):
            await viewer.sound.get()

    run(work)
