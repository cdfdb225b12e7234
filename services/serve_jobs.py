"""The batch queue beside a server, and the workers that end with it."""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import AsyncIterator, Coroutine
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from services.deployment import Deployment, DeploymentError

if TYPE_CHECKING:
    from services.job_crew import CrewOrder
    from services.jobs import StoredJobQueue

RESTART_S = 5.0
LEAVE_S = 5.0
log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def jobs_beside(
    deployment: Deployment, *, draining: asyncio.Event, ending: asyncio.Event
) -> AsyncIterator["StoredJobQueue | None"]:
    """The queue for as long as the block lasts, and its workers if the deployment has some.

    None without gRPC and workers, and where the packages are missing and nobody asked for jobs.
    Once `draining` is set workers end after the segments in work, once `ending` is set at once.

    Raises:
        DeploymentError: the queue cannot be opened, or a package is missing.
    """
    jobs = deployment.jobs
    if deployment.grpc_port is None and not jobs.workers:
        yield None
        return
    try:
        order = crew_order(deployment)
    except ImportError as error:
        if jobs.is_default:
            yield None  # live calls need no queue
            return
        reason = f"jobs need the package {error.name}: pip install 'viva-voce[jobs]'"
        raise DeploymentError(reason) from error
    queue = await asyncio.to_thread(_opened, order)
    try:
        async with _crew(order, draining, ending):
            yield queue
    finally:
        queue.close()


def crew_order(deployment: Deployment) -> "CrewOrder":
    """Where jobs lie, what they may read, and who does them."""
    from services.job_crew import CrewOrder
    from services.job_files import FileRules
    from services.job_worker import WorkerSettings, default_folder
    from services.provenance import Signing

    jobs = deployment.jobs
    signing = None
    if jobs.sign_chain is not None and jobs.sign_key is not None:
        signing = Signing(chain=jobs.sign_chain, key=jobs.sign_key)
    return CrewOrder(
        folder=jobs.data or default_folder(),
        store=jobs.store,
        files=FileRules(
            schemes=frozenset(jobs.schemes),
            roots=jobs.folders,
            max_input_bytes=jobs.max_upload_bytes,
            max_data_bytes=jobs.max_data_bytes,
        ),
        settings=WorkerSettings(
            segment_s=Fraction(jobs.segment_s).limit_denominator(1000),
            signing=signing,
            drain_s=deployment.sessions.drain_s,
            ttl_s=jobs.ttl_days * 86_400.0,
            threads=jobs.threads,
        ),
        num_workers=jobs.workers,
    )


def _opened(order: "CrewOrder") -> "StoredJobQueue":
    from services.job_queue import JobError
    from services.jobs import open_queue

    try:
        # Without workers of our own others do the jobs, and sign them with what they have.
        can_sign = order.settings.signing is not None or not order.num_workers
        return open_queue(order.folder, order.store, files=order.files, can_sign=can_sign)
    except (JobError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DeploymentError(f"jobs: {reason}") from error


@contextlib.asynccontextmanager
async def _crew(
    order: "CrewOrder", draining: asyncio.Event, ending: asyncio.Event
) -> AsyncIterator[None]:
    """Keep a crew at work until the block ends; afterwards nothing of it is left."""
    if not order.num_workers:
        yield
        return
    stop = asyncio.Event()
    crew = asyncio.create_task(_keep_at_work(order, stop, ending))
    told = asyncio.create_task(_pass_on(draining, stop))
    try:
        yield
    except BaseException:
        ending.set()  # the server failed: whoever started it waits for the reason
        raise
    finally:
        stop.set()
        told.cancel()
        await asyncio.gather(crew, told, return_exceptions=True)


async def _pass_on(draining: asyncio.Event, stop: asyncio.Event) -> None:
    """Have workers end while live sessions do."""
    await draining.wait()
    stop.set()


async def _keep_at_work(order: "CrewOrder", stop: asyncio.Event, ending: asyncio.Event) -> None:
    """Start a crew, another when it ends by itself, and have the last one end in order."""
    while not stop.is_set():
        try:
            process = await _started(order)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            log.error("no workers can be started (%s); again in %g s", reason, RESTART_S)
            await _first(asyncio.sleep(RESTART_S), stop.wait())
            continue
        try:
            await _first(process.wait(), stop.wait())
            if stop.is_set():
                await _told_to_end(process, order.settings.drain_s, ending)
                return
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        log.error("the workers ended with %s; others start in %g s", process.returncode, RESTART_S)
        await _first(asyncio.sleep(RESTART_S), stop.wait())


async def _started(order: "CrewOrder") -> asyncio.subprocess.Process:
    """A crew that has its order; Ctrl-C in a terminal reaches us and not it, as with models."""
    from services.job_crew import CREW_ORDER

    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "services.job_crew", "--parent", str(os.getpid())),
        stdin=asyncio.subprocess.PIPE,
        stdout=sys.__stderr__,
        start_new_session=True,
    )
    if process.stdin is not None:
        process.stdin.write(CREW_ORDER.dump_json(order))
        process.stdin.close()
    return process


async def _told_to_end(
    process: asyncio.subprocess.Process, drain_s: float, ending: asyncio.Event
) -> None:
    """Ask in order, then once more, which means: at once."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    await _first(process.wait(), asyncio.sleep(drain_s + LEAVE_S), ending.wait())
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await _first(process.wait(), asyncio.sleep(LEAVE_S))


async def _first(*awaitables: Coroutine[Any, Any, Any]) -> None:
    """Until one of them is done; the others are dropped."""
    tasks = [asyncio.ensure_future(one) for one in awaitables]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
