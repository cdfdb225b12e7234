"""Faces of a real model: a portrait's bytes and sound in, framed pictures with their sound out.

Shape legend: B = batch (1), C = channels, H, W = rows and columns, L = layers, T = frames.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from audio.chunk import AudioChunk
from pipeline.catalog import is_bare_name
from pipeline.chain import Chain, LocalChain
from pipeline.collector import Collector
from pipeline.errors import ChainFull, ModelError, PlanError
from pipeline.generator import AvatarGenerator
from pipeline.ladder import FEWER_STEPS, HALF_RATE, SMALLER
from pipeline.live_face import FaceRefused, StageTime
from pipeline.model import Model
from pipeline.plan import Plan, PluginSpec
from pipeline.plan_conflicts import LIVE_BYPASS, require_no_conflict
from pipeline.plan_parse import load_plan
from pipeline.session_state import SessionState
from pipeline.spans import Span
from pipeline.speech import SpeechWindows
from pipeline.staged_chain import StagedChain
from pipeline.sync import Pair
from pipeline.thrift import Thrift
from pipeline.timed_stage import TimedChain
from video.crop import Crop, parse_crop
from video.errors import ImageError
from video.framing import Framing, framing_from_bytes
from video.motion_codec import MotionCodec

MAX_SIDE_PX = 1920
MIN_SIDE_PX = 64
MAX_LOOKAHEAD_FRAMES = 100
# Half the sides save nothing worth having below: paint is 256 pixels wide whatever the portrait.
MIN_SHRUNK_PX = 512
# Spans of stages elsewhere that wait for their sessions to ask.
MAX_SPANS = 1024


class ModelFace:
    """One session of a model, as `pipeline.live_face.Face`."""

    def __init__(
        self,
        generator: AvatarGenerator,
        framing: Framing,
        lookahead_frames: int,
        times: "TimedChain | ChainTimes",
        rungs: tuple[int, ...] = (),
    ) -> None:
        """Show what `generator` makes as `framing` says; `times` are its chain's.

        `rungs` of the ladder are those that save time here.
        """
        self._generator, self._framing, self._times = generator, framing, times
        self.fps, self.sample_rate = generator.fps, generator.sample_rate
        self.size = framing.size
        self.chunk_frames = chunk_frames(generator.model, generator.plan)
        self.lookahead_frames = lookahead_frames
        self.rungs = rungs
        self._generator.thrift = Thrift()

    def push(self, sound: AudioChunk) -> Iterator[Pair]:
        """Hear the next sound; give the pairs that are there by now."""
        return self._framed(self._generator.push(sound))

    def collect(self) -> Iterator[Pair]:
        """Give pairs that became ready since, without waiting."""
        return self._framed(self._generator.collect())

    def _framed(self, pairs: Iterable[Pair]) -> Iterator[Pair]:
        return ((self._framing.compose(video), audio) for video, audio in pairs)

    def save_time(self, rung: int) -> None:
        """Make the next chunks as that rung says; each saves what those before it do, too."""
        self._generator.thrift = Thrift(
            leaves_out_steps=rung >= FEWER_STEPS and FEWER_STEPS in self.rungs,
            halves_rate=rung >= HALF_RATE and HALF_RATE in self.rungs,
            halves_size=rung >= SMALLER and SMALLER in self.rungs,
        )

    def stage_times(self) -> Sequence[StageTime]:
        """What stages did since this was asked last."""
        return [
            StageTime(
                stage=span.stage,
                chunk=span.chunk,
                began_ms=span.began_ns / 1e6,
                ended_ms=span.ended_ns / 1e6,
            )
            for span in self._times.taken_of(self._generator.session)
        ]

    def export_state(self) -> SessionState:
        """Everything that a twin needs to go on."""
        return self._generator.export_state()

    def import_state(self, state: SessionState) -> None:
        """Go on from what a twin exported."""
        self._generator.import_state(state)

    def close(self) -> None:
        """Forget the session."""
        self._generator.close()


class ChainTimes:
    """What stages elsewhere did, by session; asking waits for nobody, so answers come a look later.

    Sessions that do not ask are forgotten with the oldest spans.
    """

    def __init__(self, chain: Chain) -> None:
        """Look at a chain of stages; of any other nothing is known."""
        staged = chain if isinstance(chain, StagedChain) else None
        self._collector = None if staged is None else Collector(staged, answer_s=0.0)
        self._spans: deque[Span] = deque(maxlen=MAX_SPANS)

    def taken_of(self, session: str) -> list[Span]:
        """A session's spans since they were taken last."""
        if self._collector is not None:
            seen = self._collector.look().records
            self._spans += [one for one in seen if isinstance(one, Span) and one.stage != "sink"]
        found = [span for span in self._spans if span.session == session]
        rest = [span for span in self._spans if span.session != session]
        self._spans = deque(rest, maxlen=MAX_SPANS)
        return found


class ModelFaces:
    """Opens sessions of one model, as `pipeline.live_face.FaceMaker`."""

    def __init__(self, model: Model, plan: Plan, *, chain: Chain | None = None) -> None:
        """Make faces in `chain`, or in one of this process for each plan that is asked for.

        Raises:
            PlanError: nobody could watch what the plan makes while it is made.
        """
        _require_live(plan)
        self._model, self._plan, self._given = model, plan, chain
        self._chains: dict[str, tuple[Plan, LocalChain, TimedChain]] = {}
        self._times = None if chain is None else ChainTimes(chain)
        self._lookahead: dict[tuple[int, int], int] = {}
        self.name, self.plan_name = model.name, plan.name
        self.fps: Fraction = model.fps
        self.native_size = model.config.native_size
        self.chunk_frames = chunk_frames(model, plan)

    def open(
        self,
        portrait: bytes,
        *,
        session: str,
        seed: int,
        sample_rate: int,
        size: tuple[int, int] | None = None,
        crop: str = "",
        plan: str = "",
    ) -> ModelFace:
        """A face for the portrait in a PNG, JPEG or WebP file.

        Raises:
            FaceRefused: one line says why not.
        """
        self._require_rate(sample_rate)
        framing = self._framing(portrait, size, crop)
        chosen, chain, times = self._place(plan)
        try:
            generator = AvatarGenerator(
                self._model,
                chosen,
                framing.face_BCHW,
                sample_rate=sample_rate,
                seed=seed,
                chain=chain,
                session=session,
                still_border=framing.still_border,
                live=True,
            )
        except ChainFull as error:
            raise FaceRefused("capacity", str(error)) from error
        except ImageError as error:
            raise FaceRefused("size", str(error)) from error
        lookahead_frames = self._lookahead_frames(chosen, sample_rate)
        return ModelFace(generator, framing, lookahead_frames, times, self._rungs(chosen, framing))

    def close(self) -> None:
        """Forget all sessions of the chains that were made here."""
        for _, chain, _ in self._chains.values():
            chain.close()

    def _require_rate(self, sample_rate: int) -> None:
        if sample_rate % self.fps:
            raise FaceRefused(
                "sample_rate",
                f"sound of {sample_rate} Hz has no whole number of samples in a picture of "
                f"{self.fps} per second: use 48000",
            )

    def _framing(self, portrait: bytes, size: tuple[int, int] | None, crop: str) -> Framing:
        """The portrait as the model and the viewer see it; without a size, the face alone."""
        if size is not None and any(s % 2 or not MIN_SIDE_PX <= s <= MAX_SIDE_PX for s in size):
            raise FaceRefused(
                "size",
                f"size {size[0]}x{size[1]}: use even sides from {MIN_SIDE_PX} to {MAX_SIDE_PX}",
            )
        try:
            return framing_from_bytes(
                portrait,
                name="portrait",
                model_size=self.native_size,
                any_size=self._model.config.codec.get("kind") == "motion",
                frame="face" if size is None else "auto",
                size=size,
                crop=parse_crop(crop) if crop else Crop(),
            )
        except ValueError as error:  # ImageError, and what a crop may be
            raise FaceRefused("portrait", " ".join(str(error).split())) from error

    def _place(self, name: str) -> "tuple[Plan, Chain, TimedChain | ChainTimes]":
        """The plan of that name and the chain that runs it."""
        if self._given is not None and self._times is not None:
            if name not in ("", self.plan_name):
                raise FaceRefused("plan", f"plan {name!r}: this chain runs {self.plan_name} only")
            return self._plan, self._given, self._times
        if name not in self._chains:
            named = self._plan if name in ("", self.plan_name) else _shipped_live_plan(name)
            plan = with_bypass(named)
            try:
                chain = self._model.local_chain(plan)
            except (PlanError, ModelError) as error:
                raise FaceRefused("plan", str(error)) from error
            names = [*(stage.name for stage in plan.stages), "decode"]
            self._chains[name] = plan, chain, TimedChain(chain, names)
        return self._chains[name]

    def _rungs(self, plan: Plan, framing: Framing) -> tuple[int, ...]:
        """Rungs that save time: what stages elsewhere do is not for us to say."""
        if self._given is not None:
            return ()
        found = [FEWER_STEPS] if LIVE_BYPASS in [spec.name for spec in plan.plugins] else []
        if isinstance(self._model.codec, MotionCodec):
            found.append(HALF_RATE)
            if min(framing.face_BCHW.shape[-2:]) >= MIN_SHRUNK_PX:
                found.append(SMALLER)
        return tuple(found)

    def _lookahead_frames(self, plan: Plan, sample_rate: int) -> int:
        """Frames of sound beyond a chunk that must be heard before it can be made."""
        key = (chunk_frames(self._model, plan), sample_rate)
        if key not in self._lookahead:
            self._lookahead[key] = _measured_lookahead(self._model, *key)
        return self._lookahead[key]


def with_bypass(plan: Plan) -> Plan:
    """The plan with steps that may be left out when a chunk is late, if it can have any.

    Chunks that are not late stay the same bit for bit.
    """
    bypassed = replace(plan, plugins=(*plan.plugins, PluginSpec(name=LIVE_BYPASS)))
    try:
        require_no_conflict(bypassed)
    except PlanError:
        return plan
    return bypassed


def chunk_frames(model: Model, plan: Plan) -> int:
    """Pictures of a chunk."""
    return plan.frames_per_chunk * model.codec.frames_per_latent


def _measured_lookahead(model: Model, num_frames: int, sample_rate: int) -> int:
    """The look-ahead of encoder and resampler in whole frames, found by listening to silence.

    Later chunks need no more than the first: the resampler's delay does not grow.
    """
    windows = SpeechWindows(
        model.speech_encoder(), sample_rate=sample_rate, fps=model.fps, window_frames=num_frames
    )
    samples = int(sample_rate / model.fps)
    silence_T = np.zeros(samples, np.float32)
    for index in range(num_frames + MAX_LOOKAHEAD_FRAMES):
        sound = AudioChunk(samples_T=silence_T, sample_rate=sample_rate, pts=index * samples)
        if windows.push(sound):
            return index + 1 - num_frames
    raise ModelError(
        f"model {model.name} needs more than {MAX_LOOKAHEAD_FRAMES} pictures of sound beyond a "
        "chunk: it cannot be used live"
    )


def _shipped_live_plan(name: str) -> Plan:
    """A live plan by its name alone: files of the machine are not for whoever opens sessions."""
    try:
        if not is_bare_name(name) or len(name) > 64:
            raise PlanError(f"plan {name[:80]!r}: use the name of a plan that is shipped")
        plan = load_plan(name)
        _require_live(plan)
    except PlanError as error:
        raise FaceRefused("plan", str(error)) from error
    return plan


def _require_live(plan: Plan) -> None:
    if plan.mode != "live" or plan.windows is not None:
        raise PlanError(f"plan {plan.name} is for renders: choose one of mode live")
