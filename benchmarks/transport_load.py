"""What other work on the machine does to a measurement."""

import time

import psutil


class OtherLoad:
    """What processes outside this one's family do with the processors."""

    def __init__(self) -> None:
        """Begin to look."""
        self._began_s, self._busy_s, self._own_s = time.monotonic(), busy_s(), own_s()

    def cores(self) -> float:
        """Processors that others kept busy on average."""
        elapsed_s = max(0.1, time.monotonic() - self._began_s)
        return max(0.0, (busy_s() - self._busy_s - own_s() + self._own_s) / elapsed_s)


def busy_s() -> float:
    """Seconds for which all processors together were used since the machine started."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)


def own_s() -> float:
    """Processor seconds of this process and its descendants that live."""
    this = psutil.Process()
    total_s = 0.0
    for process in [this, *this.children(recursive=True)]:
        try:
            spent = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total_s += spent.user + spent.system
    return float(total_s)
