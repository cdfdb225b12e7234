"""A live session's state as bytes: what waits, what was heard, and all that its face remembers.

The bytes come from a peer: whatever is wrong with them is one `StateError`.

Shape legend: H, W = rows and columns, C = channels.
"""

from collections import deque
from typing import Any

import msgpack
import numpy as np

from pipeline.checkpoint import pack_messages, unpack_messages
from pipeline.live_session import Heard, LiveSession, Made
from pipeline.live_timeline import FrameSound, Queued
from pipeline.packing import pack_state, unpack_state

FORMAT = 1
# What reading fields that are not there or are of another kind raises.
DAMAGE = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    OverflowError,
    msgpack.UnpackException,
)


class StateError(ValueError):
    """Bytes that are no state of such a session: one line."""


def export_session(session: LiveSession) -> bytes:
    """All that a twin needs to make the slices that this session would have made.

    Raises:
        StateError: chunks are under way; collect them first.
    """
    if session.num_under_way > 0:
        raise StateError(f"{session.num_under_way} frames are under way: collect them first")
    face = session.face.export_state()
    message = pack_state(face, session="live", epoch=0, chunk=0)
    height, width = session.last_HWC.shape[:2]
    record = {
        "format": FORMAT,
        "sample_rate": session.face.sample_rate,
        "size": [width, height],
        "counts": [session.next_index, session.num_fed, session.num_out],
        "timeline": session.timeline.export(),
        "heard": [[*_packed(one.sound), one.is_gone] for one in session.heard],
        "made": [[*_packed(one.sound), one.picture_HWC.tobytes()] for one in session.made],
        "last": session.last_HWC.tobytes(),
        "face": pack_messages([message]),
    }
    packed: bytes = msgpack.packb(record)
    return packed


def import_session(session: LiveSession, data: bytes) -> None:
    """Go on from what a twin exported; the session was opened alike and has made nothing.

    Raises:
        StateError: the bytes are damaged, or of a session of another kind.
    """
    try:
        record = msgpack.unpackb(data)
        _restore(session, record)
    except StateError:
        raise
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise StateError(f"the state cannot be used ({reason}): export it again") from error


def _restore(session: LiveSession, record: Any) -> None:
    """Put a record into a session, the face last."""
    face, (width, height) = session.face, session.face.size
    alike = {"format": FORMAT, "sample_rate": face.sample_rate, "size": [width, height]}
    for name, wanted in alike.items():
        if record[name] != wanted:
            raise StateError(f"the state is of {name} {record[name]!r}, here it is {wanted!r}")
    next_index, num_fed, num_out = (int(count) for count in record["counts"])
    queue = [_queued(one) for one in record["timeline"]["queue"]]
    heard = deque(Heard(_sound(one[:4]), bool(one[4])) for one in record["heard"])
    shape = (height, width, 3)
    made = deque(
        Made(sound=_sound(one[:4]), picture_HWC=_picture(one[4], shape)) for one in record["made"]
    )
    if len(heard) != num_fed - num_out:
        raise StateError(f"{len(heard)} frames are under way, {num_fed - num_out} by count")
    last_HWC = _picture(record["last"], shape)
    (message,) = unpack_messages(record["face"])
    face.import_state(unpack_state(message))
    session.timeline.restore(int(record["timeline"]["epoch"]), queue)
    session.heard, session.made, session.last_HWC = heard, made, last_HWC
    session.next_index, session.num_fed, session.num_out = next_index, num_fed, num_out


def _packed(sound: FrameSound) -> list[Any]:
    pcm = sound.samples_T.astype("<i2").tobytes()
    return [pcm, sound.epoch, sound.utterance, sound.ends_utterance]


def _sound(fields: list[Any]) -> FrameSound:
    pcm, epoch, utterance, ends = fields
    return FrameSound(
        samples_T=np.frombuffer(pcm, "<i2").astype(np.int16),
        epoch=int(epoch),
        utterance=str(utterance),
        ends_utterance=bool(ends),
    )


def _picture(data: bytes, shape: tuple[int, int, int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer(data, np.uint8).reshape(shape)


def _queued(record: Any) -> Queued:
    has_ended, has_begun, runs = (bool(flag) for flag in record["flags"])
    queued = Queued(
        name=str(record["name"]),
        epoch=int(record["epoch"]),
        has_ended=has_ended,
        has_begun=has_begun,
        runs=runs,
    )
    queued.add(np.frombuffer(record["pcm"], "<i2").astype(np.int16))
    return queued
