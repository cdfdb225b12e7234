"""A model process that is ready: started here, or met at a socket where somebody keeps one."""

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from viva.v1.messages import ModelReady

from services.model_link import ModelLink

START_S = 180.0
# A spare loads behind whatever else runs; beginning anew would only take it longer.
SPARE_PATIENCE = 5
STOP_S = 5.0
# What hung up by itself ends with a status that says why.
LAST_WORDS_S = 0.5
POLL_S = 0.02
log = logging.getLogger(__name__)


class ModelUnavailable(RuntimeError):
    """No model process came up; one line saying why."""


@dataclass(slots=True, kw_only=True)
class ModelWorker:
    """A warm model process and the link to it; `process` is None where it is not ours."""

    link: ModelLink
    ready: ModelReady
    process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process's number, where it is ours."""
        return None if self.process is None else self.process.pid

    async def stop(self, *, patience_s: float = STOP_S) -> None:
        """Hang up; a process of ours has ended afterwards, and nothing of it is left.

        It has `patience_s` to end by itself.
        """
        await self.link.close()
        await _end(self.process, patience_s)


# Workers after the first are told how many sessions it could hold: they measure beside it.
WorkerSource = Callable[[int | None], Awaitable[ModelWorker]]


def spawned(arguments: Sequence[str], *, start_s: float = START_S) -> WorkerSource:
    """Workers started as `python ARGUMENTS --socket PATH --parent PID --once`.

    One that is told its capacity is started beside another: `--spare --capacity N` follows.

    Raises (when called):
        ModelUnavailable: the process ended or was not warm within `start_s`.
    """

    async def start(capacity: int | None) -> ModelWorker:
        process: subprocess.Popen[bytes] | None = None
        beside = [] if capacity is None else ["--spare", "--capacity", str(capacity)]
        limit_s = start_s * (SPARE_PATIENCE if beside else 1)
        try:
            async with asyncio.timeout(limit_s):
                # Mode 0700, and gone once we are connected: nothing stays behind a gateway's death.
                with tempfile.TemporaryDirectory(prefix="viva-") as folder:
                    process = _spawn([*arguments, *beside], Path(folder, "model"))
                    link = await _connect(process, Path(folder, "model"))
                return ModelWorker(link=link, ready=await _ready(link), process=process)
        except OSError as error:  # a process that cannot be made, too; it is tried again
            await _end(process, LAST_WORDS_S)
            raise ModelUnavailable(_why(process, error, limit_s)) from error
        except BaseException:
            await _end(process, 0.0)
            raise

    return start


def attached(path: Path, *, start_s: float = START_S) -> WorkerSource:
    """Workers met at a socket: whoever started the process there looks after it.

    Raises (when called):
        ModelUnavailable: nobody listens there, or does not answer within `start_s`.
    """

    async def meet(_: int | None) -> ModelWorker:
        try:
            async with asyncio.timeout(start_s):
                link = await ModelLink.connect(path)
                return ModelWorker(link=link, ready=await _ready(link))
        except TimeoutError as error:
            reason = f"the model process at {path} does not answer: it may serve another gateway"
            raise ModelUnavailable(reason) from error
        except OSError as error:
            raise ModelUnavailable(f"no model process listens at {path} ({error})") from error

    return meet


async def _ready(link: ModelLink) -> ModelReady:
    """The process's first words; the link is closed where they do not come."""
    try:
        return await link.ready()
    except BaseException:
        await link.close()
        raise


def _spawn(arguments: Sequence[str], path: Path) -> subprocess.Popen[bytes]:
    """Start the process; its words go to our standard error.

    It gets a session of its own, so that Ctrl-C in a terminal reaches us and not the model: its
    sessions are drained first.
    """
    tail = ["--socket", str(path), "--parent", str(os.getpid()), "--once"]
    return subprocess.Popen(  # noqa: S603  # our own interpreter and module
        [sys.executable, *arguments, *tail],
        stdin=subprocess.DEVNULL,
        stdout=sys.__stderr__,
        start_new_session=True,
    )


async def _connect(process: subprocess.Popen[bytes], path: Path) -> ModelLink:
    """Connect as soon as the process listens."""
    while process.poll() is None:
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            return await ModelLink.connect(path)
        await asyncio.sleep(POLL_S)
    raise ConnectionError("it ended before it listened")


def _why(process: subprocess.Popen[bytes] | None, error: Exception, start_s: float) -> str:
    """One line about a process that did not come up."""
    if isinstance(error, TimeoutError):
        return f"the model process was not ready within {start_s:.0f} s"
    if process is None:
        return f"the model process could not be started: {error}"
    return f"the model process ended with status {process.returncode} before it was ready"


async def _end(process: subprocess.Popen[bytes] | None, patience_s: float) -> None:
    """See that the process ends, by force if it takes long."""
    if process is None:
        return
    until_s = monotonic() + patience_s
    try:
        while process.poll() is None and monotonic() < until_s:  # noqa: ASYNC110  # no event
            await asyncio.sleep(POLL_S)
        if process.poll() is None:
            log.info("model process %d did not end by itself and is killed", process.pid)
            process.kill()
        # A process with a GPU may take long to go, and other sessions want their ticks.
        while process.poll() is None:  # noqa: ASYNC110  # no event
            await asyncio.sleep(POLL_S)
    finally:
        # Cancelled or not, no process stays: this last word does not yield.
        if process.poll() is None:
            process.kill()
            process.wait()
