"""The stages of a plan joined end to end: latents and conditions in, pictures out."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, TypeGuard, TypeVar

import torch

from pipeline.adapters import require_adapters
from pipeline.chain_export import Progress, pack_progress, unpack_progress
from pipeline.cuts import join_neighbours
from pipeline.decode_stage import DecodeStage
from pipeline.denoise_stage import DenoiseStage
from pipeline.denoising import Denoising, denoising_stage
from pipeline.errors import PlanError
from pipeline.plan import Plan
from pipeline.sampler import Denoiser
from pipeline.session_state import SessionState
from pipeline.sink_store import SinkStore
from pipeline.stage import ChunkWork, SessionInputs, Stage
from pipeline.window_stage import WindowStage
from video.chunk import VideoChunk
from video.codec import VideoCodec

OutT = TypeVar("OutT")
Schedule = Literal["sequential", "pipelined", "lanes"]


class Chain(Protocol):
    """What a generator talks to, wherever the stages run."""

    def prepare(self, inputs: SessionInputs) -> None:
        """Make room for a session in every stage."""
        ...

    def submit(self, work: ChunkWork) -> list[VideoChunk]:
        """Take the session's next chunk; return what came out at the end, in order."""
        ...

    def collect(self, session: str) -> list[VideoChunk]:
        """Return what came out since, in order, without waiting."""
        ...

    def drain(self, session: str) -> list[VideoChunk]:
        """Finish the session's chunks that are under way."""
        ...

    def reset(self, session: str) -> None:
        """Forget a session and what it has under way."""
        ...

    def export_state(self, session: str) -> SessionState:
        """Everything needed to go on with a session elsewhere, chunks under way included.

        It holds each step's part under the step's name, so any chain of the same plan can go on
        from it, wherever that one is cut.
        """
        ...

    def import_state(self, session: str, state: SessionState) -> None:
        """Go on from what `export_state` of any chain gave; the session must be prepared.

        Raises:
            ValueError: the state is of another plan, or of no chain.
        """
        ...

    def close(self) -> None:
        """Forget all sessions."""
        ...


class StageWrapper(Protocol):
    """What gives each stage, numbered from 0, one that stands in for it."""

    def __call__(self, index: int, stage: Stage[OutT]) -> Stage[OutT]:
        """The stage to use in place of `stage`."""
        ...


@dataclass(slots=True, kw_only=True)
class _Session:
    """A session's chunks under way: `slots[k]` holds what came out of station k.

    `ready` are pictures to be given with the next ones.
    """

    slots: list[ChunkWork | None]
    submitted: int = -1
    ready: list[VideoChunk] = field(default_factory=list)


class LocalChain:
    """All stages in this process.

    `sequential` takes each chunk through all stages at once. `pipelined` moves every chunk one
    stage per submit, as separate devices would (timestep forcing): stage k works on chunk n - k.
    `lanes` moves every chunk one step per submit, all of a device in one pass of the network:
    chunk n is at step 0, chunk n - 1 at step 1 and so on (stream batch). All give the same
    numbers, because a step sees its own lane alone; lanes but for rounding.
    """

    def __init__(
        self,
        denoise_stages: Sequence[Stage[ChunkWork]],
        decode_stage: Stage[VideoChunk],
        *,
        schedule: Schedule = "sequential",
    ) -> None:
        """Join the stages in the order given; lanes need stages that can `advance`."""
        self._denoise_stages = tuple(denoise_stages)
        self._decode_stage = decode_stage
        self._schedule = schedule
        self._sessions: dict[str, _Session] = {}

    def _has_lanes(self, stage: Stage[ChunkWork]) -> TypeGuard[DenoiseStage]:
        """Whether each step of a stage is a station of its own."""
        return self._schedule == "lanes" and isinstance(stage, DenoiseStage)

    def _num_stations(self, stage: Stage[ChunkWork]) -> int:
        """Chunks of a session that a stage may hold at once."""
        return stage.num_steps if self._has_lanes(stage) else 1

    def _empty(self) -> list[ChunkWork | None]:
        """Slots with nothing under way."""
        return [None for stage in self._denoise_stages for _ in range(self._num_stations(stage))]

    @classmethod
    def from_plan(
        cls, plan: Plan, denoiser: Denoiser, codec: VideoCodec, *, schedule: Schedule = "sequential"
    ) -> "LocalChain":
        """A chain of the plan's stages around one network and one codec.

        Lanes join neighbouring stages that are on one device.

        Raises:
            PlanError: the plan asks for what this chain cannot do.
        """
        _require_runnable(plan)
        require_adapters(plan, denoiser.adapters)
        if schedule == "lanes":
            plan = join_neighbours(plan)
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
        self._sessions[inputs.session] = _Session(slots=self._empty())

    def submit(self, work: ChunkWork) -> list[VideoChunk]:
        """Take the session's next chunk; return the pictures that are done."""
        session = self._sessions[work.session]
        done = self._taken(session) + self._enter(session, work)
        session.submitted = work.latent.index
        return done

    def collect(self, session: str) -> list[VideoChunk]:
        """Return the pictures that are done; chunks move on with the next ones alone."""
        return self._taken(self._sessions[session])

    def drain(self, session: str) -> list[VideoChunk]:
        """Finish the session's chunks that are under way."""
        held = self._sessions[session]
        done = self._taken(held)
        while any(held.slots):
            done += self._tick(held, None)
        return done

    def _enter(self, session: _Session, work: ChunkWork) -> list[VideoChunk]:
        if self._schedule != "sequential":
            return self._tick(session, work)
        for stage in self._denoise_stages:
            work = stage.process(work)
        return [self._decode_stage.process(work)]

    def _taken(self, session: _Session) -> list[VideoChunk]:
        ready, session.ready = session.ready, []
        return ready

    def _tick(self, session: _Session, incoming: ChunkWork | None) -> list[VideoChunk]:
        """Move every chunk on by one station."""
        last = session.slots[-1]
        done = [] if last is None else [self._decode_stage.process(last)]
        entering = [incoming, *session.slots[:-1]]
        first = 0
        for stage in self._denoise_stages:
            end = first + self._num_stations(stage)
            session.slots[first:end] = self._worked(stage, entering[first:end])
            first = end
        return done

    def _worked(
        self, stage: Stage[ChunkWork], works: Sequence[ChunkWork | None]
    ) -> list[ChunkWork | None]:
        """What a stage makes of the chunks that enter its stations; None where there is none."""
        if not self._has_lanes(stage):
            return [None if work is None else stage.process(work) for work in works]
        # A chunk that leaves steps out waits at their stations: it must not overtake.
        stations = dict(enumerate(works, stage.first_step))
        going = {k: work for k, work in stations.items() if work and work.latent.step == k}
        made = stage.advance(list(going.values())) if going else []
        return list((stations | dict(zip(going, made, strict=True))).values())

    def reset(self, session: str) -> None:
        """Forget a session and what it has under way."""
        for stage in (*self._denoise_stages, self._decode_stage):
            stage.reset(session)
        self._sessions.pop(session, None)

    def memory_bytes(self, session: str) -> int:
        """Bytes that the session takes in all stages; a sink that others use counts in parts."""
        stages = (*self._denoise_stages, self._decode_stage)
        return sum(stage.memory_bytes(session) for stage in stages)

    def num_evaluations(self, session: str) -> int:
        """How often the network ran for a session so far."""
        stages = [s for s in self._denoise_stages if isinstance(s, DenoiseStage | WindowStage)]
        return sum(stage.num_evaluations(session) for stage in stages)

    def export_state(self, session: str) -> SessionState:
        """The state of every stage, the chunks between them, and pictures not taken yet."""
        held = self._sessions[session]
        stages = (*self._denoise_stages, self._decode_stage)
        progress = Progress(
            submitted=held.submitted,
            works=tuple(work for work in reversed(held.slots) if work is not None),
            ready=tuple(held.ready),
        )
        own = SessionState.of(pack_progress(progress))
        return SessionState.joined([own, *(stage.export_state(session) for stage in stages)])

    def import_state(self, session: str, state: SessionState) -> None:
        """Go on from an export of any chain with the same plan.

        Chunks under way enter again at the front and pass the steps that they have behind them;
        pictures that this completes are given with the next ones.
        """
        progress = unpack_progress(session, state)
        for stage in (*self._denoise_stages, self._decode_stage):
            stage.import_state(session, state)
        held = _Session(slots=self._empty(), submitted=progress.submitted)
        held.ready += progress.ready
        self._sessions[session] = held
        for work in progress.works:
            held.ready += self._enter(held, work)

    def close(self) -> None:
        """Forget all sessions."""
        for stage in (*self._denoise_stages, self._decode_stage):
            stage.close()
        self._sessions.clear()


def _require_runnable(plan: Plan) -> None:
    """Refuse a decoder elsewhere."""
    if plan.decoder is not None:
        raise PlanError(
            f"plan {plan.name}: decoder {plan.decoder!r} names a device, but the in-process chain "
            "decodes where the model is: leave decoder out"
        )


def _denoise_stages(plan: Plan, denoiser: Denoiser) -> list[Denoising]:
    """The plan's stages; those on one device share the network and the sinks."""
    own_device = str(next(denoiser.network.parameters()).device)
    placed = {own_device: (denoiser, SinkStore(denoiser.network, denoiser.adapters))}
    stages: list[Denoising] = []
    for index, spec in enumerate(plan.stages):
        device = own_device if spec.device is None else _usable_device(plan, spec.device)
        if device not in placed:
            network = copy.deepcopy(denoiser.network).to(device)
            adapters = None if denoiser.adapters is None else denoiser.adapters.on(network)
            moved = replace(denoiser, network=network, adapters=adapters)
            placed[device] = (moved, SinkStore(network, adapters))
        stage_denoiser, sinks = placed[device]
        stages.append(denoising_stage(stage_denoiser, plan, index, sinks=sinks))
    return stages


def _usable_device(plan: Plan, name: str) -> str:
    """The device in torch's spelling.

    Raises:
        PlanError: there is no such device on this machine.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:
        # torch raises AssertionError where it was built without that kind of device.
        reason = str(error).splitlines()[0]
        raise PlanError(
            f"plan {plan.name}: device {name!r} cannot be used here ({reason}): "
            "name one that this machine has, or leave device out"
        ) from error
    return str(device)
