"""WHEP and WHIP: the status codes and headers of RFC 9725 and of the WHEP draft."""

import asyncio

import pytest

from tests.support.gateways import KEY, SDP_TYPE, bearer, gateway, problem

pytestmark = pytest.mark.unit

KEYED = bearer(KEY)
FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}
CANDIDATE = "a=ice-ufrag:x\r\na=candidate:1 1 udp 1 10.0.0.1 9 typ host\r\n"


def test_a_portrait_is_watched_and_left() -> None:
    async def run() -> None:
        ice = {"urls": ["turn:turn.example:3478"], "username": "u", "credential": 'p"w'}
        async with gateway(ice=ice) as g:
            found = await g.client.options("/whep/ada")
            assert (found.status, found.headers["Accept-Post"]) == (204, "application/sdp")
            answer = await g.client.post("/whep/ada", data="v=0\r\n", headers=KEYED | SDP_TYPE)
            assert answer.status == 201
            assert answer.content_type == "application/sdp"
            assert (await answer.text()).startswith("v=0")
            assert answer.headers["Link"] == (
                '<turn:turn.example:3478>; rel="ice-server"; username="u"; '
                'credential="p\\"w"; credential-type="password"'
            )
            where, etag = answer.headers["Location"], answer.headers["ETag"]
            assert (await g.client.get(where)).status == 204
            tagged = KEYED | FRAGMENT | {"If-Match": etag}
            assert (await g.client.patch(where, data=CANDIDATE, headers=tagged)).status == 204
            bad = await g.client.patch(where, data="x", headers=tagged)
            await problem(bad, 400, "bad_sdp")
            for headers, status, code in (
                (KEYED | FRAGMENT, 428, "etag_missing"),
                (KEYED | SDP_TYPE | {"If-Match": etag}, 415, "wrong_type"),
                (tagged | {"If-Match": "*"}, 422, "unsupported"),
                (tagged | {"If-Match": '"old"'}, 412, "etag_stale"),
            ):
                refused = await g.client.patch(where, data=CANDIDATE, headers=headers)
                await problem(refused, status, code)
            await problem(await g.client.delete(where), 401, "token_missing")
            assert (await g.client.delete(where, headers=KEYED)).status == 200
            await problem(await g.client.delete(where, headers=KEYED), 410, "session_closed")
            assert not g.model.streams

    asyncio.run(run())


def test_what_cannot_be_watched_is_refused() -> None:
    async def run() -> None:
        async with gateway(capacity=1) as g:
            json = await g.client.post("/whep/ada", data="{}", headers=KEYED)
            await problem(json, 415, "wrong_type")
            bad = await g.client.post("/whep/ada", data="x", headers=KEYED | SDP_TYPE)
            await problem(bad, 400, "bad_sdp")
            assert len(g.sessions) == 0, "a refused viewer leaves no session"
            nobody = await g.client.post("/whep/nobody", data="v=0", headers=KEYED | SDP_TYPE)
            await problem(nobody, 404, "no_portrait")
            made = await g.make()
            headers = bearer(made["token"]) | SDP_TYPE
            early = await g.client.post(made["whep_url"], data="v=0", headers=headers)
            await problem(early, 409, "nothing_to_watch")
            assert "Retry-After" in early.headers
            assert (await g.offered(made)).status == 200
            assert (await g.client.post(made["whep_url"], data="v=0", headers=headers)).ok
            full = await g.client.post("/whep/ada", data="v=0", headers=KEYED | SDP_TYPE)
            await problem(full, 503, "capacity")
            assert "Retry-After" in full.headers

    asyncio.run(run())


def test_a_microphone_comes_by_whip_and_leaves() -> None:
    async def run() -> None:
        async with gateway() as g:
            made = await g.make()
            token, path = bearer(made["token"]), made["mic_url"]
            found = await g.client.options(path)
            assert (found.status, found.headers["Accept-Post"]) == (204, "application/sdp")
            for headers, status, code in (
                (SDP_TYPE, 401, "token_missing"),
                (bearer((await g.make())["token"]) | SDP_TYPE, 403, "token_foreign"),
                (token, 415, "wrong_type"),
                (token | SDP_TYPE, 400, "bad_sdp"),
            ):
                refused = await g.client.post(path, data="x", headers=headers)
                await problem(refused, status, code)
            again = bearer(made["token"]) | SDP_TYPE
            answer = await g.client.post(path, data="v=0", headers=again)
            assert (answer.status, answer.content_type) == (201, "application/sdp")
            assert g.studio.wanted[-1] == "sendonly"
            where, etag = answer.headers["Location"], answer.headers["ETag"]
            assert where.startswith(path)
            assert (await g.client.get(where)).status == 204
            tagged = token | FRAGMENT | {"If-Match": etag}
            assert (await g.client.patch(where, data=CANDIDATE, headers=tagged)).status == 204
            await problem(await g.client.delete(where), 401, "token_missing")
            assert (await g.client.delete(where, headers=token)).status == 200
            assert g.studio.peers[-1].is_closed
            assert (await g.shown(made))["state"] == "ready", "the session outlives it"
            await problem(await g.client.delete(where, headers=token), 404, "no_session")

    asyncio.run(run())


def test_a_microphone_starts_a_session_and_is_told_when_there_is_no_room() -> None:
    async def run() -> None:
        async with gateway(capacity=1) as g:
            made, late = await g.make(), await g.make()
            headers = bearer(made["token"]) | SDP_TYPE
            assert (await g.client.post(made["mic_url"], data="v=0", headers=headers)).ok
            headers = bearer(late["token"]) | SDP_TYPE
            full = await g.client.post(late["mic_url"], data="v=0", headers=headers)
            await problem(full, 503, "capacity")
            assert "Retry-After" in full.headers

    asyncio.run(run())


def test_named_origins_may_call_and_see_the_headers() -> None:
    async def run() -> None:
        page = {"Origin": "https://page.example"}
        async with gateway(cors_origins=["https://page.example"]) as g:
            ask = page | {"Access-Control-Request-Method": "POST"}
            preflight = await g.client.options("/whep/ada", headers=ask)
            assert preflight.status == 204
            assert preflight.headers["Access-Control-Allow-Origin"] == "https://page.example"
            answer = await g.client.post("/whep/ada", data="v=0", headers=KEYED | SDP_TYPE | page)
            assert answer.status == 201
            assert "Location" in answer.headers["Access-Control-Expose-Headers"]
            foreign = {"Origin": "https://other.example"}
            refused = await g.client.post("/whep/ada", data="v=0", headers=KEYED | foreign)
            await problem(refused, 403, "origin_refused")
            assert "Access-Control-Allow-Origin" not in refused.headers

    asyncio.run(run())


@pytest.mark.parametrize(
    ("url", "status", "code"),
    [
        ("ftp://127.0.0.1/x", 400, "bad_field"),
        ("http://user@127.0.0.1/x", 400, "bad_field"),
        ("http://[::1/x", 400, "bad_field"),
        ("http://127.0.0.1:99999/x", 400, "bad_field"),
        ("http://broken.example/x", 502, "push_failed"),
    ],
)
def test_pushes_that_go_nowhere(url: str, status: int, code: str) -> None:
    async def run() -> None:
        async with gateway() as g:
            made = await g.make()
            answer = await g.client.post(
                made["whip_url"], json={"url": url}, headers=bearer(made["token"])
            )
            await problem(answer, status, code)
            assert not g.studio.pushed

    asyncio.run(run())


def test_a_push_begins_and_ends() -> None:
    async def run() -> None:
        async with gateway(host="0.0.0.0", push_hosts=["sfu.example"]) as g:  # noqa: S104 # not bound
            made = await g.make()
            token = bearer(made["token"])
            elsewhere = {"url": "https://169.254.169.254/latest"}
            refused = await g.client.post(made["whip_url"], json=elsewhere, headers=token)
            await problem(refused, 403, "forbidden")
            asked = {"url": "https://sfu.example/whip/room", "bearer": "secret"}
            answer = await g.client.post(made["whip_url"], json=asked, headers=token)
            assert answer.status == 201
            assert g.studio.pushed == [("https://sfu.example/whip/room", "secret")]
            where = answer.headers["Location"]
            assert (await g.client.delete(where, headers=token)).status == 204
            assert g.studio.peers[0].is_closed

    asyncio.run(run())
