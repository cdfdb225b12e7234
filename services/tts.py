"""Text to speech by the program espeak-ng, as a stream of sound.

The text goes in by stdin and is never part of a command line; the voice is checked to be a name.
"""

import asyncio
import contextlib
import re
import shutil
import struct
import unicodedata
from collections.abc import AsyncGenerator
from typing import Protocol

PROGRAM = "espeak-ng"
MAX_RUNNING = 4
PIECE_BYTES = 8192
MAX_SYNTHESIS_S = 60.0
DEFAULT_VOICE = "en"
WORDS_PER_MINUTE = 165
VOICE = re.compile(r"[a-z]{2,3}(-[a-z0-9]{1,12}){0,3}(\+[a-z0-9]{1,16})?")

_DATA_CHUNK = b"data"


class TtsError(ValueError):
    """A text cannot be spoken: one line saying why."""


class TextToSpeech(Protocol):
    """Whatever makes sound of text."""

    sample_rate: int

    def check(self, text: str, voice: str) -> str:
        """The text as it will be spoken.

        Raises:
            TtsError: it cannot be.
        """
        ...

    def stream(self, text: str, voice: str) -> AsyncGenerator[bytes, None]:
        """Sound (s16le mono at `sample_rate`), piece by piece; close it to stop early."""
        ...


class EspeakVoice:
    """espeak-ng; at most four run at a time, others wait."""

    sample_rate = 22_050

    def __init__(self, program: str, *, max_chars: int) -> None:
        """Run `program`, for texts of at most so many characters."""
        self._program, self._max_chars = program, max_chars
        self._running = asyncio.Semaphore(MAX_RUNNING)

    def check(self, text: str, voice: str) -> str:
        """The text without control characters.

        Raises:
            TtsError: empty, too long, or the voice is no name.
        """
        if len(text) > self._max_chars:
            raise TtsError(f"text: has more than {self._max_chars} characters: cut it")
        if voice and not VOICE.fullmatch(voice):
            raise TtsError(f"voice: {voice[:32]!r} is no name such as en-gb or de")
        words = " ".join("".join(map(_printable, text)).split())
        if not words:
            raise TtsError("text: there is nothing to say")
        return words

    async def stream(self, text: str, voice: str) -> AsyncGenerator[bytes, None]:
        """Sound of a text that was checked.

        Raises:
            TtsError: the program failed (an unknown voice), or took too long.
        """
        async with self._running, asyncio.timeout(MAX_SYNTHESIS_S):
            process = await asyncio.create_subprocess_exec(
                self._program,
                *("-b", "1", "-s", str(WORDS_PER_MINUTE), "-v", voice or DEFAULT_VOICE),
                *("--stdin", "--stdout"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            try:
                async for pcm in _sound_of(process, text.encode()):
                    yield pcm
            finally:
                await _ended(process)


def find_voice(max_chars: int) -> EspeakVoice | None:
    """The voice, where the program is installed."""
    program = shutil.which(PROGRAM)
    return None if program is None else EspeakVoice(program, max_chars=max_chars)


async def _sound_of(
    process: asyncio.subprocess.Process, text: bytes
) -> AsyncGenerator[bytes, None]:
    """What the program writes behind its WAV header, in whole samples."""
    if process.stdin is None or process.stdout is None:
        raise TtsError("the speech program has no pipes")
    with contextlib.suppress(ConnectionError):  # it ended already: its status says why
        process.stdin.write(text)
        await process.stdin.drain()
    process.stdin.close()
    try:
        await _skip_header(process.stdout)
    except (asyncio.IncompleteReadError, struct.error) as error:
        raise TtsError("voice: this voice is not there") from error
    odd = b""
    while piece := await process.stdout.read(PIECE_BYTES):
        whole = odd + piece
        even = len(whole) & ~1
        odd = whole[even:]
        yield whole[:even]
    if await process.wait() != 0:
        raise TtsError("the speech program failed")


async def _skip_header(stream: asyncio.StreamReader) -> None:
    """Read up to the samples; a piped header's lengths mean nothing, except those before `data`."""
    await stream.readexactly(12)
    while True:
        head = await stream.readexactly(8)
        if head[:4] == _DATA_CHUNK:
            return
        (num_bytes,) = struct.unpack("<I", head[4:])
        await stream.readexactly(min(num_bytes, PIECE_BYTES))


async def _ended(process: asyncio.subprocess.Process) -> None:
    """The program is no more, whatever it was doing."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


def _printable(character: str) -> str:
    """Control characters and halves of pairs become spaces."""
    return " " if unicodedata.category(character) in ("Cc", "Cs", "Co", "Cn") else character
