"""What a live call hears: the client's messages, obeyed one by one.

Sound goes to the performer as it comes. When more waits than allowed the call is not read until
there is room, so that HTTP/2's flow control holds up the sender; nothing is dropped.

Shape legend: T = samples.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

import grpc
import numpy as np
import numpy.typing as npt
import soxr
from viva.v1 import avatar_pb2

from services.control_errors import Refusal, bad_field
from services.ledger import UtteranceOver
from services.performer import Performer
from services.tts import TextToSpeech, TtsError

MAX_SOUND_BYTES = 1 << 20
MAX_NAME_CHARS = 128
MAX_TEXT_BYTES = 16 << 10

Samples = npt.NDArray[np.int16]
Requests = AsyncIterator[avatar_pb2.ConverseRequest]
Say = Callable[[avatar_pb2.ConverseResponse], Awaitable[None]]


@dataclass(slots=True)
class Agenda:
    """How far a client is: the utterance that is open, and whether more may come."""

    current: str = ""
    num_named: int = 0
    is_complete: bool = False
    heard_at_s: float = 0.0
    first_sound_at_s: float | None = None


class Hearing:
    """Reads one call."""

    def __init__(
        self,
        performer: Performer,
        *,
        say: Say,
        ask_keyframe: Callable[[], None],
        voice: TextToSpeech | None,
    ) -> None:
        """Move `performer`; answers and refusals are said by `say`."""
        self.agenda = Agenda()
        self._performer, self._say, self._ask_keyframe = performer, say, ask_keyframe
        self._voice = voice
        self._ticked = asyncio.Event()

    def ticked(self) -> None:
        """Something was played: there may be room again."""
        self._ticked.set()

    async def listen(self, requests: Requests) -> None:
        """Obey messages until the client has said everything.

        Raises:
            Refusal: INVALID_ARGUMENT: a message that has no place here.
        """
        async for request in requests:
            self.agenda.heard_at_s = asyncio.get_running_loop().time()
            part = request.WhichOneof("part")
            if part == "end_of_stream":
                break
            await self._obey(part, request)
        self._end("")
        self.agenda.is_complete = True

    async def _obey(self, part: str | None, request: avatar_pb2.ConverseRequest) -> None:
        """Do what one message says."""
        if part == "sound":
            await self._hear(request.sound)
        elif part == "text":
            await self._read_aloud(request.text)
        elif part == "end_of_utterance":
            self._end(request.end_of_utterance.utterance)
        elif part == "control":
            await self._control(request.control)
        elif part == "config":
            raise bad_field("config", "was there already: it comes once, and first")
        else:
            raise bad_field("part", "is missing: each message has exactly one")

    async def _hear(self, sound: avatar_pb2.SpeechSound) -> None:
        """Take sound, once there is room for it."""
        pcm = sound.pcm_s16le
        if len(pcm) % 2:
            raise bad_field("sound.pcm_s16le", "has half a sample: send s16le mono")
        if len(pcm) > MAX_SOUND_BYTES:
            raise bad_field("sound.pcm_s16le", f"has more than {MAX_SOUND_BYTES} bytes")
        name = self._begin(sound.utterance, "sound.utterance")
        if pcm:
            await self._speak(name, np.frombuffer(pcm, dtype="<i2").astype(np.int16))

    async def _speak(self, name: str, samples_T: Samples) -> None:
        """Give samples to the performer, as many at a time as it has room for."""
        if self._performer.room() < len(samples_T):
            await self._tell_of_waiting()
        while len(samples_T) and not self._performer.is_closed:
            await self._wait_for_room()
            if self.agenda.first_sound_at_s is None:
                self.agenda.first_sound_at_s = asyncio.get_running_loop().time()
            num_taken = min(len(samples_T), self._performer.room())
            piece_T, samples_T = samples_T[:num_taken], samples_T[num_taken:]
            try:
                self._performer.speak(name, piece_T)
            except UtteranceOver as error:
                await self._refuse(f"sound: {error}")
                return

    async def _wait_for_room(self) -> None:
        """Leave the call unread while the performer takes nothing."""
        while not self._performer.room() and not self._performer.is_closed:
            self._ticked.clear()
            await self._ticked.wait()

    async def _tell_of_waiting(self) -> None:
        """Say that the client is far ahead."""
        limit_s = self._performer.ledger.max_ahead_s
        await self._tell(
            avatar_pb2.EVENT_KIND_BACKPRESSURE,
            f"{limit_s} s of sound wait: the call is read again when there is room",
        )

    async def _read_aloud(self, text: avatar_pb2.SpeechText) -> None:
        """Say words by the server's voice, or say that there is none."""
        if len(text.text.encode()) > MAX_TEXT_BYTES:
            raise bad_field("text.text", f"has more than {MAX_TEXT_BYTES} bytes")
        if self._voice is None:
            await self._refuse("text: this server has no voice: send sound")
            return
        try:
            words = self._voice.check(text.text, "")
            name = self._begin(text.utterance, "text.utterance")
            await self._voiced(self._voice, name, words)
        except TtsError as error:
            await self._refuse(str(error))

    async def _voiced(self, voice: TextToSpeech, name: str, words: str) -> None:
        """Bring the voice's sound to the session's rate, piece by piece."""
        rates = voice.sample_rate, self._performer.sample_rate
        resampler = soxr.ResampleStream(*rates, 1, dtype="int16")
        async with aclosing(voice.stream(words, "")) as pieces:
            async for pcm in pieces:
                piece_T = np.frombuffer(pcm, dtype="<i2")
                await self._speak(name, np.asarray(resampler.resample_chunk(piece_T), np.int16))
        last_T = np.asarray(resampler.resample_chunk(np.zeros(0, np.int16), last=True), np.int16)
        await self._speak(name, last_T)

    async def _control(self, control: avatar_pb2.Control) -> None:
        """Do what is not speech."""
        action = control.WhichOneof("action")
        if action == "interrupt":
            self.agenda.current = ""
            self._performer.interrupt()
        elif action == "request_keyframe":
            self._ask_keyframe()
        elif action == "ping":
            pong = avatar_pb2.Pong(nonce=control.ping.nonce)
            await self._say(avatar_pb2.ConverseResponse(pong=pong))
        elif action is None:
            raise bad_field("control.action", "is missing: each control has exactly one")
        else:
            await self._refuse(f"{action}: this model cannot do it within a session")

    def _begin(self, utterance: str, field_name: str) -> str:
        """The utterance that is spoken from now on; another name ends the one before."""
        if len(utterance) > MAX_NAME_CHARS:
            raise bad_field(field_name, f"has more than {MAX_NAME_CHARS} characters")
        agenda = self.agenda
        if utterance and utterance != agenda.current:
            self._end("")
        if not agenda.current:
            agenda.num_named += 1
            agenda.current = utterance or f"u_{agenda.num_named}"
        return agenda.current

    def _end(self, utterance: str) -> None:
        """End the open utterance, if it is this one."""
        current = self.agenda.current
        if current and utterance in ("", current):
            self.agenda.current = ""
            if self._performer.ledger.find(current) is not None:
                self._performer.end(current)

    async def _refuse(self, detail: str) -> None:
        """Say that a message is not obeyed; the session goes on."""
        await self._tell(avatar_pb2.EVENT_KIND_REFUSED, detail)

    async def _tell(self, kind: avatar_pb2.EventKind.ValueType, detail: str) -> None:
        """Say an event."""
        event = avatar_pb2.Event(kind=kind, detail=detail)
        await self._say(avatar_pb2.ConverseResponse(event=event))


async def first_config(requests: Requests) -> avatar_pb2.SessionConfig | None:
    """The config that a call begins with; None of a call that says nothing at all.

    Raises:
        Refusal: INVALID_ARGUMENT: it begins with something else.
    """
    async for request in requests:
        if request.WhichOneof("part") == "config":
            return request.config
        raise Refusal(
            grpc.StatusCode.INVALID_ARGUMENT,
            "CONFIG_FIRST",
            "config: must be the first message",
            field="config",
        )
    return None
