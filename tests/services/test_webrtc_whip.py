"""Pushing to a WHIP server: one that takes the stream, refuses it, or is not there."""

import asyncio

import pytest
from aiohttp import web
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from services.encode_share import Encoders
from services.webrtc import Peer
from services.webrtc_end import hang_up
from services.webrtc_sdp import SdpError
from services.webrtc_whip import WhipError, bearer_for, may_follow
from tests.support.flash_performer import FlashPerformer
from tests.support.media_rig import play

pytestmark = pytest.mark.unit


class WhipServer:
    """Takes one stream, counts its pictures."""

    def __init__(
        self, *, status: int = 201, body: str | None = None, location: str = "/resource/1"
    ) -> None:
        self.status, self.body, self.location = status, body, location
        self.tokens: list[str | None] = []
        self.deleted: list[str] = []
        self.kinds: list[str] = []
        self.num_frames = 0
        self._peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> str:
        app = web.Application()
        app.router.add_post("/whip/live", self._post)
        app.router.add_post("/redirect/{status}", self._redirect)
        app.router.add_delete("/resource/{name}", self._delete)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        return f"http://127.0.0.1:{port}/whip/live"

    async def __aexit__(self, *_: object) -> None:
        await hang_up(self._peer)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._runner.cleanup()

    async def _post(self, request: web.Request) -> web.StreamResponse:
        self.tokens.append(request.headers.get("Authorization"))
        assert request.content_type == "application/sdp"
        if self.status != 201 or self.body is not None:
            return web.Response(status=self.status, text=self.body or "no")
        self._peer.on(
            "track", lambda track: self._tasks.append(asyncio.create_task(self._read(track)))
        )
        offer = RTCSessionDescription(sdp=await request.text(), type="offer")
        await self._peer.setRemoteDescription(offer)
        await self._peer.setLocalDescription(await self._peer.createAnswer())
        headers = {"Location": self.location, "ETag": '"1"', "Content-Type": "application/sdp"}
        answer = web.StreamResponse(status=201, headers=headers)
        await answer.prepare(request)
        body = self._peer.localDescription.sdp.encode()
        for half in (body[:100], body[100:]):  # answers of many candidates come in several pieces
            await answer.write(half)
            await asyncio.sleep(0.02)
        await answer.write_eof()
        return answer

    async def _redirect(self, request: web.Request) -> web.Response:
        self.tokens.append(request.headers.get("Authorization"))
        status = int(request.match_info["status"])
        return web.Response(status=status, headers={"Location": self.location})

    async def _delete(self, request: web.Request) -> web.Response:
        self.deleted.append(request.match_info["name"])
        return web.Response()

    async def _read(self, track: object) -> None:
        self.kinds.append(track.kind)  # type: ignore[attr-defined] # a track
        while True:
            await track.recv()  # type: ignore[attr-defined] # a track
            self.num_frames += 1


def test_a_stream_is_pushed_and_taken_back() -> None:
    async def work(encoders: Encoders) -> None:
        server = WhipServer()
        async with server as url, FlashPerformer() as performer:
            peer = Peer(encoders)
            await peer.push(url, "secret", performer)
            async with asyncio.timeout(15):
                while server.num_frames < 20:  # noqa: ASYNC110 # plain number
                    await asyncio.sleep(0.05)
            assert sorted(server.kinds) == ["audio", "video"]
            await peer.close()
            assert server.tokens == ["Bearer secret"]
            assert server.deleted == ["1"]
            assert not performer.queues

    play(work)


@pytest.mark.parametrize(
    ("status", "reason"), [(403, "refused the token"), (404, "answered 404"), (200, "answered 200")]
)
def test_a_server_that_refuses_is_named(status: int, reason: str) -> None:
    async def work(encoders: Encoders) -> None:
        async with WhipServer(status=status) as url:
            peer = Peer(encoders)
            with pytest.raises(WhipError, match=reason):
                await peer.push(url, None, FlashPerformer())
            assert peer.closed.is_set()

    play(work)


def test_an_answer_that_is_none_is_refused() -> None:
    async def work(encoders: Encoders) -> None:
        async with WhipServer(body="hello") as url:
            with pytest.raises(SdpError, match="the answer is no SDP"):
                await Peer(encoders).push(url, None, FlashPerformer())

    play(work)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/whip", "not a url"])
def test_a_server_that_is_not_there_is_one_line(url: str) -> None:
    async def work(encoders: Encoders) -> None:
        with pytest.raises(WhipError, match="cannot be reached"):
            await Peer(encoders).push(url, None, FlashPerformer(), timeout_s=3)

    play(work)


def test_a_redirect_within_the_host_is_followed_and_elsewhere_the_token_stays_behind() -> None:
    async def work(encoders: Encoders) -> None:
        taker = WhipServer()
        async with taker as end, FlashPerformer() as performer:
            balancer = WhipServer(location=end)
            async with balancer as url:
                peer = Peer(encoders)
                await peer.push(url.replace("whip/live", "redirect/307"), "secret", performer)
                await peer.close()
        assert balancer.tokens == ["Bearer secret"]
        assert taker.tokens == [None], "another port is another server"
        assert taker.deleted == ["1"]

    play(work)


@pytest.mark.parametrize(
    ("status", "location", "reason"),
    [
        (302, "/whip/live", "redirects by 302, not 307"),
        (307, "", "redirects by 307"),
        (307, "http://other.example/whip", "only https elsewhere is followed"),
        (308, "ftp://127.0.0.1/whip", "only https elsewhere is followed"),
        (307, "/redirect/307", "redirects over 3 times"),
        (307, "http://[::1/x", "cannot be reached"),
    ],
)
def test_a_redirect_that_is_not_followed(status: int, location: str, reason: str) -> None:
    async def work(encoders: Encoders) -> None:
        async with WhipServer(location=location) as url:
            begin = url.replace("whip/live", f"redirect/{status}")
            with pytest.raises(WhipError, match=reason):
                await Peer(encoders).push(begin, "secret", FlashPerformer(), timeout_s=3)

    play(work)


@pytest.mark.parametrize(
    ("here", "there", "follows", "keeps"),
    [
        ("https://a.example/x", "https://a.example/y", True, True),
        ("https://a.example/x", "https://a.example:443/y", True, True),
        ("https://a.example/x", "https://b.example/y", True, False),
        ("https://a.example/x", "https://a.example:8443/y", True, False),
        ("https://a.example/x", "http://a.example/y", False, False),
        ("http://a.example/x", "http://a.example:81/y", True, False),
        ("http://a.example/x", "https://a.example/y", True, False),
        ("http://a.example/x", "http://b.example/y", False, False),
        ("https://a.example/x", "https://me:pw@a.example/y", False, True),
    ],
)
def test_where_a_server_may_send_us(here: str, there: str, follows: bool, keeps: bool) -> None:
    assert may_follow(here, there) is follows
    assert (bearer_for(there, here, "secret") == "secret") is keeps
