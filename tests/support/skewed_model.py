"""A fake model with a planted fault: its pictures come some frames after their sound."""

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import replace

from viva.v1.messages import OpenSession

from services.live_model import LiveEvent
from services.slice import Slice
from tests.support.fake_model import FakeModel, FakeSettings, FakeStream


class SkewedStream(FakeStream):
    """Shows each picture `skew_frames` later than its sound is heard."""

    skew_frames = 0

    async def events(self) -> AsyncIterator[LiveEvent]:
        """What is made, with the pictures out of step."""
        waiting: deque[Slice] = deque()
        async for event in super().events():
            if not isinstance(event, Slice):
                yield event
                continue
            waiting.append(event)
            # The picture of `skew_frames` ago under the sound of now; at first, the oldest.
            if len(waiting) > self.skew_frames + 1:
                waiting.popleft()
            yield replace(event, picture_HWC=waiting[0].picture_HWC)


class SkewedModel(FakeModel):
    """Where skewed streams come from."""

    def __init__(self, skew_frames: int, settings: FakeSettings | None = None) -> None:
        """Pictures are so many frames late."""
        super().__init__(settings)
        self.skew_frames = skew_frames

    async def open(self, spec: OpenSession) -> SkewedStream:
        """A stream out of step."""
        stream = SkewedStream(self, spec)
        stream.skew_frames = self.skew_frames
        self.streams[spec.session] = stream
        return stream
