"""Renders hours of video in segments, so that nothing finished is lost or made twice.

A folder holds all there is of a render: the sound made ready, the segments that are whole, the
film that grows. Whoever opens it next goes on from there, and the film's pictures are bit for bit
those of a render that nobody disturbed: at each border the encoder starts afresh and the session
goes on from its exported state, whether it was interrupted there or not.

One process at a time renders in a folder. The chain runs in this process.
"""

import contextlib
import fcntl
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import torch

from pipeline.generator import AvatarGenerator
from pipeline.model import read_config
from pipeline.recording import Recording
from pipeline.segment_plan import Segment, SegmentPlan, Step, pictures_per_segment, steps
from pipeline.session_state import SessionState
from services.job_sound import ReadySound, SoundReader, make_ready, track_path
from services.job_states import Progress
from services.options import MAX_RENDER_S, RenderRequest
from services.plan_choice import chosen_plan
from services.render import CappedSound, open_generator, request_framing
from services.segment_store import Health, Manifest, SegmentStore, stored_file
from services.weights_digest import weights_digest
from video.chunk import VideoChunk
from video.colour_guard import ColourGuard
from video.framing import Framing
from video.growing_film import GrowingFilm
from video.label import Label
from video.part import PartWriter
from video.text_track import Words

VERSION = 1


class FolderBusy(RuntimeError):
    """Another process renders in the folder."""


class Watch(Protocol):
    """Who looks on: may stop the render by raising, and hears how far it is."""

    def check(self) -> None:
        """Called many times a second, between any two pieces of work."""

    def at_border(self) -> None:
        """Called whenever everything made so far is on the disk."""

    def report(self, progress: Progress) -> None:
        """Called after each chunk of pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LongOptions:
    """What a long render can do beside rendering; `loudness_lufs` 0 leaves the sound as it is."""

    segment_s: Fraction = Fraction(20)
    max_sound_s: Fraction = Fraction(MAX_RENDER_S)
    loudness_lufs: float = 0.0
    guard_colour: bool = False
    label: str = ""


class LongRender:
    """One render in a folder of its own."""

    def __init__(
        self,
        request: RenderRequest,
        options: LongOptions,
        folder: Path,
        watch: Watch,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Look at the inputs.

        Raises:
            AudioError, ImageError, ModelError, PlanError: an input cannot be used.
        """
        self._request, self._options, self._folder, self._watch = request, options, folder, watch
        self._sound = CappedSound(request.audio, options.max_sound_s)
        self._framing = request_framing(request)
        self._label = Label(options.label, self._framing.size) if options.label else None
        self._fingerprint = fingerprint(request, options)
        self._clock = clock
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def growing_path(self) -> Path:
        """The film as far as it is, to be watched meanwhile."""
        return self._folder / "growing.mp4"

    def run(self, film: Path, words: Words | None = None) -> Progress:
        """Render what is missing and put the whole film at `film`.

        Raises:
            FolderBusy: another process works here.
            AudioError: the sound is damaged somewhere.
            OSError: the disk is full or gone; everything finished stays.
            Whatever the watch raises to stop.
        """
        with self._alone():
            sound = make_ready(
                self._sound,
                self._folder,
                self._fingerprint,
                loudness_lufs=self._options.loudness_lufs,
                on_each=self._watch.check,
            )
            return self._finish(sound, film, words)

    def _finish(self, sound: ReadySound, film: Path, words: Words | None) -> Progress:
        """Make the segments that are missing, and join all."""
        store = SegmentStore(self._folder / "segments", self._fingerprint)
        with open_generator(self._request, self._sound, self._framing, Recording()) as generator:
            work = _Work(self, generator, store, sound)
            health = store.check(work.plan.num_segments, self._watch.check)
            joined = _Joined(self, work, health)
            with joined.film:
                joined.take()
                for step in steps(work.plan.num_segments, health.whole, health.states):
                    self._watch.at_border()
                    manifest = work.run(step, joined.done)
                    if manifest is not None:
                        health.whole[step.run] = manifest
                        joined.take()
                self._watch.check()
                joined.film.finish(film, words)
            self.growing_path.unlink(missing_ok=True)
            return work.progress(joined.done)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep others out of the folder."""
        with (self._folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise FolderBusy(f"{self._folder} is rendered in by another process") from error
            yield


@dataclass(slots=True)
class _Done:
    """How many pictures and segments are whole."""

    frames: int = 0
    segments: int = 0


class _Joined:
    """The film as far as it has no gap."""

    def __init__(self, render: LongRender, work: "_Work", health: Health) -> None:
        self._store, self._whole = work.store, health.whole
        self.film = GrowingFilm(
            render.growing_path,
            track_path(render._folder),
            fps=work.plan.fps,
            sample_rate=work.plan.sample_rate,
        )
        self._next = 0
        self.done = _Done()

    def take(self) -> None:
        """Join all segments that follow without a gap."""
        while (manifest := self._whole.get(self._next)) is not None:
            if manifest.num_frames:
                self.film.append(self._store.media_path(self._next), manifest.num_frames)
            self._next += 1
        self.done.segments = len(self._whole)
        self.done.frames = sum(m.num_frames for m in self._whole.values())


class _Work:
    """A session that runs segments, each from the state that the one before left."""

    def __init__(
        self,
        render: LongRender,
        generator: AvatarGenerator,
        store: SegmentStore,
        sound: ReadySound,
    ) -> None:
        self._generator, self.store = generator, store
        self._watch, self._clock = render._watch, render._clock
        self._framing: Framing = render._framing
        self._label = render._label
        options = render._options
        per_chunk = generator.plan.frames_per_chunk * generator.model.codec.frames_per_latent
        self.plan = SegmentPlan(
            num_samples=sound.num_samples,
            sample_rate=sound.sample_rate,
            fps=generator.fps,
            pictures=pictures_per_segment(generator.fps, per_chunk, options.segment_s),
        )
        self._reader = SoundReader(render._sound, sound.gain)
        self._guard = ColourGuard(generator.fps) if options.guard_colour else None
        self._fresh = self._exported(0)
        self._next_frame = 0
        self._began_s, self._num_made = self._clock(), 0

    def run(self, step: Step, done: _Done) -> Manifest | None:
        """Run a segment; returns what was committed, None if only its state was wanted."""
        if step.load is not None:
            self._enter(self._fresh if step.load < 0 else self.store.state(step.load))
        segment = self.plan.segment(step.run)
        first_frame = self._next_frame
        if step.is_wanted:
            self._record(segment, done)
        else:
            for video in self._pictures(segment):
                self._count(video)
        # After the last segment the session is over, and nothing starts from its state.
        state = SessionState() if segment.is_last else self._exported(self._next_frame)
        if not segment.is_last:
            self._enter(state)
        return self._committed(segment.index, first_frame, state) if step.is_wanted else None

    def _record(self, segment: Segment, done: _Done) -> None:
        """Write the segment's pictures; nothing is written where there are none."""
        part: PartWriter | None = None
        began_at = self._next_frame
        try:
            for video in self._pictures(segment):
                path, size = self.store.writing_path(segment.index), self._framing.size
                part = part or PartWriter(path, size=size, fps=self.plan.fps)
                shown = self._framing.compose(video)
                part.write(shown if self._label is None else self._label.drawn_on(shown))
                self._count(video)
                made = self._next_frame - began_at
                self._watch.report(self.progress(_Done(done.frames + made, done.segments)))
            if part is not None:
                part.close()
        except BaseException:
            if part is not None:
                part.abandon()
            raise

    def _count(self, video: VideoChunk) -> None:
        self._next_frame += video.num_frames
        self._num_made += video.num_frames

    def _pictures(self, segment: Segment) -> Iterator[VideoChunk]:
        """What comes out while the segment's sound goes in."""
        for piece in self._reader.pieces(segment.start_sample, segment.end_sample):
            self._watch.check()
            for video, _ in self._generator.push(piece):
                yield self._guarded(video)
                self._watch.check()
        if segment.is_last:
            for video, _ in self._generator.flush():
                yield self._guarded(video)
                self._watch.check()

    def _guarded(self, video: VideoChunk) -> VideoChunk:
        return video if self._guard is None else self._guard.corrected(video)

    def _committed(self, index: int, first_frame: int, state: SessionState) -> Manifest:
        """Have the segment count."""
        return self.store.commit(
            index,
            first_frame=first_frame,
            num_frames=self._next_frame - first_frame,
            state=state,
        )

    def _exported(self, next_frame: int) -> SessionState:
        """Everything that the next segment starts from."""
        parts: dict[str, SessionState | dict[str, torch.Tensor]] = {
            "session": self._generator.export_state(),
            "film": SessionState(numbers={"next_frame": next_frame}),
        }
        if self._guard is not None:
            parts["guard"] = self._guard.export_state()
        return SessionState.of(parts)

    def _enter(self, state: SessionState) -> None:
        """Go on from a state; done at each border, so that a resumed render does nothing else."""
        self._generator.import_state(state.part("session"))
        self._next_frame = state.part("film").numbers["next_frame"]
        if self._guard is not None:
            self._guard.import_state(state.part("guard").tensors)

    def progress(self, done: _Done) -> Progress:
        """How far the render is, and how fast it goes since it was opened."""
        spent_s = self._clock() - self._began_s
        fps = self._num_made / spent_s if spent_s > 0 else 0.0
        left = max(0, self.plan.num_frames - done.frames)
        return Progress(
            num_frames_done=done.frames,
            num_frames_total=self.plan.num_frames,
            num_segments_done=done.segments,
            num_segments_total=self.plan.num_segments,
            fps=round(fps, 3),
            eta_s=round(left / fps, 1) if fps else -1.0,
        )


def fingerprint(request: RenderRequest, options: LongOptions) -> str:
    """The same for renders whose pictures are the same: inputs by content, choices by value.

    Weights count by content as `weights_digest` has it: large files by header and edges.
    """
    folder, config = read_config(request.model)
    plan = chosen_plan(request.plan, request.mode, config.plan)
    weights = {
        str(path.relative_to(folder)): weights_digest(path)
        for path in sorted(folder.rglob("*.safetensors"))
    }
    named = {step.adapter for step in plan.steps if step.adapter}
    adapters = {name: weights_digest(Path(name)) for name in named if Path(name).is_file()}
    chosen = replace(request, portrait=Path(), audio=Path(), out=Path(), trace=None)
    facts = {
        "version": VERSION,
        "portrait": stored_file(request.portrait).sha256,
        "audio": stored_file(request.audio).sha256,
        "model": config.model_dump(),
        "weights": weights,
        "plan": asdict(plan),
        "adapters": adapters,
        "request": asdict(chosen),
        "options": asdict(options),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
