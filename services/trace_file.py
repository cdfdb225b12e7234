"""Writes what a chain did as a trace that Perfetto opens."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from pipeline.recording import Recording
from pipeline.trace import chrome_trace
from services.options import OptionError


@contextlib.contextmanager
def trace_file(path: Path | None, recording: Recording, *, overwrite: bool) -> Iterator[None]:
    """Write to `path` what is recorded by the end of the block, however it ends.

    A run that fails is what one wants to look at most. Without a path nothing is written.

    Raises:
        OptionError: nothing can be written there, or something is there already.
    """
    if path is None:
        yield
        return
    if path.exists() and not (overwrite and path.is_file()):
        raise OptionError(f"--trace {path} exists: choose another name, or pass --overwrite")
    partial = path.with_name(f"{path.name}.part")
    try:
        partial.touch()
    except OSError as error:
        raise OptionError(
            f"--trace {path} cannot be written ({error.strerror}): choose another place"
        ) from error
    try:
        yield
    finally:
        _write(recording, path, partial)


def _write(recording: Recording, path: Path, partial: Path) -> None:
    """Put a whole trace in place, or nothing if nothing was recorded."""
    try:
        if recording.num_records:
            partial.write_text(json.dumps(chrome_trace(recording.story())))
            partial.replace(path)
    except OSError as error:
        raise OptionError(f"--trace {path} cannot be written ({error.strerror})") from error
    finally:
        partial.unlink(missing_ok=True)
