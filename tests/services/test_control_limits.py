"""Limits of the gRPC server, each exceeded at once by many; and who may call."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from viva.v1 import avatar_pb2, common_pb2
from viva.v1.avatar_pb2_grpc import AvatarServiceStub

from services.auth import ApiKeys, SessionTokens
from services.client_words import reason_of
from services.control import AVATAR, ControlConfig, ControlError, ControlTls
from services.control_auth import Gate
from services.converse_call import CallTerms
from services.limits import Rate, RateLimit
from tests.support.control_house import (
    END_STREAM,
    EOF,
    Hosted,
    config_message,
    hosted,
    noise,
    sound_message,
    sound_of,
    talk,
    until_free,
)

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[2]
KEY = "0123456789abcdef-key"
ASK = avatar_pb2.DescribeRequest()
QUIET = config_message(picture_format=common_pb2.PICTURE_FORMAT_NONE)


async def forever(
    first: avatar_pb2.ConverseRequest,
) -> AsyncIterator[avatar_pb2.ConverseRequest]:
    """A client that says who it is and then nothing."""
    yield first
    await asyncio.Event().wait()


async def read_on(call: Any) -> None:
    """Read to the end."""
    while await call.read() is not EOF:
        pass


def test_a_thousand_unary_calls_at_once_have_no_error() -> None:
    async def run() -> None:
        async with hosted() as house:
            calls = [house.stub.Describe(ASK, timeout=30) for _ in range(1000)]
            assert {said.model for said in await asyncio.gather(*calls)} == {"fake"}

    asyncio.run(run())


def test_of_24_calls_at_once_8_get_the_8_places() -> None:
    async def one(house: Hosted) -> str:
        try:
            await talk(house.stub, [QUIET, sound_message(noise(0.6)), END_STREAM], timeout_s=30)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name} {reason_of(error)}"
        return "ok"

    async def run() -> None:
        async with hosted() as house:
            ends = await asyncio.gather(*(one(house) for _ in range(24)))
            assert sorted(ends) == ["RESOURCE_EXHAUSTED CAPACITY"] * 16 + ["ok"] * 8
            await until_free(house.places)
            assert await one(house) == "ok"

    asyncio.run(run())


def test_more_calls_at_once_than_are_taken_are_refused() -> None:
    async def run() -> None:
        config = ControlConfig(max_calls=4)
        async with hosted(config=config) as house:
            calls = [house.stub.Converse(forever(QUIET)) for _ in range(4)]
            for call in calls:
                assert (await call.read()).HasField("session_started")
            more = await asyncio.gather(
                *(house.stub.Describe(ASK) for _ in range(8)), return_exceptions=True
            )
            codes = {error.code() for error in more if isinstance(error, grpc.aio.AioRpcError)}
            assert codes == {grpc.StatusCode.RESOURCE_EXHAUSTED}
            assert len(more) == 8
            for call in calls:
                call.cancel()
            await until_free(house.places)

    asyncio.run(run())


def test_a_caller_that_calls_too_often_is_told_when_to_come_back() -> None:
    async def run() -> None:
        rate = RateLimit(Rate(per_s=0.001, burst=10), clock=lambda: 0.0)
        async with hosted(gate=Gate(keys=ApiKeys([KEY]), rate=rate)) as house:
            metadata = (("x-api-key", KEY),)
            said = await asyncio.gather(
                *(house.stub.Describe(ASK, metadata=metadata) for _ in range(30)),
                return_exceptions=True,
            )
            refused = [one for one in said if isinstance(one, grpc.aio.AioRpcError)]
            assert len(refused) == 20
            assert {reason_of(error) for error in refused} == {"RATE"}

    asyncio.run(run())


def test_idle_and_endless_sessions_end_with_a_status() -> None:
    async def last(terms: CallTerms) -> avatar_pb2.SessionStatus:
        async with hosted(terms=terms) as house:
            came = [one async for one in house.stub.Converse(forever(QUIET), timeout=10)]
            assert came[-2].event.kind == avatar_pb2.EVENT_KIND_CLOSING
            status: avatar_pb2.SessionStatus = came[-1].status
            return status

    idle = asyncio.run(last(CallTerms(idle_timeout_s=0.2)))
    assert idle.reason == avatar_pb2.END_REASON_IDLE_TIMEOUT
    endless = asyncio.run(last(CallTerms(max_duration_s=0.2)))
    assert endless.reason == avatar_pb2.END_REASON_MAX_DURATION


def test_a_drain_lets_live_calls_end_with_a_status_and_takes_no_more() -> None:
    async def run() -> None:
        async with hosted() as house:
            call = house.stub.Converse(forever(QUIET), timeout=10)
            assert (await call.read()).HasField("session_started")
            draining = asyncio.create_task(house.control.drain(5.0))
            came = []
            while (one := await call.read()) is not EOF:
                came.append(one)
            assert came[-1].status.reason == avatar_pb2.END_REASON_DRAINING
            await draining
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await house.stub.Describe(ASK, timeout=2)
            assert failed.value.code() is grpc.StatusCode.UNAVAILABLE

    asyncio.run(run())


def test_who_watches_health_hears_of_the_drain_and_does_not_hold_it_up() -> None:
    async def run() -> None:
        async with hosted() as house:
            asked = health_pb2.HealthCheckRequest(service=AVATAR)
            watch: Any = health_pb2_grpc.HealthStub(house.channel).Watch(asked, timeout=20)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            async with asyncio.timeout(10):
                await house.control.drain(15.0)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert await watch.read() is EOF

    asyncio.run(run())


def test_a_model_that_is_gone_ends_the_call_with_unavailable() -> None:
    async def run() -> None:
        async with hosted() as house:
            call = house.stub.Converse(forever(QUIET), timeout=10)
            await call.read()
            next(iter(house.model.streams.values())).fail("worker_lost")
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await read_on(call)
            assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
            assert reason_of(failed.value) == "WORKER_LOST"
            await until_free(house.places)

    asyncio.run(run())


def test_sound_far_ahead_waits_in_the_sender_and_nothing_is_lost() -> None:
    """With room for one second, three seconds take as long as they last, and come back whole."""

    async def run() -> None:
        pcm_T = noise(3.0)
        messages = [sound_message(pcm_T[at : at + 4000], "u") for at in range(0, len(pcm_T), 4000)]
        async with hosted(terms=CallTerms(max_queued_s=1)) as house:
            came = await talk(house.stub, [QUIET, *messages, END_STREAM])
            kinds = [one.event.kind for one in came if one.HasField("event")]
            assert avatar_pb2.EVENT_KIND_BACKPRESSURE in kinds
            back = b"".join(one.media.pcm_sound.s16le for one in came if one.media.utterance == "u")
            assert back[: 2 * len(pcm_T)] == pcm_T.tobytes()
            # One message may be longer than all that can wait.
            long_T = noise(1.5)
            came = await talk(house.stub, [QUIET, sound_message(long_T, "u"), END_STREAM])
            assert sound_of(came, "u")[: 2 * len(long_T)] == long_T.tobytes()

    asyncio.run(run())


SERVER = """
import asyncio, sys
from services.converse_call import CallTerms
from tests.support.control_house import hosted
from tests.support.fake_model import FakeSettings

async def main():
    settings = FakeSettings(width=256, height=256, work_ms=5.0)
    async with hosted(settings=settings, terms=CallTerms(stall_limit_s=2.0)) as house:
        print(house.control.port, flush=True)
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main())
"""


def test_a_reader_that_stops_reading_grows_no_memory_and_is_ended() -> None:
    """4.9 MB of pictures a second for nobody: the server in its own process stays as it was."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}"}
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=ROOT,
    )
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        asyncio.run(stop_reading(port, psutil.Process(server.pid)))
    finally:
        server.communicate("\n", timeout=20)
    assert server.returncode == 0


async def stop_reading(port: int, server: psutil.Process) -> None:
    """Read a little, then nothing for longer than is allowed."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = AvatarServiceStub(channel).Converse(forever(config_message()), timeout=40)
        for _ in range(30):
            await call.read()
        before_bytes, grown_bytes = server.memory_info().rss, 0
        for _ in range(8):
            await asyncio.sleep(0.5)
            grown_bytes = max(grown_bytes, server.memory_info().rss - before_bytes)
        assert grown_bytes < 16 << 20
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await read_on(call)
        assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert reason_of(failed.value) == "READER_STALLED"
        said = await AvatarServiceStub(channel).Describe(ASK)
        assert said.num_sessions == 0


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ((), "KEY_MISSING"),
        ((("authorization", "Basic x"),), "KEY_MISSING"),
        ((("authorization", "Bearer not-the-key-at-all"),), "KEY_UNKNOWN"),
        ((("x-api-key", ""),), "KEY_MISSING"),
        ((("authorization", "Bearer a.b.c"),), "TOKEN_INVALID"),
    ],
)
def test_nothing_is_reachable_without_a_key_but_health(
    metadata: tuple[tuple[str, str], ...], reason: str
) -> None:
    async def run() -> None:
        tokens = SessionTokens(b"s" * 32, ttl_s=60, wall_clock=lambda: 1e9)
        async with hosted(gate=Gate(keys=ApiKeys([KEY]), tokens=tokens)) as house:
            refused = []
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await house.stub.Describe(ASK, metadata=metadata)
            refused.append(failed.value)
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                async for _ in house.stub.Converse(iter([QUIET]), metadata=metadata):
                    pass
            refused.append(failed.value)
            assert {error.code() for error in refused} == {grpc.StatusCode.UNAUTHENTICATED}
            assert {reason_of(error) for error in refused} == {reason}
            health = health_pb2_grpc.HealthStub(house.channel)
            said = await health.Check(health_pb2.HealthCheckRequest(service=AVATAR))
            assert said.status == health_pb2.HealthCheckResponse.SERVING
            for good in (KEY, tokens.issue("s_1", may_start=True)):
                metadata_of = (("authorization", f"Bearer {good}"),)
                assert (await house.stub.Describe(ASK, metadata=metadata_of)).model == "fake"

    asyncio.run(run())


def test_reflection_names_the_services() -> None:
    async def run() -> None:
        async with hosted() as house:
            stub = reflection_pb2_grpc.ServerReflectionStub(house.channel)
            asked = reflection_pb2.ServerReflectionRequest(list_services="")
            async for said in stub.ServerReflectionInfo(iter([asked])):
                names = {one.name for one in said.list_services_response.service}
                assert AVATAR in names
                break

    asyncio.run(run())


def test_mutual_tls_takes_clients_with_a_certificate_only(tmp_path: Path) -> None:
    make_certificates(tmp_path)
    tls = ControlTls(
        cert=tmp_path / "server.pem", key=tmp_path / "server.key", client_ca=tmp_path / "ca.pem"
    )
    root = (tmp_path / "ca.pem").read_bytes()
    with_certificate = grpc.ssl_channel_credentials(
        root, (tmp_path / "client.key").read_bytes(), (tmp_path / "client.pem").read_bytes()
    )

    async def describe(credentials: grpc.ChannelCredentials) -> str:
        config = ControlConfig(tls=tls)
        async with hosted(
            config=config, credentials=credentials, target="localhost:{port}"
        ) as house:
            return str((await house.stub.Describe(ASK, timeout=5)).model)

    assert asyncio.run(describe(with_certificate)) == "fake"
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        asyncio.run(describe(grpc.ssl_channel_credentials(root)))
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE


def make_certificates(folder: Path) -> None:
    """An authority, and a server's and a client's certificate of it."""
    subject = ["-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    ca = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE"]
    for name, more in (("ca", []), ("server", ca), ("client", ca)):
        files = ["-nodes", "-days", "2", "-keyout", f"{name}.key", "-out", f"{name}.pem"]
        subprocess.run(
            [*new, *files, *subject, *names, *more], cwd=folder, check=True, capture_output=True
        )


def test_what_cannot_be_listened_on_is_one_line() -> None:
    async def run() -> None:
        async with hosted() as house:
            with pytest.raises(ControlError, match="choose another port"):
                async with hosted(config=ControlConfig(port=house.control.port)):
                    pass

    asyncio.run(run())
    missing = ControlTls(cert=Path("none.pem"), key=Path("none.key"))

    async def without_files() -> None:
        async with hosted(config=ControlConfig(tls=missing)):
            pass

    with pytest.raises(ControlError, match="cannot be read: check its path"):
        asyncio.run(without_files())


def test_files_that_are_no_certificates_are_named(tmp_path: Path) -> None:
    make_certificates(tmp_path)
    pair = {"cert": tmp_path / "server.pem", "key": tmp_path / "server.key"}
    noise_pem = tmp_path / "noise.pem"
    noise_pem.write_text("neither certificate nor key")
    wrong = [
        ControlTls(cert=noise_pem, key=pair["key"]),
        ControlTls(cert=pair["cert"], key=tmp_path / "client.key"),
        ControlTls(**pair, client_ca=noise_pem),
    ]
    for tls in wrong:

        async def start(tls: ControlTls = tls) -> None:
            async with hosted(config=ControlConfig(tls=tls)):
                pass

        with pytest.raises(ControlError, match=r"^TLS: [^\n]*\.pem[^\n]*: give") as caught:
            asyncio.run(start())
        assert "port" not in str(caught.value)
