"""What a stage makes of the messages that its node took in."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pipeline.lane_wave import FAULTS, BatchStage
from pipeline.message import Message
from pipeline.packing import unpack_work
from pipeline.stage import ChunkWork, Stage
from video.chunk import VideoChunk

Made = ChunkWork | VideoChunk | Message | Exception


def make_all(stage: Stage[Any], messages: Sequence[Message], now_ns: int = 0) -> list[Made]:
    """What the stage makes of each message, or what went wrong; several at once if it can.

    `now_ns` is the time on the clock of the messages' deadlines.
    Word that a session failed is handed on as it is.
    """
    if len(messages) > 1 and isinstance(stage, BatchStage):
        try:
            works = [_work(message, now_ns) for message in messages]
        except FAULTS:
            # One of them cannot be read: each alone, so that it harms no other.
            return [_make(stage, message, now_ns) for message in messages]
        return list(stage.process_many(works))
    return [_make(stage, message, now_ns) for message in messages]


def num_bypassed(made: Made) -> int:
    """How many steps the stage left out of what it made, because it was late."""
    return made.num_bypassed if isinstance(made, ChunkWork) else 0


def _work(message: Message, now_ns: int) -> ChunkWork:
    """The chunk in a message, with the time that is left for it."""
    work = unpack_work(message)
    return replace(work, slack_s=(message.due_ns - now_ns) / 1e9) if message.due_ns else work


def _make(stage: Stage[Any], message: Message, now_ns: int) -> Made:
    if message.kind == "error":
        return message
    try:
        made: ChunkWork | VideoChunk = stage.process(_work(message, now_ns))
    except FAULTS as error:
        return error
    return made
