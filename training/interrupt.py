"""Ctrl-C and SIGTERM as a wish: what is running ends its step, saves, and then stops."""

import signal
from types import FrameType, TracebackType
from typing import Self

EXIT_TERMINATED = 143


class Interrupt:
    """While entered, the first signal is noted; a second one works at once as it always did."""

    def __init__(self) -> None:
        """Watch nothing yet."""
        self.signum: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        """Begin to note signals."""
        for signum in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(signum) is not signal.SIG_IGN:
                self._before[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the signals back."""
        self._restore()

    def __bool__(self) -> bool:
        """Whether somebody asked to stop."""
        return self.signum is not None

    def obey(self, message: str) -> None:
        """Stop if somebody asked to, with the message; SIGTERM says nothing."""
        if self.signum == signal.SIGINT:
            raise KeyboardInterrupt(message)
        if self.signum == signal.SIGTERM:
            raise SystemExit(EXIT_TERMINATED)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        del frame
        self.signum = signum
        self._restore()

    def _restore(self) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)  # type: ignore[arg-type]  # as signal.signal gave it
        self._before = {}
