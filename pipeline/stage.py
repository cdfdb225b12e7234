"""One station of the chain: takes a chunk, does its share, hands it on.

Shape legend: B = batch (1), C = channels, T = frames, H, W = rows and columns, S = text tokens,
D = their width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Protocol, TypeVar

import torch
from torch import nn

from pipeline.errors import ModelError
from pipeline.lane_wave import run_wave
from pipeline.memory_use import tensor_bytes
from pipeline.plan import Step
from pipeline.sampler import Denoiser, Lane, StepWork, denoise
from pipeline.session_state import SessionState
from pipeline.sink_store import Conditions, SinkStore
from pipeline.step_cost import BatchProfile
from video.audio_tokens import AudioHistory, Heard
from video.chunk import LatentChunk, VideoChunk
from video.codec import DecoderState, VideoCodec
from video.kv_cache import KVCache
from video.still_border import hold_border

OutT_co = TypeVar("OutT_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionInputs:
    """What every stage must know of a session before its first chunk.

    `image_BCHW` is the portrait in [-1, 1]; `reference_BCTHW` its latent (T = 1); `motion_BCTHW`
    the latents before the first chunk, for networks that look at them; `fps` the pictures' rate.
    `still_border` says that the pictures are laid into a larger one and must not move where they
    meet it. `live` says that somebody watches as they are made: each chunk has a deadline then.
    """

    session: str
    seed: int
    fps: Fraction
    image_BCHW: torch.Tensor
    reference_BCTHW: torch.Tensor
    motion_BCTHW: torch.Tensor | None = None
    context_BSD: torch.Tensor | None = None
    still_border: bool = False
    live: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkWork:
    """A chunk of latents on its way down the chain, with what steers it in every step.

    `audio_LCT` holds one feature vector per video frame (four per latent frame); `cond_CTHW` the
    prior's latents, zeros in a model without a prior. `reference_BCTHW` is the latent (T = 1) that
    takes the reference's place from this chunk on, in every step; None changes nothing.
    """

    session: str
    latent: LatentChunk
    audio_LCT: torch.Tensor
    cond_CTHW: torch.Tensor
    reference_BCTHW: torch.Tensor | None = None


class Stage(Protocol[OutT_co]):
    """What every station promises; sessions do not see each other."""

    def prepare(self, inputs: SessionInputs) -> None:
        """Make room for a session; must come before its first chunk."""
        ...

    def process(self, work: ChunkWork) -> OutT_co:
        """Do this station's share; chunks of one session come in order."""
        ...

    def reset(self, session: str) -> None:
        """Forget a session; a session that is unknown is no error."""
        ...

    def memory_bytes(self, session: str) -> int:
        """Bytes that the session takes here; 0 for one that is unknown."""
        ...

    def export_state(self, session: str) -> SessionState:
        """Everything a prepared twin needs to go on with the session.

        What belongs to a step is under `step<index>`, the decoder's state under `decoder`.
        """
        ...

    def import_state(self, session: str, state: SessionState) -> None:
        """Go on from an export, which may hold more than this station's share.

        The session must be prepared.
        """
        ...

    def close(self) -> None:
        """Forget all sessions."""
        ...


@dataclass(slots=True, kw_only=True)
class _Session:
    """What a denoising stage holds of a session.

    `heard` is the speech of chunks under way, by their first frame: encoded once for all steps.
    """

    inputs: SessionInputs
    lanes: list[Lane]
    heard: dict[int, tuple[Heard, ...]] = field(default_factory=dict)


class DenoiseStage:
    """Runs a contiguous run of steps; one lane per (session, step), one sink per portrait.

    `process` takes one chunk through all steps. `advance` takes several chunks, of one session at
    different steps or of several sessions, one step further in one pass of the network; what they
    become is the same but for rounding (1e-5 of a latent in float32).
    """

    def __init__(
        self,
        denoiser: Denoiser,
        steps: Sequence[Step],
        *,
        first_step: int,
        window_frames: int,
        frames_per_chunk: int,
        sinks: SinkStore | None = None,
        batch: BatchProfile | None = None,
    ) -> None:
        """Own `steps`, numbered from `first_step` in the plan.

        Stages with the same network may share `sinks`. `batch` says how many chunks
        `process_many` takes through the network at once, and what that takes; None: one by one.
        """
        self._denoiser = denoiser
        self._steps = tuple(steps)
        self._first_step = first_step
        self._window_frames = window_frames
        self._frames_per_chunk = frames_per_chunk
        self._sinks = SinkStore(denoiser.network) if sinks is None else sinks
        self._sessions: dict[str, _Session] = {}
        self.batch = BatchProfile() if batch is None else batch

    @property
    def num_steps(self) -> int:
        """How many steps it owns."""
        return len(self._steps)

    def prepare(self, inputs: SessionInputs) -> None:
        """Fill the session's sink and open its empty lanes."""
        self.reset(inputs.session)
        conditions = Conditions(
            reference_BCTHW=inputs.reference_BCTHW,
            motion_BCTHW=inputs.motion_BCTHW,
            context_BSD=inputs.context_BSD,
        )
        lanes = [
            Lane(
                step=step,
                index=self._first_step + offset,
                cache=self._open_cache(),
                sink=self._sinks.hold(conditions),
                history=AudioHistory(),
            )
            for offset, step in enumerate(self._steps)
        ]
        self._sessions[inputs.session] = _Session(inputs=inputs, lanes=lanes)

    def process(self, work: ChunkWork) -> ChunkWork:
        """The chunk after this stage's steps; steps that it has behind it are left out."""
        while not self.is_through(work):
            (work,) = self.advance([work])
        return work

    def process_many(self, works: Sequence[ChunkWork]) -> list[ChunkWork | Exception]:
        """What `process` makes of each, or what went wrong; so many in one pass as `batch` says.

        Chunks of one session follow each other, one step apart. One that fails ends its session
        alone.
        """
        return run_wave(self, works, len(self.batch.ratios))

    def is_through(self, work: ChunkWork) -> bool:
        """Whether a chunk has this stage's steps behind it."""
        return work.latent.sigma <= self._steps[-1].sigma_out

    @torch.inference_mode()
    def advance(self, works: Sequence[ChunkWork]) -> list[ChunkWork]:
        """Each chunk one step further, in one pass; those that are through stay as they are.

        Doing the same once more gives the same, as long as nothing of these lanes came after.

        Raises:
            ValueError: two chunks are at one step of one session, or one is at no step of this
                stage.
        """
        ahead = [work for work in works if not self.is_through(work)]
        if len({(work.session, work.latent.sigma) for work in ahead}) < len(ahead):
            raise ValueError("two chunks of one session at one step: advance them in turn")
        made = iter(denoise(self._denoiser, [self._at_step(work) for work in ahead]))
        return [
            work if self.is_through(work) else replace(work, latent=next(made)) for work in works
        ]

    def _at_step(self, work: ChunkWork) -> StepWork:
        """The chunk in its lane, which from now on shows the reference that the chunk brings."""
        session = self._sessions[work.session]
        lane = self._lane(session, work)
        if work.reference_BCTHW is not None:
            self._show(lane, work.reference_BCTHW)
        return StepWork(
            chunk=work.latent,
            lane=lane,
            heard=self._hear(session, lane, work),
            cond_CTHW=work.cond_CTHW,
            seed=session.inputs.seed,
        )

    def _lane(self, session: _Session, work: ChunkWork) -> Lane:
        """The lane whose step starts at the chunk's noise level."""
        for lane in session.lanes:
            if lane.step.sigma_in == work.latent.sigma:
                return lane
        first = session.lanes[0]
        raise ValueError(
            f"chunk {work.latent.index} is at sigma {work.latent.sigma}, step {first.index} starts "
            f"at {first.step.sigma_in}: run the steps in order"
        )

    def _show(self, lane: Lane, reference_BCTHW: torch.Tensor) -> None:
        """Give a lane the sink of another reference."""
        before = lane.sink
        wanted = replace(before.conditions, reference_BCTHW=reference_BCTHW)
        if not before.conditions.same(wanted):
            lane.sink = self._sinks.hold(wanted)
            self._sinks.release(before)

    def _hear(self, session: _Session, lane: Lane, work: ChunkWork) -> tuple[Heard, ...] | None:
        """The chunk's speech as the layers use it, None for a network that hears nothing."""
        network, start_frame = self._denoiser.network, work.latent.start_frame
        if not network.config.audio_inject_layers:
            return None
        audio_BLCT = work.audio_LCT[None].to(network.patch_embedding.weight)
        heard = session.heard.get(start_frame)
        if heard is None:
            heard = network.encode_audio(audio_BLCT, start_frame=start_frame, history=lane.history)
            session.heard[start_frame] = heard
        elif network.config.audio_context == "carry":
            lane.history.advance(start_frame, audio_BLCT)
        if lane is session.lanes[-1]:
            del session.heard[start_frame]
        return heard

    def reset(self, session: str) -> None:
        """Forget a session; other stages keep what they share with this one."""
        held = self._sessions.pop(session, None)
        for lane in () if held is None else held.lanes:
            self._sinks.release(lane.sink)

    def memory_bytes(self, session: str) -> int:
        """Bytes of the session's lanes, and its share of the sinks that others hold as well."""
        held = self._sessions.get(session)
        lanes = [] if held is None else held.lanes
        sinks = sum(lane.sink.sink.num_bytes // lane.sink.num_holders for lane in lanes)
        return sum(lane.cache.num_bytes for lane in lanes) + sinks

    def export_state(self, session: str) -> SessionState:
        """Everything of each step under the step's own name, wherever the plan is cut.

        The sink is not in it: it is made again from the portrait, or from the reference that took
        the portrait's place.
        """
        held = self._sessions[session]
        parts: dict[str, SessionState | dict[str, torch.Tensor]] = {}
        for lane in held.lanes:
            name, reference = f"step{lane.index}", lane.sink.conditions.reference_BCTHW
            replaced = reference is not held.inputs.reference_BCTHW
            parts[name] = SessionState(numbers={"index": lane.index})
            parts[f"{name}/ring"] = lane.cache.export_state()
            parts[f"{name}/heard"] = lane.history.export_state()
            parts[f"{name}/sink"] = {"reference_BCTHW": reference} if replaced else {}
        return SessionState.of(parts)

    def import_state(self, session: str, state: SessionState) -> None:
        """Fill the lanes from an export of any stages that had these steps.

        Raises:
            ValueError: one of this stage's steps is not in it.
        """
        held, device = self._sessions[session], self._denoiser.network.patch_embedding.weight.device
        held.heard.clear()
        for lane in held.lanes:
            part = state.part(f"step{lane.index}")
            if part.numbers.get("index") != lane.index:
                raise ValueError(
                    f"the state holds nothing of step {lane.index}: use one of the same plan"
                )
            lane.history.import_state(_on(device, part.part("heard").tensors))
            lane.cache.import_state(_on(device, part.part("ring").tensors))
            replaced = part.part("sink").tensors.get("reference_BCTHW")
            original = held.inputs.reference_BCTHW
            self._show(lane, original if replaced is None else replaced)

    def close(self) -> None:
        """Forget all sessions."""
        for session in list(self._sessions):
            self.reset(session)

    def _open_cache(self) -> KVCache:
        """An empty lane; its buffers are made at the first chunk."""
        return KVCache(window_frames=self._window_frames, frames_per_chunk=self._frames_per_chunk)


class DecodeStage:
    """Turns clean latents into pictures; owns each session's decoder state."""

    def __init__(self, codec: VideoCodec) -> None:
        """Decode with `codec`, on the device it is on."""
        self._codec = codec
        self._weights = torch.zeros(())
        if isinstance(codec, nn.Module):
            self._weights = next(codec.parameters())
        self._states: dict[str, DecoderState] = {}
        self._fps: dict[str, Fraction] = {}

    @torch.inference_mode()
    def prepare(self, inputs: SessionInputs) -> None:
        """Prime a decoder that shows the portrait."""
        state = self._codec.start(inputs.image_BCHW.to(self._weights))
        if inputs.still_border:
            hold_border(state)
        self._states[inputs.session] = state
        self._fps[inputs.session] = inputs.fps

    @torch.inference_mode()
    def process(self, work: ChunkWork) -> VideoChunk:
        """The chunk's pictures, as many per latent frame as the codec makes.

        Raises:
            ModelError: the model computed NaN or infinity, which would show as plain black.
        """
        state, latent = self._states[work.session], work.latent
        latents_CTHW = latent.latents_CTHW.to(self._weights.device)
        frames_BCTHW = self._codec.decode(latents_CTHW[None], state)
        if not bool(torch.isfinite(frames_BCTHW).all()):
            raise ModelError(
                f"the model's pictures are no finite numbers in chunk {latent.index}: its weights "
                "or its config are damaged, use others"
            )
        return VideoChunk(
            frames_THWC=_to_pictures(frames_BCTHW[0]).numpy(),
            pts=latent.start_frame * self._codec.frames_per_latent,
            time_base=1 / self._fps[work.session],
        )

    def reset(self, session: str) -> None:
        """Forget a session."""
        self._states.pop(session, None)
        self._fps.pop(session, None)

    def memory_bytes(self, session: str) -> int:
        """Bytes of all that the session's decoder remembers, the portrait as read included."""
        return tensor_bytes(self._states.get(session))

    def export_state(self, session: str) -> SessionState:
        """What the session's decoder remembers."""
        return SessionState.of({"decoder": self._states[session].export_state()})

    def import_state(self, session: str, state: SessionState) -> None:
        """Go on from an export."""
        tensors = _on(self._weights.device, state.part("decoder").tensors)
        self._states[session].import_state(tensors)

    def close(self) -> None:
        """Forget all sessions."""
        for session in list(self._states):
            self.reset(session)


def _on(device: torch.device, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors on a device."""
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def _to_pictures(frames_CTHW: torch.Tensor) -> torch.Tensor:
    """Frames in [-1, 1] as uint8 THWC on the CPU, rounded to nearest."""
    scaled = frames_CTHW.float().clamp(-1.0, 1.0).add(1.0).mul(127.5).round()
    return scaled.to(torch.uint8).permute(1, 2, 3, 0).contiguous().cpu()
