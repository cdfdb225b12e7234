"""An open session as seen from a staged chain's entry and exit."""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import torch

from pipeline.chain_settings import ChainSettings
from pipeline.errors import ChainDown, ModelError
from pipeline.frame_ring import FrameRing
from pipeline.message import Message
from pipeline.stage import SessionInputs
from pipeline.stream_time import StreamTime
from video.chunk import VideoChunk


@dataclass(slots=True)
class Session:
    """One open session as seen from the entry and the exit."""

    epoch: int
    ring: FrameRing
    time: StreamTime
    submitted: int = -1
    completed: int = -1
    ready: deque[VideoChunk] = field(default_factory=deque)
    error: Exception | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionProgress:
    """The last chunks of a session that went in and came out, and when the next is due (or 0)."""

    session: str
    epoch: int
    submitted: int
    completed: int
    next_due_ns: int


def progress_of(name: str, session: Session) -> SessionProgress:
    """How far a session is."""
    return SessionProgress(
        session=name,
        epoch=session.epoch,
        submitted=session.submitted,
        completed=session.completed,
        next_due_ns=session.time.deadline_ns(session.completed + 1),
    )


def due_every_ms(inputs: SessionInputs, settings: ChainSettings) -> float:
    """How often a chunk is due, infinite for a session that nobody watches as it is made."""
    shows_s = float(settings.pictures_per_chunk / inputs.fps)
    return shows_s * 1e3 if inputs.live else math.inf


def stream_time(
    inputs: SessionInputs, settings: ChainSettings, now_ns: int, others: Iterable[Session]
) -> StreamTime:
    """A new session's clock; a render begins with the slowest of those that run ahead of time."""
    chunk_ns = int(settings.pictures_per_chunk * 1_000_000_000 / inputs.fps)
    if inputs.live:
        latency_ns = int(settings.latency_s * 1e9)
        return StreamTime(base_ns=now_ns, chunk_ns=chunk_ns, latency_ns=latency_ns, live=True)
    ahead_ns = [other.time.due_ns(other.completed) for other in others if not other.time.live]
    return StreamTime(base_ns=max(now_ns, min(ahead_ns, default=0)), chunk_ns=chunk_ns)


def with_pictures(message: Message, ring: FrameRing) -> Message:
    """The message with its pictures copied out of the ring."""
    shape = message.facts.get("shape")
    if not isinstance(shape, dict):
        return message
    frames_THWC = ring.read(message.chunk, tuple(shape[axis] for axis in "THWC"))
    tensors = {**message.tensors, "frames_THWC": torch.from_numpy(frames_THWC)}
    return replace(message, tensors=tensors)


def raised(message: Message) -> Exception:
    """What the stage raised, as far as it is told."""
    text = str(message.facts.get("text"))
    return ModelError(text) if message.facts.get("type") == "ModelError" else ChainDown(text)
