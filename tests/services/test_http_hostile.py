"""What strangers send: refused with a problem, and the server serves on."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yarl import URL

from services.http_server import GatewayRunner
from tests.support.gateways import KEY, bearer, gateway, picture, problem

pytestmark = pytest.mark.unit

KEYED = {"X-API-KEY": KEY}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
FIELDS = st.dictionaries(
    st.sampled_from(
        ["portrait", "seed", "width", "height", "crop", "codec", "wait", "sdp", "type", "text",
         "voice", "utterance", "url", "bearer", "audio", "sample_rate", "event_id", "fps"]
    ),
    JSON,
)  # fmt: skip


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "bad_json"),
        (b"[1]", 400, "bad_json"),
        (b"[" * 50_000, 400, "bad_json"),
        (b"\xff\xfe", 400, "bad_json"),
        (b'{"colour": "red"}', 400, "bad_field"),
        (b'{"seed": "1"}', 400, "bad_field"),
        (b'{"seed": true}', 400, "bad_field"),
        (b'{"seed": 9223372036854775808}', 400, "bad_field"),
        (b'{"seed": -1}', 400, "bad_field"),
        (b'{"width": 65, "height": 64}', 400, "bad_field"),
        (b'{"width": 64}', 400, "bad_field"),
        (b'{"crop": "1,2"}', 400, "bad_field"),
        (b'{"portrait": "../../etc/passwd"}', 400, "bad_field"),
        (b'{"portrait": "ada/../ada"}', 400, "bad_field"),
        (b'{"portrait": "nobody"}', 404, "no_portrait"),
        (b'{"portrait": "ada\\u0000"}', 404, "no_portrait"),
        (b'{"x": "' + b"y" * 70_000 + b'"}', 413, "too_large"),
    ],
)
def test_bodies_that_make_no_session(body: bytes, status: int, code: str) -> None:
    async def run() -> None:
        async with gateway() as g:
            headers = KEYED | {"Content-Type": "application/json"}
            answer = await g.client.post("/v1/sessions", data=body, headers=headers)
            await problem(answer, status, code)
            assert len(g.sessions) == 0

    asyncio.run(run())


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/web/nothing.js", 404, "not_found"),
        ("GET", "/web/..%2f..%2fpyproject.toml", 404, "not_found"),
        ("GET", "/v1/portraits/..%2f..%2fcast.json/thumbnail", 404, "no_portrait"),
        ("GET", "/v1/portraits/%00/thumbnail", 404, "no_portrait"),
        ("DELETE", "/v1/portraits", 405, "method_refused"),
        ("PUT", "/v1/sessions", 405, "method_refused"),
        ("POST", "/whep/ada", 401, "key_missing"),
        ("POST", "/v1/sessions/s_0123456789abcdef/offer", 401, "token_missing"),
        ("GET", "/v1/sessions/s_0123456789abcdef/events", 401, "token_missing"),
    ],
)
def test_paths_that_lead_nowhere(method: str, path: str, status: int, code: str) -> None:
    async def run() -> None:
        async with gateway() as g:
            answer = await g.client.request(method, URL(path, encoded=True))
            await problem(answer, status, code)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("data", "kind", "status", "code"),
    [
        (b"", "image/png", 422, "bad_picture"),
        (b"GIF89a" + b"0" * 100, "image/png", 422, "bad_picture"),
        (picture()[:200], "image/png", 422, "bad_picture"),
        (picture(16, 16), "image/png", 422, "bad_picture"),
        (picture(), "text/plain", 415, "wrong_type"),
        (b"x" * 200_000, "image/png", 413, "too_large"),
        (b"no form", "multipart/form-data; boundary=b", 400, "bad_request"),
        (b"no form", "multipart/form-data", 400, "bad_request"),
    ],
)
def test_pictures_that_are_none(data: bytes, kind: str, status: int, code: str) -> None:
    async def run() -> None:
        async with gateway(limits={"max_picture_bytes": 150_000}) as g:
            headers = KEYED | {"Content-Type": kind}
            answer = await g.client.post("/v1/portraits", data=data, headers=headers)
            await problem(answer, status, code)

    asyncio.run(run())


def test_a_picture_of_too_many_pixels_is_refused_by_its_header() -> None:
    async def run() -> None:
        async with gateway(limits={"max_picture_pixels": 10_000}) as g:
            headers = KEYED | {"Content-Type": "image/png"}
            answer = await g.client.post("/v1/portraits", data=picture(101, 100), headers=headers)
            await problem(answer, 422, "bad_picture")

    asyncio.run(run())


@pytest.mark.parametrize("sdp", ["", "garbage", "v=1\r\n", "\0", "m=" * 9000])
def test_an_offer_that_is_none_connects_nobody(sdp: str) -> None:
    async def run() -> None:
        async with gateway() as g:
            made = await g.make()
            answer = await g.offered(made, sdp)
            assert answer.status == 400
            assert not g.studio.peers

    asyncio.run(run())


def test_a_slow_sender_is_cut_off() -> None:
    async def run() -> None:
        async with gateway(limits={"body_timeout_s": 0.1}) as g:
            host, port = g.client.server.host, g.client.server.port
            head = (
                f"POST /v1/sessions HTTP/1.1\r\nHost: {host}\r\nX-API-KEY: {KEY}\r\n"
                "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
            )
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(head.encode())
            async with asyncio.timeout(5):
                assert b"408" in await reader.readline()
            writer.close()
            await writer.wait_closed()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b" 400 "),
        (b"GET / HTTP/9.9\r\n\r\n", b" 400 "),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", b" 431 "),
        (b"GET /" + b"y" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", b" 431 "),
        (b"GET / HTTP/1.1\r\n" + b"".join(b"X%d: 1\r\n" % n for n in range(500)) + b"\r\n",
         b" 431 "),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", b" 400 "),
    ],
)  # fmt: skip
def test_what_is_no_request_is_a_problem_too(sent: bytes, status: bytes) -> None:
    async def run() -> None:
        async with _RawServer() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            async with asyncio.timeout(5):
                answer = await reader.read()
            assert status in answer.split(b"\r\n", 1)[0], answer
            assert b"application/problem+json" in answer
            writer.close()
            await writer.wait_closed()

    asyncio.run(run())


def test_a_head_that_never_ends_is_cut_off() -> None:
    async def run() -> None:
        async with _RawServer() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n")
            async with asyncio.timeout(5):
                assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    asyncio.run(run())


def test_too_many_requests_are_told_to_wait() -> None:
    async def run() -> None:
        async with gateway(limits={"requests_per_s": 1, "burst": 3}) as g:
            for _ in range(3):
                assert (await g.client.get("/v1/model")).status == 200
            answer = await g.client.get("/v1/model")
            body = await problem(answer, 429, "rate")
            assert answer.headers["Retry-After"] == str(body["retry_after_s"])
            assert (await g.client.get("/healthz")).status == 200
            g.clock.now_s += 1
            assert (await g.client.get("/v1/model")).status == 200

    asyncio.run(run())


class _RawServer:
    """The gateway's application behind the product's own server."""

    def __init__(self) -> None:
        async def ok(request: web.Request) -> web.Response:
            del request
            return web.Response()

        app = web.Application()
        app.router.add_get("/", ok)
        self._runner = GatewayRunner(app, header_timeout_s=0.3)

    async def __aenter__(self) -> int:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return int(self._runner.addresses[0][1])

    async def __aexit__(self, *error: object) -> None:
        await self._runner.cleanup()


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(bodies=st.lists(FIELDS | JSON, min_size=1, max_size=8), raw=st.binary(max_size=200))
def test_whatever_is_sent_nothing_fails(bodies: list[Any], raw: bytes) -> None:
    """No 5xx but full ones, everything a problem, nothing left behind."""

    async def run() -> None:
        limits = {"requests_per_s": 1e6, "burst": 100_000, "sessions_per_s": 1e6}
        async with gateway(limits=limits | {"sessions_burst": 100_000}) as g:
            made = await g.make()
            one, token = f"/v1/sessions/{made['session_id']}", bearer(made["token"])
            paths = ["start", "offer", "speak", "interrupt", "whip", "token", "keep-alive"]
            for body in bodies:
                data = json.dumps(body).encode()
                for path, head in [("/v1/sessions", KEYED)] + [
                    (f"{one}/{p}", token) for p in paths
                ]:
                    for sent in (data, raw):
                        headers = head | {"Content-Type": "application/json"}
                        answer = await g.client.post(path, data=sent, headers=headers)
                        await _holds(answer)
                for path in (f"/whep/{made['session_id']}", "/whep/ada"):
                    headers = (token if "s_" in path else KEYED) | {
                        "Content-Type": "application/sdp"
                    }
                    await _holds(await g.client.post(path, data=raw, headers=headers))

    asyncio.run(run())


async def _holds(answer: Any) -> None:
    text = await answer.text()
    assert answer.status < 500 or answer.status in (502, 503), text
    if answer.status >= 400:
        assert answer.content_type == "application/problem+json"
        assert json.loads(text)["status"] == answer.status
