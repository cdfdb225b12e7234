"""A server's worker as a process: takes jobs until none is left, and notes which it finished."""

import sys
import time

from services.job_states import LeaseLost, QueueRules, Result
from services.job_store import JobStore


def main() -> None:
    """Work as `name` on the store at `url`, `pause_s` for each job; print the jobs done."""
    url, name, pause_s = sys.argv[1], sys.argv[2], float(sys.argv[3])
    store = JobStore(url, rules=QueueRules(lease_s=1.0))
    idle_since = time.monotonic()
    while time.monotonic() - idle_since < 2.5:
        taken = store.lease(name, time.time())
        if taken is None:
            time.sleep(0.05)
            continue
        record, lease = taken
        sys.stdout.write(f"began {record.job.id}\n")
        sys.stdout.flush()
        time.sleep(pause_s)
        idle_since = time.monotonic()
        try:
            store.succeed(lease, Result(url=name, num_bytes=1, sha256="0"), time.time())
        except LeaseLost:
            continue
        sys.stdout.write(f"done {record.job.id}\n")
        sys.stdout.flush()
    store.close()


if __name__ == "__main__":
    main()
