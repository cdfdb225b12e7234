"""Media end to end in one process: what a viewer of ours gets, and that nothing stays behind."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from aiortc import RTCRtpSender
from aiortc.rtp import RTCP_PSFB_APP, RtcpPsfbPacket, pack_remb_fci
from viva.v1.messages import OpenSession

from services.encode import OpusEncoder, Packed, opus_duration_ms
from services.encode_share import Encoders, Viewer
from services.performer import Performer
from services.webrtc import Peer, PeerSettings
from services.webrtc_channel import Message, MessageError
from services.webrtc_ice import IceSettings
from services.webrtc_sender import MediaSender
from services.webrtc_tracks import SoundTrack
from tests.support.fake_model import FakeModel
from tests.support.flash_performer import FlashPerformer
from tests.support.flash_picture import beeps
from tests.support.loopback import Loopback, offsets_s, tone_hz
from tests.support.media_rig import connect, packet_steps, play
from tests.support.tone_track import ToneTrack

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


@pytest.mark.parametrize("codec", ["VP8", "H264"])
def test_picture_and_sound_arrive_paired_to_the_frame(codec: Any) -> None:
    async def work(encoders: Encoders) -> None:
        performer = FlashPerformer(hum_hz=440, beep_hz=440)
        viewer = await watched(encoders, performer, PeerSettings(codec=codec))
        assert in_step(viewer)
        assert abs(tone_hz(viewer.audio) - 440) < 5
        assert packet_steps(viewer.audio) == {960}
        assert all(step % 3600 == 0 for step in packet_steps(viewer.video))
        video = viewer.peer.getTransceivers()[0]
        assert video._codecs[0].name == codec

    play(work)


def test_a_planted_offset_of_200_ms_is_seen() -> None:
    async def work(encoders: Encoders) -> None:
        viewer = await watched(encoders, FlashPerformer(flash_late=5))
        offsets = offsets_s(viewer.video, viewer.audio)
        assert np.median(offsets) == pytest.approx(-0.2, abs=0.005)
        assert not in_step(viewer)

    play(work)


def late_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hand pictures over 200 ms late, with their right pts."""
    put = Viewer.put_picture

    def late(viewer: Viewer, packed: Packed, at_s: float) -> None:
        asyncio.get_running_loop().call_later(0.2, put, viewer, packed, at_s)

    monkeypatch.setattr(Viewer, "put_picture", late)


def test_a_late_picture_is_reported_at_its_time_in_the_medium(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    late_pictures(monkeypatch)

    async def work(encoders: Encoders) -> None:
        assert in_step(await watched(encoders, FlashPerformer(), seconds=3))

    play(work)


def test_reports_of_sending_times_would_hide_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted defect: aiortc's own reports."""
    late_pictures(monkeypatch)
    monkeypatch.setattr(MediaSender, "_send_rtcp", RTCRtpSender._send_rtcp)

    async def work(encoders: Encoders) -> None:
        viewer = await watched(encoders, FlashPerformer())
        assert np.median(offsets_s(viewer.video, viewer.audio)) < -0.1
        assert not in_step(viewer)

    play(work)


def test_a_real_performer_is_seen_and_heard_in_step() -> None:
    async def work(encoders: Encoders) -> None:
        model = FakeModel()
        stream = await model.open(
            OpenSession(session="s", portrait=b"f", seed=1, sample_rate=48000)
        )
        performer = Performer(stream, chunk_frames=12)
        performer.start()
        peer, viewer = Peer(encoders), Loopback()
        answer = await peer.answer(await viewer.offer(), performer)
        await viewer.take(answer)
        await viewer.wait(0.5)
        performer.speak("u", beeps(48000, 3.0, every_s=0.8))
        performer.end("u")
        await performer.played("u")
        await asyncio.sleep(0.5)
        assert in_step(viewer)
        await performer.close()
        # A stream that is over ends whoever watches it.
        async with asyncio.timeout(5):
            await peer.closed.wait()
        await viewer.close()
        await model.close()

    play(work)


class Packs40(OpusEncoder):
    """The planted defect: packets of 40 ms."""

    def __init__(self) -> None:
        super().__init__()
        self._context.options = self._context.options | {"frame_duration": "40"}
        self._held: list[tuple[np.ndarray, int]] = []

    def encode(self, samples_T: np.ndarray, pts: int) -> list[Packed]:
        self._held.append((samples_T, pts))
        if len(self._held) < 2:
            return []
        both, first = np.concatenate([held for held, _ in self._held]), self._held[0][1]
        self._held.clear()
        import av

        frame = av.AudioFrame.from_ndarray(both[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = 48000, first
        return [
            Packed(bytes(packet), packet.pts or 0, packet.time_base)
            for packet in self._context.encode(frame)
        ]


@pytest.mark.parametrize("guarded", [True, False])
def test_planted_packets_of_40_ms_are_not_sent_and_would_be_seen(
    monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    monkeypatch.setattr("services.encode_share.OpusEncoder", Packs40)
    if not guarded:
        monkeypatch.setattr(SoundTrack, "_checked", lambda _, packed: packed)

    async def work(encoders: Encoders) -> None:
        async with FlashPerformer() as performer:
            peer, viewer = Peer(encoders), Loopback()
            await connect(peer, viewer, performer)
            await peer.connected.wait()
            await asyncio.sleep(0.6)
            if guarded:
                assert not viewer.audio.packets
            else:
                assert packet_steps(viewer.audio) == {1920}
            await peer.close()
            await viewer.close()

    play(work)


def test_the_planted_packets_are_what_they_claim() -> None:
    encoder = Packs40()
    packed = [p for n in range(4) for p in encoder.encode(np.zeros(960, np.int16), n * 960)]
    assert {opus_duration_ms(p.data) for p in packed} == {40.0}


def test_eight_sessions_hear_only_themselves() -> None:
    async def one(encoders: Encoders, hz: float) -> float:
        viewer = await watched(encoders, FlashPerformer(hum_hz=hz, every=10**9), seconds=1.5)
        return tone_hz(viewer.audio)

    async def work(encoders: Encoders) -> None:
        tones = [300.0 + 110 * n for n in range(8)]
        heard = await asyncio.gather(*(one(encoders, hz) for hz in tones))
        assert heard == pytest.approx(tones, abs=5)

    play(work)


def test_lost_pictures_and_narrow_lines_reach_the_encoder() -> None:
    async def work(encoders: Encoders) -> None:
        async with FlashPerformer(side=128) as performer:
            # H.264: its bitrate changes without a keyframe.
            peer, viewer = Peer(encoders, PeerSettings(codec="H264")), Loopback()
            await connect(peer, viewer, performer)
            await viewer.wait(1)
            share = peer.share
            assert share is not None
            before = share.figures.num_keyframes
            receiver = viewer.peer.getTransceivers()[0].receiver
            sender = peer._connection.getTransceivers()[0].sender  # type: ignore[union-attr] # open
            for _ in range(3):
                await receiver._send_rtcp_pli(sender._ssrc)
            narrow = RtcpPsfbPacket(
                fmt=RTCP_PSFB_APP,
                ssrc=1,
                media_ssrc=0,
                fci=pack_remb_fci(262144, [sender._ssrc]),
            )
            await receiver._send_rtcp(narrow)
            async with asyncio.timeout(5):
                while share.viewers[0].bandwidth_bps != 262144:  # noqa: ASYNC110 # plain value
                    await asyncio.sleep(0.02)
                while share.figures.num_keyframes == before:  # noqa: ASYNC110 # plain value
                    await asyncio.sleep(0.02)
            await asyncio.sleep(0.6)
            assert share.figures.num_keyframes == before + 1
            assert (await peer.stats())["video"]["packets_lost"] == 0
            await peer.close()
            await viewer.close()

    play(work)


def test_events_go_both_ways_and_nonsense_is_answered() -> None:
    heard: list[Message] = []

    def on_message(message: Message) -> None:
        if message["type"] == "bad":
            raise MessageError("bad is not known")
        heard.append(message)

    async def work(encoders: Encoders) -> None:
        async with FlashPerformer() as performer:
            peer, viewer = Peer(encoders, on_message=on_message), Loopback()
            assert viewer.channel is not None
            other = viewer.peer.createDataChannel("other")
            await connect(peer, viewer, performer)
            assert peer.send({"type": "session.ready"})
            await viewer.wait(0.5)
            for text in ('{"type":"interrupt"}', "[1]", "{", '{"type":"bad"}', "x" * 20_000):
                viewer.channel.send(text)
            async with asyncio.timeout(10):
                while len(viewer.messages) < 5:  # noqa: ASYNC110 # plain list
                    await asyncio.sleep(0.02)
            assert heard == [{"type": "interrupt"}]
            said = [json.loads(text) for text in viewer.messages]
            assert said[0] == {"type": "session.ready"}
            assert [one["type"] for one in said[1:]] == ["error"] * 4
            assert said[4]["detail"] == "a message has at most 16384 bytes, this one 20000"
            assert other.readyState in ("closed", "closing")
            await peer.close()
            await viewer.close()

    play(work)


def test_the_microphone_is_said_back_and_a_player_is_not_heard() -> None:
    async def work(encoders: Encoders) -> None:
        async with FlashPerformer(sample_rate=16000) as performer:
            peer = Peer(encoders)
            viewer = Loopback(audio="sendrecv", track=ToneTrack(600, speaks_s=(0.4, 1.1)))
            await connect(peer, viewer, performer)
            async with asyncio.timeout(10):
                while not performer.ended:  # noqa: ASYNC110 # plain list
                    await asyncio.sleep(0.05)
            sound = np.concatenate([pcm for _, pcm in performer.spoken]).astype(float)
            assert performer.ended == ["mic-1"]
            assert 16000 < len(sound) < 28000
            spectrum = np.abs(np.fft.rfft(sound))
            assert abs(spectrum.argmax() * 16000 / len(sound) - 600) < 10
            await peer.close()
            await viewer.close()

    play(work)


def test_a_whep_player_is_not_heard_even_if_it_sends() -> None:
    async def work(encoders: Encoders) -> None:
        async with FlashPerformer() as performer:
            peer = Peer(encoders)
            viewer = Loopback(audio="sendrecv", track=ToneTrack(600, speaks_s=(0.0, 9.0)))
            answer = await peer.answer(await viewer.offer(), performer, wants="recvonly")
            assert answer.count("a=sendonly") == 2
            await viewer.take(answer)
            await viewer.wait(0.5)
            assert not performer.spoken
            await peer.close()
            await viewer.close()

    play(work)


@pytest.mark.parametrize("direction", ["sendonly", "sendrecv"])
def test_a_whip_microphone_is_heard_and_gets_nothing_back(direction: str) -> None:
    async def work(encoders: Encoders) -> None:
        async with FlashPerformer(sample_rate=16000) as performer:
            peer = Peer(encoders, PeerSettings(mic_prefix="ada"))
            track = ToneTrack(600, speaks_s=(0.2, 0.7))
            sender = Loopback(audio=direction, track=track, events=False)
            answer = await peer.answer(await sender.offer(), performer, wants="sendonly")
            assert sorted(re.findall("a=(recvonly|inactive|send.*)", answer)) == [
                "inactive",
                "recvonly",
            ]
            await sender.take(answer)
            async with asyncio.timeout(10):
                while not performer.ended:  # noqa: ASYNC110 # plain list
                    await asyncio.sleep(0.05)
            assert performer.ended == ["ada-1"]
            assert not performer.queues, "nothing is encoded for it"
            await peer.close()
            await sender.close()

    play(work)


def test_ports_and_addresses_stay_within_what_is_allowed() -> None:
    async def work(encoders: Encoders) -> None:
        ice = IceSettings(udp_ports=(41000, 41003), addresses=("127.0.0.1",))
        async with FlashPerformer() as performer:
            peer, viewer = Peer(encoders, PeerSettings(ice=ice)), Loopback()
            answer = await connect(peer, viewer, performer)
            lines = [line.split() for line in answer.splitlines() if "a=candidate" in line]
            assert {line[4] for line in lines} == {"127.0.0.1"}
            assert {int(line[5]) for line in lines} <= set(range(41000, 41004))
            await viewer.wait(0.3)
            await peer.close()
            await viewer.close()

    play(work)


@pytest.mark.parametrize("ports", [(80, 90), (50000, 40000), (65000, 70000)])
def test_a_range_without_ports_is_refused(ports: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="must rise within 1024-65535"):
        IceSettings(udp_ports=ports)


def after(act: Callable[[Peer, Loopback], Awaitable[None]]) -> None:
    """Connect, act, and see the peer end by itself."""

    async def work(encoders: Encoders) -> None:
        async with FlashPerformer() as performer:
            peer, viewer = Peer(encoders), Loopback()
            await connect(peer, viewer, performer)
            await act(peer, viewer)
            async with asyncio.timeout(10):
                await peer.closed.wait()
            assert not performer.queues
            await viewer.close()

    play(work)


def test_a_viewer_who_leaves_takes_everything_along() -> None:
    async def act(_: Peer, viewer: Loopback) -> None:
        await viewer.wait(0.3)
        await viewer.close()

    after(act)


def test_closing_at_any_moment_leaves_nothing() -> None:
    async def act(peer: Peer, _: Loopback) -> None:
        await asyncio.gather(peer.close("client"), peer.close("capacity"))
        assert peer.close_reason == "client"

    after(act)
