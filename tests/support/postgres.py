"""A PostgreSQL of the tests' own: a fresh cluster in a temporary folder, reached by a socket."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def find_programs() -> Path | None:
    """The folder of initdb and postgres, the newest version's."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    on_path = shutil.which("initdb")
    return folders[-1] if folders else Path(on_path).parent if on_path else None


def why_not() -> str:
    """Why there is no PostgreSQL to test with; empty if there is."""
    if find_programs() is None:
        return "PostgreSQL is not installed (make system-packages)"
    if os.geteuid() == 0 and not _has_user():
        return "PostgreSQL refuses to run as root, and there is no user postgres"
    return ""


@contextmanager
def running_postgres() -> Iterator[str]:
    """A cluster's URL for SQLAlchemy; it is gone at the end."""
    programs = find_programs()
    assert programs is not None
    folder = Path(tempfile.mkdtemp(prefix="vivapg"))
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    words = user if os.geteuid() == 0 else []
    if words:
        account = pwd.getpwnam("postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
    data = folder / "data"
    options = f"-k {folder} -c listen_addresses='' -c fsync=off"
    control = [*words, str(programs / "pg_ctl"), "-D", str(data), "-w"]
    make = [str(programs / "initdb"), "-D", str(data), "-U", "viva", "-A", "trust", "-N"]
    try:
        _run([*words, *make])
        _run([*control, "-l", str(folder / "log"), "-o", options, "start"])
        yield f"postgresql+psycopg://viva@/postgres?host={folder}"
        _run([*control, "-m", "immediate", "stop"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _has_user() -> bool:
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        return False
    return True


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command, capture_output=True, stdin=subprocess.DEVNULL, cwd="/", check=False
    )
    assert done.returncode == 0, done.stderr.decode()
