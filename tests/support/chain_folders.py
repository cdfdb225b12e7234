"""The folders that belong to one driver's chain, whatever other chains the machine runs."""

from pathlib import Path

import psutil

ROOTS = (Path("/dev/shm"), Path("/tmp"))  # noqa: S108 - only looked at


def chain_folders(driver: psutil.Process) -> set[Path]:
    """Its folder in shared memory, by the sockets there, and Ray's, by the words of Ray's."""
    words = [word for child in driver.children(recursive=True) for word in child.cmdline()]
    paths = [word.partition("=")[2] for word in words]
    paths += [str(socket.laddr) for socket in driver.net_connections("unix")]
    return {
        root / Path(path).relative_to(root).parts[0]
        for path in paths
        for root in ROOTS
        if path.startswith(f"{root}/viva-")
    }
