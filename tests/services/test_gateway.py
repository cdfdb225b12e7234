"""From key to token to picture: the way of a session through the gateway."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from viva.v1.messages import OpenSession

from services.beat import Event
from services.live_model import LiveStream, ModelRefused
from tests.support.gateways import (
    KEY,
    OTHER_KEY,
    bearer,
    gateway,
    media_gateway,
    problem,
    viewer,
)

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]


def test_the_gateway_process_never_imports_torch() -> None:
    program = (
        "import sys, services.serve, services.serve_command, services.control, services.job_crew\n"
        "bad = {'torch', 'librosa', 'transformers', 'ray'} & set(sys.modules)\n"
        "assert not bad, bad"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_create_start_offer_stop() -> None:
    async def run() -> None:
        async with gateway() as g:
            made = await g.make(portrait="bruno", seed=7)
            assert made["state"] == "new"
            assert (await g.shown(made))["state"] == "new"
            path = f"/v1/sessions/{made['session_id']}"
            started = await g.client.post(f"{path}/start", headers=bearer(made["token"]))
            body = await started.json()
            assert started.status == 200
            assert (body["state"], body["portrait"], body["fps"]) == ("ready", "bruno", 25.0)
            answer = await (await g.offered(made)).json()
            assert answer["type"] == "answer"
            assert answer["sdp"].startswith("v=0")
            assert (await g.shown(made))["state"] == "ready"
            g.studio.peers[0].hooks.on_connected()
            assert (await g.shown(made))["state"] == "streaming"
            stopped = await g.client.post(f"{path}/stop", headers=bearer(made["token"]))
            body = await stopped.json()
            assert (body["state"], body["reason"]) == ("closed", "client")
            assert g.studio.peers[0].is_closed
            assert g.studio.performings[0].is_closed
            assert not g.model.streams
            gone = await problem(
                await g.client.get(path, headers=bearer(made["token"])), 410, "session_closed"
            )
            assert gone["reason"] == "client"

    asyncio.run(run())


def test_the_words_of_heygen_work_too() -> None:
    async def run() -> None:
        async with gateway() as g:
            answer = await g.client.post("/v1/sessions/token", headers={"X-API-KEY": KEY})
            token = (await answer.json())["token"]
            for path, status in (("start", 200), ("keep-alive", 204), ("stop", 200)):
                said = await g.client.post(f"/v1/sessions/{path}", headers=bearer(token))
                assert said.status == status, path

    asyncio.run(run())


def test_twenty_four_offers_at_once_on_eight_places() -> None:
    async def run() -> None:
        async with gateway(capacity=8) as g:
            made = [await g.make() for _ in range(24)]
            answers = await asyncio.gather(*(g.offered(one) for one in made))
            statuses = sorted(answer.status for answer in answers)
            assert statuses == [200] * 8 + [503] * 16
            assert len(g.model.streams) == 8
            for answer in answers:
                if answer.status == 503:
                    body = await problem(answer, 503, "capacity")
                    assert answer.headers["Retry-After"] == str(body["retry_after_s"])
            full = next(one for one, a in zip(made, answers, strict=True) if a.status == 503)
            lucky = next(one for one, a in zip(made, answers, strict=True) if a.status == 200)
            path = f"/v1/sessions/{lucky['session_id']}"
            await g.client.delete(path, headers=bearer(lucky["token"]))
            # The refusal did not spend the token.
            assert (await g.offered(full)).status == 200

    asyncio.run(run())


def test_who_waits_gets_the_next_place_and_may_lose_it() -> None:
    async def run() -> None:
        async with gateway(capacity=1) as g:
            first, second, third = [await g.make() for _ in range(3)]
            assert (await g.offered(first)).status == 200
            for number, one in enumerate((second, third), start=1):
                answer = await g.client.post(
                    f"/v1/sessions/{one['session_id']}/start",
                    json={"wait": True},
                    headers=bearer(one["token"]),
                )
                assert answer.status == 202
                assert (await answer.json())["position"] == number
            await problem(await g.offered(third), 503, "capacity")
            await g.sessions.close(g.sessions.get(first["session_id"]), "client")
            await asyncio.sleep(0.05)
            assert (await g.shown(second))["state"] == "ready"
            assert (await g.shown(third))["position"] == 1
            g.clock.now_s += g.deployment.sessions.claim_s
            g.sessions.watch()
            await asyncio.sleep(0.05)
            await problem(await g.offered(second), 410, "session_closed")
            assert (await g.offered(third)).status == 200

    asyncio.run(run())


def test_a_place_that_a_refused_session_had_goes_to_who_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        async with gateway(capacity=1) as g:
            first, second = await g.make(), await g.make()
            is_asked, may_answer = asyncio.Event(), asyncio.Event()

            async def refuse(spec: OpenSession) -> LiveStream:
                is_asked.set()
                await may_answer.wait()
                raise ModelRefused("portrait", f"{spec.session}: no face")

            with monkeypatch.context() as patch:
                patch.setattr(g.model, "open", refuse)
                refused = asyncio.create_task(g.offered(first))
                await is_asked.wait()
                path = f"/v1/sessions/{second['session_id']}/start"
                waits = await g.client.post(
                    path, json={"wait": True}, headers=bearer(second["token"])
                )
                assert waits.status == 202
            may_answer.set()
            await problem(await refused, 422, "refused_by_model")
            await asyncio.sleep(0.05)
            assert (await g.shown(second))["state"] == "ready"

    asyncio.run(run())


def test_a_token_starts_its_session_once_and_no_other() -> None:
    async def run() -> None:
        async with gateway() as g:
            mine, other = await g.make(), await g.make()
            path = f"/v1/sessions/{mine['session_id']}"
            assert (await g.client.post(f"{path}/start", headers=bearer(mine["token"]))).ok
            again = await g.client.post(f"{path}/start", headers=bearer(mine["token"]))
            await problem(again, 409, "token_replayed")
            foreign = await g.client.post(f"{path}/stop", headers=bearer(other["token"]))
            await problem(foreign, 403, "token_foreign")
            await problem(await g.client.get(path), 401, "token_missing")
            await problem(await g.client.get(path, headers=bearer("x.y.z")), 401, "token_invalid")
            fresh = await g.client.post(f"{path}/token", headers=bearer(mine["token"]))
            token = (await fresh.json())["token"]
            assert (await g.client.get(path, headers=bearer(token))).ok
            g.wall_clock.now_s += 301
            await problem(await g.client.get(path, headers=bearer(token)), 401, "token_invalid")

    asyncio.run(run())


def test_keys_make_sessions_and_own_them() -> None:
    async def run() -> None:
        async with gateway() as g:
            await problem(await g.client.post("/v1/sessions"), 401, "key_missing")
            wrong = await g.client.post("/v1/sessions", headers={"X-API-KEY": KEY + "x"})
            await problem(wrong, 401, "key_unknown")
            made = await g.make()
            path = f"/v1/sessions/{made['session_id']}"
            assert (await g.client.get(path, headers=bearer(KEY))).ok
            others = await g.client.get(path, headers=bearer(OTHER_KEY))
            await problem(others, 404, "no_session")

    asyncio.run(run())


def test_without_keys_only_this_machine_is_served() -> None:
    async def run() -> None:
        async with gateway(keys=()) as g:
            assert (await g.client.post("/v1/sessions")).status == 201
            rebound = await g.client.post("/v1/sessions", headers={"Host": "evil.example"})
            await problem(rebound, 403, "forbidden")
            foreign = await g.client.post(
                "/v1/sessions", headers={"Origin": "https://evil.example"}
            )
            await problem(foreign, 403, "origin_refused")

    asyncio.run(run())


@pytest.mark.parametrize(
    ("after_s", "is_connected", "reason"),
    [(30.0, False, "client"), (299.0, True, None), (300.0, True, "idle_timeout")],
)
def test_time_ends_a_session_with_its_reason(
    after_s: float, is_connected: bool, reason: str | None
) -> None:
    async def run() -> None:
        async with gateway() as g:
            made = await g.make()
            await g.offered(made)
            if is_connected:
                g.studio.peers[0].hooks.on_connected()
            g.clock.now_s += after_s
            g.sessions.watch()
            await asyncio.sleep(0.02)
            if reason is None:
                assert (await g.shown(made))["state"] == "streaming"
            else:
                assert (await g.shown(made))["reason"] == reason

    asyncio.run(run())


def test_a_client_that_vanished_comes_back_to_the_same_face() -> None:
    async def run() -> None:
        async with gateway() as g:
            made = await g.make()
            await g.offered(made)
            g.studio.peers[0].hooks.on_connected()
            g.studio.peers[0].hooks.on_gone()
            await asyncio.sleep(0)
            assert (await g.shown(made))["state"] == "ready"
            g.clock.now_s += g.deployment.sessions.grace_s - 1
            g.sessions.watch()
            assert (await g.offered(made)).status == 200
            g.studio.peers[1].hooks.on_connected()
            g.clock.now_s += g.deployment.sessions.grace_s + 1
            g.sessions.watch()
            assert (await g.shown(made))["state"] == "streaming"
            assert len(g.studio.performings) == 1, "the same performer and model state"

    asyncio.run(run())


def test_a_lost_worker_ends_its_session_and_says_so() -> None:
    async def run() -> None:
        async with gateway() as g:
            made = await g.make()
            await g.offered(made)
            g.studio.performings[0].on_event(Event(kind="failed", at_tick=1, why="worker_lost"))
            await asyncio.sleep(0.02)
            assert (await g.shown(made))["reason"] == "worker_lost"

    asyncio.run(run())


def test_a_drain_takes_nobody_new_and_ends_at_its_deadline() -> None:
    async def run() -> None:
        async with gateway() as g:
            made, late = await g.make(), await g.make()
            await g.offered(made)
            drain = asyncio.create_task(g.sessions.drain(0.2))
            await asyncio.sleep(0.05)
            await problem(await g.client.get("/readyz"), 503, "draining")
            assert (await g.client.get("/healthz")).status == 200
            refused = await g.client.post("/v1/sessions", headers={"X-API-KEY": KEY})
            await problem(refused, 503, "draining")
            assert (await g.shown(made))["state"] == "ready"
            assert (await g.shown(late))["reason"] == "shutdown"
            await drain
            assert (await g.shown(made))["reason"] == "shutdown"

    asyncio.run(run())


def test_picture_and_sound_come_over_webrtc() -> None:
    async def run() -> None:
        async with media_gateway() as client:
            made = await (await client.post("/v1/sessions", json={})).json()

            async def connect(sdp: str) -> str:
                answer = await client.post(
                    made["offer_url"],
                    json={"sdp": sdp, "type": "offer"},
                    headers=bearer(made["token"]),
                )
                assert answer.status == 200, await answer.text()
                return str((await answer.json())["sdp"])

            async with viewer(connect) as peer:
                for _ in range(600):
                    if await _bytes_of(peer):
                        break
                    await asyncio.sleep(0.05)
                assert await _bytes_of(peer)
                path = f"/v1/sessions/{made['session_id']}"
                shown = await (await client.get(path, headers=bearer(made["token"]))).json()
                assert shown["state"] == "streaming"
                assert (await client.post(f"{path}/stop", headers=bearer(made["token"]))).ok
            assert len(asyncio.all_tasks()) < 20

    async def _bytes_of(peer: object) -> bool:
        report = await peer.getStats()  # type: ignore[attr-defined]  # aiortc's
        kinds = {s.kind for s in report.values() if s.type == "inbound-rtp" and s.packetsReceived}
        return kinds == {"audio", "video"}

    asyncio.run(run())
