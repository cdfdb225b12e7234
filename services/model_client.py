"""The gateway's model: one process at work, one warm beside it, sessions that outlive both."""

import asyncio
import contextlib
import logging
from collections import deque
from functools import partial

from viva.v1.messages import ModelMessage, ModelReady, OpenSession, SessionFailed

from services.live_model import ModelRefused
from services.model_stream import ModelStream
from services.model_worker import STOP_S, ModelUnavailable, ModelWorker, WorkerSource

OPEN_S = 30.0
# A spare that does not come up is tried again, each time twice as late.
RETRY_S = (0.25, 10.0)
# More deaths in so many seconds are no accident: sessions are given up rather than tried again.
MAX_DEATHS, DEATHS_WITHIN_S = 3, 60.0
# With no process at all, sessions wait so long for one.
MAX_DOWN_S = 60.0
# A process that hung up has so long to end by itself.
LOST_S = 0.5
log = logging.getLogger(__name__)


class ModelClient:
    """A `LiveModel` in another process.

    When the process ends, the spare takes over: every session is opened again with the same face
    and seed, its frames count on, and another spare is started. Sessions fail (`worker_lost`) when
    no process comes up in time, or when processes end one after the other.
    """

    ready: ModelReady  # what the model at work said of itself

    def __init__(self, source: WorkerSource, *, has_spare: bool) -> None:
        """Use `start`, which returns one that is ready."""
        self._source, self._has_spare = source, has_spare
        self._worker: ModelWorker | None = None
        self._spare: asyncio.Task[ModelWorker] | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._burials: set[asyncio.Task[None]] = set()
        self._streams: dict[str, ModelStream] = {}
        self._deaths: deque[float] = deque(maxlen=MAX_DEATHS)
        self._is_closed = False
        self.num_restarts = 0

    @classmethod
    async def start(cls, source: WorkerSource, *, has_spare: bool = True) -> "ModelClient":
        """A client whose model is warm; its spare warms up meanwhile.

        Raises:
            ModelUnavailable: no process came up.
        """
        client = cls(source, has_spare=has_spare)
        client._employ(await source(None))
        client._warm_spare()
        return client

    @property
    def is_up(self) -> bool:
        """Whether there is a process at work."""
        return self._worker is not None

    @property
    def spare_is_warm(self) -> bool:
        """Whether another process could take over at once."""
        spare = self._spare
        return (
            spare is not None and spare.done() and not spare.cancelled() and not spare.exception()
        )

    @property
    def pid(self) -> int | None:
        """The number of the process at work, where it is one of ours."""
        return None if self._worker is None else self._worker.pid

    async def open(self, spec: OpenSession) -> ModelStream:
        """A stream that is ready to be wanted from.

        Raises:
            ModelRefused: says why.
        """
        if spec.session in self._streams:
            raise ModelRefused("session", f"session {spec.session} is open already")
        if self._is_closed:
            raise ModelRefused("worker_lost", "the model is closed")
        stream = ModelStream(spec, self._forget)
        self._streams[spec.session] = stream
        if self._worker is not None:
            stream.begin(self._worker.link)
        try:
            async with asyncio.timeout(OPEN_S):
                await stream.opened()
        except TimeoutError as error:
            await stream.close()
            raise ModelRefused("failed", f"not opened within {OPEN_S:.0f} s") from error
        except asyncio.CancelledError:
            await stream.close()
            raise
        return stream

    async def close(self) -> None:
        """End all streams and processes."""
        self._is_closed = True
        await _cancelled(self._recovery)
        await asyncio.gather(*(stream.close() for stream in tuple(self._streams.values())))
        worker, self._worker = self._worker, None
        if worker is not None:
            self._bury(worker)
        await self._drop_spare()
        await asyncio.gather(*self._burials)

    def _forget(self, session: str) -> None:
        """A session is no more."""
        self._streams.pop(session, None)

    def _employ(self, worker: ModelWorker) -> None:
        """Have a worker do the work from now on."""
        self._worker, self.ready = worker, worker.ready
        worker.link.on_message = self._take
        worker.link.on_lost = partial(self._lose, worker)
        if not worker.link.is_alive:  # it ended in the moment before
            self._lose(worker, "it hung up")

    def _take(self, message: ModelMessage) -> None:
        """Hand a message to its stream; those of sessions that are no more are late, not wrong."""
        stream = self._streams.get(getattr(message, "session", ""))
        if stream is not None:
            stream.take(message)

    def _lose(self, worker: ModelWorker, why: str) -> None:
        """The process at work is gone: tell every stream, and look for another one."""
        log.error("model process %s is lost: %s", worker.pid or "elsewhere", why)
        self._worker = None
        self._bury(worker, patience_s=LOST_S)
        self._deaths.append(asyncio.get_running_loop().time())
        for stream in tuple(self._streams.values()):
            stream.lose(f"the model process is gone: {why}")
        if not self._is_closed:
            self._recovery = asyncio.create_task(self._recover(), name="model recovery")

    async def _recover(self) -> None:
        """Put another process in the place of a dead one, and open all sessions in it."""
        if self._dies_again_and_again():
            self._give_up("model processes end one after the other")
        loop = asyncio.get_running_loop()
        deadline = loop.call_later(MAX_DOWN_S, self._give_up, "no model process came up")
        try:
            worker = await self._successor()
        finally:
            deadline.cancel()
        self.num_restarts += 1
        for stream in tuple(self._streams.values()):
            stream.begin(worker.link)
        self._employ(worker)
        self._warm_spare()

    def _dies_again_and_again(self) -> bool:
        """Whether the last deaths were close together."""
        is_full = len(self._deaths) == MAX_DEATHS
        return is_full and self._deaths[-1] - self._deaths[0] < DEATHS_WITHIN_S

    async def _successor(self) -> ModelWorker:
        """The spare, or else a new process, as soon as one comes up."""
        while True:
            self._warm_spare(always=True)
            if self._spare is not None:
                # Shielded: whoever cancels this ends the spare in its place, warm or not.
                spare = self._spare
                worker = await asyncio.shield(spare)
                if self._spare is spare:  # or it was lost just now, and another one is on its way
                    self._spare = None
                if worker.link.is_alive:
                    return worker

    def _give_up(self, why: str) -> None:
        """Fail every session."""
        for stream in tuple(self._streams.values()):
            stream.fail(SessionFailed(session=stream.session, reason="worker_lost", detail=why))

    def _warm_spare(self, *, always: bool = False) -> None:
        """Have a spare warm up, unless there is one or none is to be."""
        if self._spare is None and (self._has_spare or always):
            self._spare = asyncio.create_task(self._persist(), name="model spare")

    async def _persist(self) -> ModelWorker:
        """A warm worker, however often it has to be tried."""
        wait_s, longest_s = RETRY_S
        while True:
            try:
                worker = await self._source(self.ready.capacity)
            except ModelUnavailable as error:
                log.error("%s; the next try is in %.1f s", error, wait_s)
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, longest_s)
            else:
                worker.link.on_lost = partial(self._lose_spare, worker)
                if worker.link.is_alive:
                    return worker
                self._bury(worker, patience_s=LOST_S)

    def _lose_spare(self, worker: ModelWorker, why: str) -> None:
        """The spare ended before it was needed: have another."""
        log.error("spare model process %s is lost: %s", worker.pid or "elsewhere", why)
        self._bury(worker, patience_s=LOST_S)
        self._spare = None
        if not self._is_closed:
            self._warm_spare()

    def _bury(self, worker: ModelWorker, *, patience_s: float = STOP_S) -> None:
        """See that a worker ends, meanwhile; `close` waits for it."""
        burial = asyncio.create_task(worker.stop(patience_s=patience_s), name="model burial")
        self._burials.add(burial)
        burial.add_done_callback(self._burials.discard)

    async def _drop_spare(self) -> None:
        """End the spare, warm or not."""
        spare, self._spare = self._spare, None
        await _cancelled(spare)
        if spare is not None and not spare.cancelled():
            self._bury(spare.result())


async def _cancelled(task: asyncio.Task[None] | asyncio.Task[ModelWorker] | None) -> None:
    """End a task and wait for its end."""
    if task is not None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
