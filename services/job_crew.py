"""Workers of the batch queue: threads of one process, each with a render process of its own.

`python -m services.job_crew --parent PID` is the crew of a server: its `CrewOrder` comes as JSON on
stdin, so that no password of a database is seen among the processes. It never imports torch.
"""

import argparse
import os
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from services.job_files import FileRules
from services.job_queue import JobError
from services.job_worker import JobWorker, WorkerSettings, worker_name
from services.jobs import StoredJobQueue, open_queue
from services.tether import tie_to_parent

NICENESS = 10
EXIT_FAILED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CrewOrder:
    """What a server tells its crew: where jobs lie, and how many are done at once."""

    folder: Path
    store: str
    files: FileRules
    settings: WorkerSettings
    num_workers: int


CREW_ORDER = TypeAdapter(CrewOrder)


def work(
    queue: StoredJobQueue,
    settings: WorkerSettings,
    num_workers: int,
    *,
    until_idle: bool = False,
) -> None:
    """Do jobs until SIGTERM or SIGINT, which ends it after the segments in work; a second at once.

    To be called in the main thread.
    """
    workers = [
        JobWorker(queue.store, queue.files, settings, name=worker_name(index))
        for index in range(num_workers)
    ]

    def end(signum: int, frame: object) -> None:
        del signum, frame
        for worker in workers:
            if worker.stop.is_set():
                worker.leave_at_once()
            worker.stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    threads = [
        threading.Thread(target=worker.run, kwargs={"until_idle": until_idle}, name=f"jobs-{i}")
        for i, worker in enumerate(workers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(timeout=0.5)  # signals are handled between


def main() -> int:
    """Work for a server, behind whatever else runs; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m services.job_crew")
    parser.add_argument("--parent", type=int, required=True)
    tie_to_parent(parser.parse_args().parent)
    order = CREW_ORDER.validate_json(sys.stdin.buffer.read())
    os.nice(NICENESS)  # live sessions go first
    try:
        queue = open_queue(order.folder, order.store, files=order.files)
    except (JobError, OSError) as error:
        sys.stderr.write(f"viva: {' '.join(str(error).split())}\n")
        return EXIT_FAILED
    try:
        work(queue, order.settings, order.num_workers)
    finally:
        queue.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
