"""A stage of the chain in this process that is timed, as a stage node times itself."""

import time
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from pipeline.chain import LocalChain
from pipeline.message import Message
from pipeline.message_work import num_bypassed
from pipeline.recording import Recording
from pipeline.session_state import SessionState
from pipeline.spans import Span, Spans
from pipeline.stage import ChunkWork, SessionInputs, Stage

OutT = TypeVar("OutT")


class TimedStage(Generic[OutT]):
    """Does what `stage` does, and notes when."""

    def __init__(
        self,
        stage: Stage[OutT],
        spans: Spans,
        *,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Stand in for `stage`."""
        self._stage, self._spans, self._clock_ns = stage, spans, clock_ns

    def prepare(self, inputs: SessionInputs) -> None:
        """Make room for a session."""
        self._stage.prepare(inputs)

    def process(self, work: ChunkWork) -> OutT:
        """Do the stage's share; it has its input just when it begins."""
        message = Message(kind="work", session=work.session, chunk=work.latent.index)
        began_ns = self._clock_ns()
        self._spans.began(message, began_ns)
        made = self._stage.process(work)
        left_out = num_bypassed(made) - work.num_bypassed if isinstance(made, ChunkWork) else 0
        self._spans.done(message, began_ns, self._clock_ns(), num_bypassed=left_out)
        return made

    def reset(self, session: str) -> None:
        """Forget a session."""
        self._stage.reset(session)

    def memory_bytes(self, session: str) -> int:
        """Bytes that the session takes."""
        return self._stage.memory_bytes(session)

    def export_state(self, session: str) -> SessionState:
        """What the stage exports."""
        return self._stage.export_state(session)

    def import_state(self, session: str, state: SessionState) -> None:
        """Go on from an export."""
        self._stage.import_state(session, state)

    def close(self) -> None:
        """Forget all sessions."""
        self._stage.close()


class TimedChain:
    """The times of a local chain's stages, from now on."""

    def __init__(self, chain: LocalChain, names: Iterable[str]) -> None:
        """Put timed stages into `chain`; `names` are its stages', the decoder's last."""
        self._names = tuple(f"{index}-{name}" for index, name in enumerate(names))
        self._spans = [Spans(name) for name in self._names]
        chain.wrap(self._timed)

    def _timed(self, index: int, stage: Stage[OutT]) -> Stage[OutT]:
        return TimedStage(stage, self._spans[index])

    def taken(self) -> list[Span]:
        """All spans since they were taken last, in order of time."""
        spans = [span for own in self._spans for span in own.taken()]
        return sorted(spans, key=lambda span: span.began_ns)

    def taken_of(self, session: str) -> list[Span]:
        """A session's spans among all since they were taken last; the others' are dropped."""
        return [span for span in self.taken() if span.session == session]

    def record(self, recording: Recording) -> None:
        """Give a recording all that is kept."""
        recording.note(self._names, self.taken())
