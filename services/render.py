"""Renders one portrait and one sound into one MP4: the main job, apart from how it is shown."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from audio.align import num_frames
from audio.chunk import AudioChunk
from audio.errors import AudioError
from audio.resample import StreamResampler
from audio.source import DEFAULT_MAX_SECONDS, FileSource, probe
from pipeline.generator import AvatarGenerator
from pipeline.model import load_model, read_config
from pipeline.preview_chain import as_stream
from pipeline.recording import Recording
from pipeline.timings import ChainTimings
from services.chains import ChainTask, open_chain
from services.options import MAX_RENDER_S, OptionError, RenderRequest
from services.plan_choice import chosen_plan
from services.preview import SmallFraming, open_preview, require_previewable
from services.trace_file import trace_file
from video.dit_config import DiTConfig
from video.framing import Framing, open_framing
from video.record import AAC_SAMPLE_RATES, Mp4Recorder, unfinished_paths

# What sound is resampled to where AAC has no such rate as its own.
FALLBACK_SAMPLE_RATE = 48_000

# Called with the pictures done, those in all (None where the sound's length is unknown), and fps.
Progress = Callable[[int, int | None, Fraction], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderSummary:
    """What was rendered and how fast; `real_time_factor` is seconds of video per second.

    `wall_s` covers everything, `load_s` the part of it before the first sound was heard.
    """

    out: str
    model: str
    plan: str
    seed: int
    width: int
    height: int
    fps: str
    num_frames: int
    num_samples: int
    sample_rate: int
    video_s: float
    load_s: float
    wall_s: float
    real_time_factor: float
    stats: ChainTimings | None = None

    def as_record(self) -> dict[str, Any]:
        """Plain values for JSON; the stages' figures only where they were asked for."""
        record = asdict(self)
        if self.stats is None:
            del record["stats"]
        return record


class CappedSound:
    """A sound file up to a limit, at a rate that AAC has."""

    def __init__(self, path: Path, max_seconds: Fraction | None) -> None:
        """Look at the file's header.

        Raises:
            AudioError: there is no usable sound, or more of it than is rendered unasked.
        """
        info = probe(path)
        if max_seconds is None and (info.duration_s or 0) > DEFAULT_MAX_SECONDS:
            raise AudioError(
                f"{path} lasts {float(info.duration_s or 0):.0f} s, more than the "
                f"{DEFAULT_MAX_SECONDS:.0f} s rendered unasked: pass --max-seconds to set a limit"
            )
        limit_s = DEFAULT_MAX_SECONDS if max_seconds is None else float(MAX_RENDER_S)
        self._source = FileSource(path, max_seconds=limit_s)
        own_rate = self._source.sample_rate
        self.sample_rate = own_rate if own_rate in AAC_SAMPLE_RATES else FALLBACK_SAMPLE_RATE
        self._max_seconds = max_seconds
        self._duration_s = info.duration_s

    def expected_frames(self, fps: Fraction) -> int | None:
        """Pictures to come as far as the header tells, None where it does not."""
        known = [s for s in (self._duration_s, self._max_seconds) if s is not None]
        if self._duration_s is None:
            return None
        return num_frames(int(min(known) * self.sample_rate), self.sample_rate, fps)

    def chunks(self) -> Iterator[AudioChunk]:
        """The sound from the start."""
        own_rate = self._source.sample_rate
        if self.sample_rate == own_rate:
            return self._capped()
        return _resampled(self._capped(), StreamResampler(own_rate, self.sample_rate))

    def _capped(self) -> Iterator[AudioChunk]:
        """The file's sound up to the limit."""
        rate = self._source.sample_rate
        end = None if self._max_seconds is None else max(1, int(self._max_seconds * rate))
        for chunk in self._source.chunks():
            if end is not None and chunk.end_pts >= end:
                samples_T = chunk.samples_T[: end - chunk.pts]
                yield AudioChunk(samples_T=samples_T, sample_rate=rate, pts=chunk.pts)
                return
            yield chunk


def _resampled(sound: Iterator[AudioChunk], resampler: StreamResampler) -> Iterator[AudioChunk]:
    """The same sound at the resampler's rate."""
    for chunk in sound:
        yield resampler.push(chunk)
    yield resampler.flush()


def render(
    request: RenderRequest, on_progress: Progress, *, clock: Callable[[], float] = time.monotonic
) -> RenderSummary:
    """Write the request's video; on any failure nothing is left at its path.

    Raises:
        AudioError, ChainError, ImageError, ModelError, OptionError, PlanError, RecordError,
            WeightsError: an input cannot be used, or the output would replace one.
        ChainDown: stages that run elsewhere failed again and again.
    """
    began_s = clock()
    if request.preview is not None:
        require_previewable(request)
    sound = CappedSound(request.audio, request.max_seconds)
    _require_separate_output(request)
    framing = request_framing(request)
    recording = Recording()
    with (
        trace_file(request.trace, recording, overwrite=request.overwrite),
        _open_recorder(request, sound, framing) as recorder,
        open_generator(request, sound, framing, recording) as generator,
    ):
        loaded_s = clock()
        total = sound.expected_frames(generator.fps)
        on_progress(0, total, generator.fps)
        for video, audio in generator.run(sound.chunks()):
            recorder.write_video(framing.compose(video))
            recorder.write_audio(audio)
            on_progress(recorder.num_frames, total, generator.fps)
    times_s = (loaded_s - began_s, clock() - began_s)
    summary = _summary(request, framing.size, generator, recorder, times_s)
    return replace(summary, stats=recording.timings()) if request.stats else summary


def request_framing(request: RenderRequest) -> Framing:
    """The request's portrait, as the model and the viewer see it."""
    _, config = read_config(request.model)
    framing = open_framing(
        request.portrait,
        model_size=config.native_size,
        any_size=config.codec.get("kind") == "motion",
        frame=request.frame if request.preview is None else "face",
        size=request.size,
        crop=request.crop,
    )
    return framing if request.preview is None else SmallFraming(framing)


def _open_recorder(request: RenderRequest, sound: CappedSound, framing: Framing) -> Mp4Recorder:
    """A recording of the request's size and rate, opened before the weights are loaded."""
    _, config = read_config(request.model)
    width, height = framing.size
    return Mp4Recorder(
        request.out,
        width=width,
        height=height,
        fps=request.fps or config.fps,
        sample_rate=sound.sample_rate,
        overwrite=request.overwrite,
    )


def _require_separate_output(request: RenderRequest) -> None:
    """Refuse an output that is one of the inputs under this or another name."""
    _require_own_trace(request)
    for path in (request.out, *unfinished_paths(request.out)):
        for source in (request.audio, request.portrait):
            if _is_same_file(path, source):
                raise OptionError(f"--out {request.out} would replace {source}: choose another")


def _require_own_trace(request: RenderRequest) -> None:
    """Refuse a trace in place of an input or of the video."""
    if request.trace is not None:
        for path in (request.audio, request.portrait, request.out):
            if _is_same_file(request.trace, path) or request.trace.resolve() == path.resolve():
                raise OptionError(f"--trace {request.trace} would replace {path}: choose another")


def _is_same_file(path: Path, other: Path) -> bool:
    """Whether both are there and the same; what cannot be looked at is judged by who opens it."""
    try:
        return path.samefile(other)
    except (OSError, ValueError):
        return False


@contextmanager
def open_generator(
    request: RenderRequest, sound: CappedSound, framing: Framing, recording: Recording
) -> Iterator[AvatarGenerator]:
    """A session of the request's portrait and rate; cheap checks come before the weights."""
    folder, config = read_config(request.model)
    plan = chosen_plan(request.plan, request.mode, config.plan)
    if request.preview is not None:
        plan = as_stream(plan, DiTConfig.from_dict(config.dit))
    task = ChainTask(
        request=request.chain,
        plan=plan,
        model=request.model,
        folder=folder,
        config=config,
        size=(framing.face_BCHW.shape[-1], framing.face_BCHW.shape[-2]),
    )
    wanted = recording if request.trace is not None or request.stats else None
    load = partial(load_model, request.model)
    opened = (
        open_chain(task, load, recording=wanted)
        if request.preview is None
        else open_preview(task, load, request.preview, wanted)
    )
    with opened as (model, chain):
        yield AvatarGenerator(
            model,
            task.plan,
            framing.face_BCHW,
            sample_rate=sound.sample_rate,
            seed=request.seed,
            fps=request.fps,
            chain=chain,
            still_border=framing.still_border,
        )


def _summary(
    request: RenderRequest,
    size: tuple[int, int],
    generator: AvatarGenerator,
    recorder: Mp4Recorder,
    times_s: tuple[float, float],
) -> RenderSummary:
    """What the finished recording holds; `times_s` are its `load_s` and `wall_s`."""
    load_s, wall_s = times_s
    video_s = float(recorder.num_frames / generator.fps)
    width, height = size
    return RenderSummary(
        out=str(request.out),
        model=generator.model.name,
        plan=generator.plan.name,
        seed=request.seed,
        width=width,
        height=height,
        fps=str(generator.fps),
        num_frames=recorder.num_frames,
        num_samples=recorder.num_samples,
        sample_rate=generator.sample_rate,
        video_s=round(video_s, 6),
        load_s=round(load_s, 3),
        wall_s=round(wall_s, 3),
        real_time_factor=round(video_s / max(wall_s - load_s, 1e-9), 3),
    )
