"""The stages of a plan joined end to end: latents and conditions in, pictures out."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, Protocol, TypeVar

import torch

from pipeline.errors import PlanError
from pipeline.plan import Plan, Step
from pipeline.sampler import Denoiser
from pipeline.session_state import SessionState
from pipeline.stage import ChunkWork, DecodeStage, DenoiseStage, SessionInputs, Stage
from video.chunk import LatentChunk, VideoChunk
from video.codec import VideoCodec
from video.kv_cache import Sink

OutT = TypeVar("OutT")
Schedule = Literal["sequential", "pipelined"]


class Chain(Protocol):
    """What a generator talks to, wherever the stages run."""

    def prepare(self, inputs: SessionInputs) -> None:
        """Make room for a session in every stage."""
        ...

    def submit(self, work: ChunkWork) -> list[VideoChunk]:
        """Take the session's next chunk; return what came out at the end, in order."""
        ...

    def drain(self, session: str) -> list[VideoChunk]:
        """Finish the session's chunks that are under way."""
        ...

    def reset(self, session: str) -> None:
        """Forget a session and what it has under way."""
        ...

    def export_state(self, session: str) -> SessionState:
        """Everything needed to go on with a session elsewhere, chunks under way included."""
        ...

    def import_state(self, session: str, state: SessionState) -> None:
        """Go on from what `export_state` gave; the session must be prepared."""
        ...

    def close(self) -> None:
        """Forget all sessions."""
        ...


class StageWrapper(Protocol):
    """What gives each stage, numbered from 0, one that stands in for it."""

    def __call__(self, index: int, stage: Stage[OutT]) -> Stage[OutT]:
        """The stage to use in place of `stage`."""
        ...


class LocalChain:
    """All stages in this process.

    `sequential` takes each chunk through all stages at once. `pipelined` moves every chunk one
    stage per submit, last stage first, as separate devices would (timestep forcing): stage k
    works on chunk n - k. Both give the same numbers, because a step sees its own lane alone.
    """

    def __init__(
        self,
        denoise_stages: Sequence[Stage[ChunkWork]],
        decode_stage: Stage[VideoChunk],
        *,
        schedule: Schedule = "sequential",
    ) -> None:
        """Join the stages in the order given."""
        self._denoise_stages = tuple(denoise_stages)
        self._decode_stage = decode_stage
        self._schedule = schedule
        self._under_way: dict[str, list[ChunkWork | None]] = {}

    @classmethod
    def from_plan(
        cls, plan: Plan, denoiser: Denoiser, codec: VideoCodec, *, schedule: Schedule = "sequential"
    ) -> "LocalChain":
        """A chain of the plan's stages around one network and one codec.

        Raises:
            PlanError: the plan asks for what this chain cannot do.
        """
        _require_runnable(plan)
        return cls(_denoise_stages(plan, denoiser), DecodeStage(codec), schedule=schedule)

    def wrap(self, around: StageWrapper) -> None:
        """Put something around every stage, before the first session is open."""
        stages = enumerate(self._denoise_stages)
        self._denoise_stages = tuple(around(index, stage) for index, stage in stages)
        self._decode_stage = around(len(self._denoise_stages), self._decode_stage)

    def prepare(self, inputs: SessionInputs) -> None:
        """Make room for a session in every stage."""
        for stage in (*self._denoise_stages, self._decode_stage):
            stage.prepare(inputs)
        self._under_way[inputs.session] = [None] * len(self._denoise_stages)

    def submit(self, work: ChunkWork) -> list[VideoChunk]:
        """Take the session's next chunk; return the pictures that are done."""
        if self._schedule == "pipelined":
            return self._tick(work.session, work)
        for stage in self._denoise_stages:
            work = stage.process(work)
        return [self._decode_stage.process(work)]

    def drain(self, session: str) -> list[VideoChunk]:
        """Finish the session's chunks that are under way."""
        done: list[VideoChunk] = []
        while any(self._under_way[session]):
            done += self._tick(session, None)
        return done

    def _tick(self, session: str, incoming: ChunkWork | None) -> list[VideoChunk]:
        """Move every chunk on by one station, the last station first.

        `slots[k]` holds the output of stage k.
        """
        slots = self._under_way[session]
        done = [] if slots[-1] is None else [self._decode_stage.process(slots[-1])]
        for index in reversed(range(len(slots))):
            waiting = slots[index - 1] if index else incoming
            slots[index] = None if waiting is None else self._denoise_stages[index].process(waiting)
        return done

    def reset(self, session: str) -> None:
        """Forget a session and what it has under way."""
        for stage in (*self._denoise_stages, self._decode_stage):
            stage.reset(session)
        self._under_way.pop(session, None)

    def export_state(self, session: str) -> SessionState:
        """The state of every stage and the chunks between them."""
        parts = {
            f"stage{index}": stage.export_state(session)
            for index, stage in enumerate((*self._denoise_stages, self._decode_stage))
        }
        for index, work in enumerate(self._under_way[session]):
            if work is not None:
                parts[f"work{index}"] = _pack(work)
        return SessionState.of(parts)

    def import_state(self, session: str, state: SessionState) -> None:
        """Go on from an export of a chain with the same plan."""
        for index, stage in enumerate((*self._denoise_stages, self._decode_stage)):
            stage.import_state(session, state.part(f"stage{index}"))
        self._under_way[session] = [
            _unpack(session, state.part(f"work{index}"))
            for index in range(len(self._denoise_stages))
        ]

    def close(self) -> None:
        """Forget all sessions."""
        for stage in (*self._denoise_stages, self._decode_stage):
            stage.close()
        self._under_way.clear()


def _require_runnable(plan: Plan) -> None:
    """Refuse steps that need more than one network at full resolution, and a decoder elsewhere."""
    if plan.decoder is not None:
        raise PlanError(
            f"plan {plan.name}: decoder {plan.decoder!r} names a device, but the in-process chain "
            "decodes where the model is: leave decoder out"
        )
    for index, step in enumerate(plan.steps):
        plain = Step(sigma_in=step.sigma_in, sigma_out=step.sigma_out, rule=step.rule)
        if step != plain:
            raise PlanError(
                f"plan {plan.name}: step {index} sets resolution, adapter, guidance or forecast, "
                "which the in-process chain does not run: leave them at their defaults"
            )


def _denoise_stages(plan: Plan, denoiser: Denoiser) -> list[DenoiseStage]:
    """The plan's stages; those on one device share the network and the sinks."""
    own_device = str(next(denoiser.network.parameters()).device)
    placed: dict[str, tuple[Denoiser, dict[str, Sink]]] = {own_device: (denoiser, {})}
    stages = []
    for index, spec in enumerate(plan.stages):
        device = own_device if spec.device is None else _usable_device(plan, spec.device)
        if device not in placed:
            network = copy.deepcopy(denoiser.network).to(device)
            placed[device] = (replace(denoiser, network=network), {})
        stage_denoiser, sinks = placed[device]
        stages.append(
            DenoiseStage(
                stage_denoiser,
                spec.steps,
                first_step=plan.first_step(index),
                window_frames=plan.window_frames,
                frames_per_chunk=plan.frames_per_chunk,
                sinks=sinks,
            )
        )
    return stages


def _usable_device(plan: Plan, name: str) -> str:
    """The device in torch's spelling.

    Raises:
        PlanError: there is no such device on this machine.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        # torch raises AssertionError where it was built without that kind of device.
        reason = str(error).splitlines()[0]
        raise PlanError(
            f"plan {plan.name}: device {name!r} cannot be used here ({reason}): "
            "name one that this machine has, or leave device out"
        ) from error
    return str(device)


def _pack(work: ChunkWork) -> SessionState:
    """A chunk between two stages as an exportable state."""
    tensors = {
        "latents_CTHW": work.latent.latents_CTHW,
        "audio_LCT": work.audio_LCT,
        "cond_CTHW": work.cond_CTHW,
        "sigma": torch.tensor(work.latent.sigma, dtype=torch.float64),
    }
    numbers = {"index": work.latent.index, "start_frame": work.latent.start_frame}
    return SessionState.of({"chunk": SessionState(tensors=tensors, numbers=numbers)})


def _unpack(session: str, state: SessionState) -> ChunkWork | None:
    """The chunk that `_pack` packed, or None where there was none."""
    chunk = state.part("chunk")
    if not chunk.numbers:
        return None
    return ChunkWork(
        session=session,
        latent=LatentChunk(
            latents_CTHW=chunk.tensors["latents_CTHW"],
            index=chunk.numbers["index"],
            start_frame=chunk.numbers["start_frame"],
            sigma=float(chunk.tensors["sigma"]),
        ),
        audio_LCT=chunk.tensors["audio_LCT"],
        cond_CTHW=chunk.tensors["cond_CTHW"],
    )
