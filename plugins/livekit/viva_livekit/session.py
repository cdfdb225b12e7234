"""The agent's side: has a worker bring a face into the room, and sends the agent's voice there."""

import asyncio
import os

import aiohttp
from livekit import api, rtc
from livekit.agents import (
    DEFAULT_API_CONNECT_OPTIONS,
    AgentSession,
    APIConnectionError,
    APIConnectOptions,
    APIStatusError,
    get_job_context,
    utils,
)
from livekit.agents.voice.avatar import AvatarSession as BaseAvatarSession
from livekit.agents.voice.avatar import DataStreamAudioOutput
from livekit.agents.voice.room_io import ATTRIBUTE_PUBLISH_ON_BEHALF

from viva_livekit.log import logger

IDENTITY = "viva-avatar-agent"
SAMPLE_RATE = 16_000
# Without a limit an agent hangs when the answer to an interrupt is lost.
CLEAR_BUFFER_S = 2.0
SESSIONS_PATH = "/v1/livekit/sessions"


class VivaError(Exception):
    """The session cannot be had as configured."""


class AvatarSession(BaseAvatarSession):
    """One face in one room, on behalf of one agent."""

    def __init__(
        self,
        *,
        avatar_id: str = "",
        api_url: str = "",
        api_key: str = "",
        identity: str = IDENTITY,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        http_session: aiohttp.ClientSession | None = None,
    ) -> None:
        """`avatar_id` is a portrait of the server ("": its first), `api_url` the worker's address.

        Address and key come from `VIVA_LIVEKIT_URL` and `VIVA_API_KEY` where they are not given.

        Raises:
            VivaError: no address.
        """
        super().__init__()
        self._avatar_id, self._identity, self._conn_options = avatar_id, identity, conn_options
        self._api_url = (api_url or os.getenv("VIVA_LIVEKIT_URL", "")).rstrip("/")
        self._api_key = api_key or os.getenv("VIVA_API_KEY", "")
        self._http_session = http_session
        self._session_id = ""
        if not self._api_url:
            raise VivaError("api_url: give the worker's address, or set VIVA_LIVEKIT_URL")

    @property
    def avatar_identity(self) -> str:
        """Who the face is in the room."""
        return self._identity

    @property
    def provider(self) -> str:
        """What metrics name it."""
        return "viva-voce"

    async def start(
        self,
        agent_session: AgentSession,
        room: rtc.Room,
        *,
        livekit_url: str = "",
        livekit_api_key: str = "",
        livekit_api_secret: str = "",
    ) -> None:
        """Bring the face into the room; from then on the agent's sound goes to it.

        Raises:
            VivaError: LiveKit's address, key or secret are missing, or the room is not connected.
            APIStatusError: the worker refuses, 503 where it is full.
            APIConnectionError: the worker cannot be reached.
        """
        url = livekit_url or os.getenv("LIVEKIT_URL", "")
        key = livekit_api_key or os.getenv("LIVEKIT_API_KEY", "")
        secret = livekit_api_secret or os.getenv("LIVEKIT_API_SECRET", "")
        if not (url and key and secret):
            raise VivaError("livekit_url, livekit_api_key and livekit_api_secret are needed")
        on_behalf_of = _local_identity(room)
        await super().start(agent_session, room)
        try:
            await self._call_worker(url, self._token(key, secret, room.name, on_behalf_of))
        except BaseException:
            await self.aclose()
            raise
        agent_session.output.replace_audio_tail(
            DataStreamAudioOutput(
                room,
                destination_identity=self._identity,
                sample_rate=SAMPLE_RATE,
                wait_remote_track=rtc.TrackKind.KIND_VIDEO,
                clear_buffer_timeout=CLEAR_BUFFER_S,
                wait_playback_start=True,
            )
        )

    async def aclose(self) -> None:
        """Have the face leave; twice is no error."""
        session_id, self._session_id = self._session_id, ""
        if session_id:
            try:
                url = f"{self._api_url}{SESSIONS_PATH}/{session_id}"
                async with self._http().delete(url, headers=self._headers(), timeout=self._limit()):
                    pass
            except (aiohttp.ClientError, TimeoutError) as error:
                logger.warning("the worker was not told of the end: %s", error)
        await super().aclose()

    def _token(self, key: str, secret: str, room: str, on_behalf_of: str) -> str:
        """What lets the worker into the room, as this agent's face."""
        return (
            api.AccessToken(api_key=key, api_secret=secret)
            .with_kind("agent")
            .with_identity(self._identity)
            .with_name(self._identity)
            .with_grants(api.VideoGrants(room_join=True, room=room))
            .with_attributes({ATTRIBUTE_PUBLISH_ON_BEHALF: on_behalf_of})
            .to_jwt()
        )

    async def _call_worker(self, url: str, token: str) -> None:
        """Post the order, again where that may help."""
        order = {"avatar_id": self._avatar_id, "livekit_url": url, "livekit_token": token}
        for attempt in range(self._conn_options.max_retry + 1):
            try:
                self._session_id = await self._post(order)
            except (aiohttp.ClientError, TimeoutError, APIStatusError) as error:
                is_last = attempt == self._conn_options.max_retry
                if isinstance(error, APIStatusError) and (is_last or error.status_code < 500):
                    raise
                if is_last:
                    raise APIConnectionError(f"no worker at {self._api_url}: {error}") from error
                logger.warning("the worker did not take the order, trying again: %s", error)
                await asyncio.sleep(self._conn_options.retry_interval)
            else:
                return

    async def _post(self, order: dict[str, str]) -> str:
        """Post the order once: the session's name."""
        async with self._http().post(
            f"{self._api_url}{SESSIONS_PATH}",
            json=order,
            headers=self._headers(),
            timeout=self._limit(),
        ) as answer:
            if not answer.ok:
                text = await answer.text()
                raise APIStatusError(
                    f"the worker answered {answer.status}", status_code=answer.status, body=text
                )
            body = await answer.json()
            return str(body["session_id"])

    def _headers(self) -> dict[str, str]:
        """Who asks."""
        return {"x-api-key": self._api_key} if self._api_key else {}

    def _limit(self) -> aiohttp.ClientTimeout:
        """A face takes a moment to open, so only the connection has the options' limit."""
        return aiohttp.ClientTimeout(total=60, sock_connect=self._conn_options.timeout)

    def _http(self) -> aiohttp.ClientSession:
        """The job's own session where none was given."""
        if self._http_session is None:
            self._http_session = utils.http_context.http_session()
        return self._http_session


def _local_identity(room: rtc.Room) -> str:
    """Who the agent is.

    Raises:
        VivaError: nobody yet.
    """
    job = get_job_context(required=False)
    if job is not None:
        return job.token_claims().identity
    if not room.isconnected():
        raise VivaError("room: connect it first, or start within a job")
    return room.local_participant.identity
