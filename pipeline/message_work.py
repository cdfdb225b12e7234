"""What a stage makes of the messages that its node took in."""

from collections.abc import Sequence
from typing import Any

from pipeline.lane_wave import FAULTS, BatchStage
from pipeline.message import Message
from pipeline.packing import unpack_work
from pipeline.stage import ChunkWork, Stage
from video.chunk import VideoChunk

Made = ChunkWork | VideoChunk | Message | Exception


def make_all(stage: Stage[Any], messages: Sequence[Message]) -> list[Made]:
    """What the stage makes of each message, or what went wrong; several at once if it can.

    Word that a session failed is handed on as it is.
    """
    if len(messages) > 1 and isinstance(stage, BatchStage):
        try:
            works = [unpack_work(message) for message in messages]
        except FAULTS:
            # One of them cannot be read: each alone, so that it harms no other.
            return [_make(stage, message) for message in messages]
        return list(stage.process_many(works))
    return [_make(stage, message) for message in messages]


def _make(stage: Stage[Any], message: Message) -> Made:
    if message.kind == "error":
        return message
    try:
        made: ChunkWork | VideoChunk = stage.process(unpack_work(message))
    except FAULTS as error:
        return error
    return made
