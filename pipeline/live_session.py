"""One live session: utterances in, slices out, one chunk of the model at a time. No clock.

What the model hears and what is shown are two countings: frames of an interrupted utterance that
still come out of the chain are dropped, and frames may be shown held before their pictures are
there. Slices are counted from 0 without gaps.

Shape legend: T = samples or frames, H, W = rows and columns, C = channels.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from audio.chunk import AudioChunk
from pipeline.live_face import Face
from pipeline.live_timeline import FrameSound, Samples, Timeline, TimelineSettings
from pipeline.sync import Pair

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSlice:
    """One picture with exactly its sound; `utterance` "" is idle motion."""

    index: int
    epoch: int
    utterance: str
    picture_HWC: Picture
    sound_T: Samples
    ends_utterance: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A slice to be: what it shows and says, before it has a number."""

    sound: FrameSound
    picture_HWC: Picture


@dataclass(slots=True)
class Heard:
    """A frame that the face has heard; `is_gone` says that its picture will not be shown."""

    sound: FrameSound
    is_gone: bool = False


class LiveSession:
    """Speaks through a face; nothing that was accepted is lost but by an interrupt.

    Slices are made chunk by chunk and released as far as they are wanted. An interrupt reaches
    whatever was not released.
    """

    def __init__(
        self, face: Face, *, timeline: TimelineSettings | None = None, held: Picture | None = None
    ) -> None:
        """Begin in silence; `held` is what is shown if the first picture is late."""
        self.face = face
        frame_samples, rest = divmod(face.sample_rate, face.fps)
        if rest:
            raise ValueError(
                f"sound of {face.sample_rate} Hz has no whole number of samples in a picture of "
                f"{face.fps} per second: use 48000"
            )
        self.frame_samples = int(frame_samples)
        self.timeline = Timeline(
            frame_samples=self.frame_samples, sample_rate=face.sample_rate, settings=timeline
        )
        self.heard: deque[Heard] = deque()
        self.made: deque[Made] = deque()
        self.until_index = 0
        self.next_index = 0
        self.num_fed = 0
        self.num_out = 0
        width, height = face.size
        self.last_HWC = np.zeros((height, width, 3), np.uint8) if held is None else held

    @property
    def epoch(self) -> int:
        """The latest epoch heard of."""
        return self.timeline.epoch

    @property
    def num_under_way(self) -> int:
        """Frames that were given to the chain as whole chunks and are not out of it."""
        chunks = max(0, self.num_fed - self.face.lookahead_frames) // self.face.chunk_frames
        return chunks * self.face.chunk_frames - self.num_out

    @property
    def next_unmade(self) -> int:
        """Index of the first slice that nothing was begun for."""
        coming = list(self.heard)[: self.num_under_way]
        return self.next_index + len(self.made) + sum(not one.is_gone for one in coming)

    def speak(self, utterance: str, epoch: int, samples_T: Samples) -> None:
        """Accept the next sound of an utterance.

        Raises:
            TimelineFull: too much waits already.
        """
        self.interrupt(epoch)
        self.timeline.speak(utterance, epoch, samples_T)

    def end(self, utterance: str, epoch: int) -> None:
        """Know that nothing follows of an utterance."""
        self.timeline.end(utterance, epoch)

    def interrupt(self, epoch: int) -> None:
        """Drop all that belongs to epochs before this one, wherever it is by now."""
        if epoch <= self.epoch:
            return
        self.timeline.interrupt(epoch)
        for one in self.heard:
            one.is_gone = one.is_gone or self._is_stale(one.sound)
        self.made = deque(one for one in self.made if not self._is_stale(one.sound))

    def want(self, until_index: int) -> None:
        """Let slices with an index below this be released."""
        self.until_index = max(self.until_index, until_index)

    def begin_chunk(self, *, extra_ms: float = 0.0) -> None:
        """Let the face hear one more chunk of sound; what comes out at once is taken.

        `extra_ms` is how much later than usual the chunk is begun (`Timeline.take`).
        """
        count = self.face.chunk_frames
        if self.num_fed == 0:
            count += self.face.lookahead_frames
        sounds = self.timeline.take(count, extra_ms=extra_ms)
        self.heard += [Heard(sound) for sound in sounds]
        samples_T = np.concatenate([sound.samples_T for sound in sounds])
        pts = self.num_fed * self.frame_samples
        self.num_fed += count
        sound = AudioChunk(
            samples_T=samples_T.astype(np.float32) / np.float32(32768),
            sample_rate=self.face.sample_rate,
            pts=pts,
        )
        self._take_in(self.face.push(sound))

    def collect(self) -> None:
        """Take what came out of the chain since."""
        self._take_in(self.face.collect())

    def _take_in(self, pairs: Iterable[Pair]) -> None:
        for video, _ in pairs:
            for picture_HWC in video.frames_THWC:
                one = self.heard.popleft()
                self.num_out += 1
                self.last_HWC = picture_HWC
                if not one.is_gone:
                    self.made.append(Made(sound=one.sound, picture_HWC=picture_HWC))

    def hold(self, num_frames: int) -> None:
        """Make slices without the face: the last picture, and the sound that comes next.

        Sound that the face has heard already goes first, without its pictures.
        """
        waiting = [one for one in self.heard if not one.is_gone][:num_frames]
        for one in waiting:
            one.is_gone = True
        fresh = self.timeline.take(num_frames - len(waiting))
        for sound in (*(one.sound for one in waiting), *fresh):
            self.made.append(Made(sound=sound, picture_HWC=self.last_HWC))

    def release(self) -> list[LiveSlice]:
        """The slices that are made and wanted, numbered."""
        released = []
        while self.made and self.next_index < self.until_index:
            released.append(self._numbered(self.made.popleft()))
        return released

    def _numbered(self, one: Made) -> LiveSlice:
        """A slice with the next number; idle motion is of whatever epoch it is shown in."""
        index, self.next_index = self.next_index, self.next_index + 1
        sound = one.sound
        return LiveSlice(
            index=index,
            epoch=sound.epoch if sound.utterance else self.epoch,
            utterance=sound.utterance,
            picture_HWC=one.picture_HWC,
            sound_T=sound.samples_T,
            ends_utterance=sound.ends_utterance,
        )

    def _is_stale(self, sound: FrameSound) -> bool:
        return bool(sound.utterance) and sound.epoch < self.epoch

    def close(self) -> None:
        """Forget the face."""
        self.face.close()
