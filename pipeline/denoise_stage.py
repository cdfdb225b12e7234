"""The stations of the chain that denoise: a run of a plan's steps, with a lane for each session.

Shape legend: B = batch (1), C = channels, T = frames, H, W = rows and columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from pipeline.guidance import is_guided
from pipeline.lane_wave import run_wave
from pipeline.plan import Plan, Step
from pipeline.route import Leg
from pipeline.sampler import Denoiser, Lane, StepMade, StepWork, denoise
from pipeline.session_state import SessionState
from pipeline.sink_store import Conditions, SinkStore
from pipeline.stage import ChunkWork, SessionInputs, on_device
from pipeline.step_cost import BatchProfile
from video.audio_tokens import AudioHistory, Heard
from video.hinge import resized
from video.kv_cache import KVCache


@dataclass(slots=True, kw_only=True)
class _Session:
    """What a denoising stage holds of a session.

    `heard` is the speech of chunks under way, by their first frame and the adapter that hears it:
    encoded once for all steps of one adapter.
    `evaluations` counts how often the network ran for it.
    """

    inputs: SessionInputs
    lanes: list[Lane]
    evaluations: int = 0
    heard: dict[tuple[int, str | None], tuple[Heard, ...]] = field(default_factory=dict)


class DenoiseStage:
    """Runs a contiguous run of steps; one lane per (session, step), one sink per portrait.

    `process` takes one chunk through all steps. `advance` takes several chunks, of one session at
    different steps or of several sessions, one step further in one pass of the network; what they
    become is the same but for rounding (1e-5 of a latent in float32).
    """

    def __init__(
        self,
        denoiser: Denoiser,
        plan: Plan,
        index: int,
        *,
        sinks: SinkStore | None = None,
        batch: BatchProfile | None = None,
    ) -> None:
        """Own the steps of stage `index` of a plan.

        Stages with the same network may share `sinks`. `batch` says how many chunks
        `process_many` takes through the network at once, and what that takes; None: one by one.
        """
        self._denoiser, self._plan = denoiser, plan
        self._steps = plan.stages[index].steps
        self._first_step = plan.first_step(index)
        self._sinks = SinkStore(denoiser.network, denoiser.adapters) if sinks is None else sinks
        self._sessions: dict[str, _Session] = {}
        self.batch = BatchProfile() if batch is None else batch

    @property
    def first_step(self) -> int:
        """Index, among all steps of the plan, of the first that it owns."""
        return self._first_step

    @property
    def num_steps(self) -> int:
        """How many steps it owns."""
        return len(self._steps)

    def prepare(self, inputs: SessionInputs) -> None:
        """Fill the session's sink and open its empty lanes."""
        self.reset(inputs.session)
        lanes = [
            Lane(
                index=self._first_step + offset,
                cache=self._open_cache(),
                sink=self._sinks.hold(self._conditions(inputs, step)),
                history=AudioHistory(),
                silent=self._open_cache() if is_guided(step) else None,
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
        return work.latent.step >= self._first_step + len(self._steps)

    @torch.inference_mode()
    def advance(self, works: Sequence[ChunkWork]) -> list[ChunkWork]:
        """Each chunk one step further, in one pass; those that are through stay as they are.

        Doing the same once more gives the same, as long as nothing of these lanes came after.

        Raises:
            ValueError: two chunks are at one step of one session, or one is at no step of this
                stage.
        """
        ahead = [work for work in works if not self.is_through(work)]
        if len({(work.session, work.latent.step) for work in ahead}) < len(ahead):
            raise ValueError("two chunks of one session at one step: advance them in turn")
        steps = [self._at_step(work) for work in ahead]
        made = iter(zip(steps, denoise(self._denoiser, steps), strict=True))
        return [work if self.is_through(work) else self._after(work, *next(made)) for work in works]

    def _after(self, work: ChunkWork, step: StepWork, made: StepMade) -> ChunkWork:
        """The chunk as it leaves a step, with what plug-ins remember of it."""
        self._sessions[work.session].evaluations += made.evaluations
        num_bypassed = work.num_bypassed + int(made.is_degraded)
        return replace(work, latent=made.chunk, carried=step.memory, num_bypassed=num_bypassed)

    def _at_step(self, work: ChunkWork) -> StepWork:
        """The chunk in its lane, which from now on shows the reference that the chunk brings."""
        session, legs = self._sessions[work.session], self._plan.legs(work.latent.index)
        lane, leg = self._lane(session, work), self._leg(legs, work)
        if work.reference_BCTHW is not None:
            self._show(lane, resized_latents(work.reference_BCTHW, leg.step.resolution))
        return StepWork(
            session=work.session,
            chunk=work.latent,
            legs=legs,
            leg=leg,
            lane=lane,
            audio_LCT=work.audio_LCT,
            heard=self._hear(session, lane, leg, work),
            cond_CTHW=resized(work.cond_CTHW, leg.step.resolution),
            seed=session.inputs.seed,
            memory=dict(work.carried),
            slack_s=work.slack_s if session.inputs.live else None,
        )

    def _leg(self, legs: Sequence[Leg], work: ChunkWork) -> Leg:
        """Where the chunk is on its way."""
        for leg in legs:
            if leg.index == work.latent.step:
                return leg
        raise ValueError(
            f"chunk {work.latent.index} does not take step {work.latent.step}: run the steps of "
            f"its way, {[leg.index for leg in legs]}"
        )

    def _lane(self, session: _Session, work: ChunkWork) -> Lane:
        """The lane of the step that comes next for the chunk."""
        offset = work.latent.step - self._first_step
        if not 0 <= offset < len(session.lanes):
            raise ValueError(
                f"chunk {work.latent.index} comes before step {work.latent.step}, this stage has "
                f"steps from {self._first_step}: run the steps in order"
            )
        return session.lanes[offset]

    def _show(self, lane: Lane, reference_BCTHW: torch.Tensor) -> None:
        """Give a lane the sink of another reference."""
        before = lane.sink
        wanted = replace(before.conditions, reference_BCTHW=reference_BCTHW)
        if not before.conditions.same(wanted):
            lane.sink = self._sinks.hold(wanted)
            self._sinks.release(before)

    def _hear(
        self, session: _Session, lane: Lane, leg: Leg, work: ChunkWork
    ) -> tuple[Heard, ...] | None:
        """The chunk's speech as the layers use it, None for a network that hears nothing."""
        network, start_frame = self._denoiser.network, work.latent.start_frame
        if not network.config.audio_inject_layers:
            return None
        audio_BLCT = work.audio_LCT[None].to(network.patch_embedding.weight)
        key = (start_frame, leg.step.adapter)
        heard = session.heard.get(key)
        if heard is None:
            with self._denoiser.wearing(leg.step.adapter) as worn:
                heard = worn.network.encode_audio(
                    audio_BLCT, start_frame=start_frame, history=lane.history
                )
            session.heard[key] = heard
        elif network.config.audio_context == "carry":
            lane.history.advance(start_frame, audio_BLCT)
        if leg.next_index >= self._first_step + len(self._steps):
            session.heard = {k: h for k, h in session.heard.items() if k[0] != start_frame}
        return heard

    def num_evaluations(self, session: str) -> int:
        """How often the network ran for a session so far."""
        held = self._sessions.get(session)
        return 0 if held is None else held.evaluations

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
        rings = [ring for lane in lanes for ring in (lane.cache, lane.silent) if ring is not None]
        return sum(ring.num_bytes for ring in rings) + sinks

    def export_state(self, session: str) -> SessionState:
        """Everything of each step under the step's own name, wherever the plan is cut.

        The sink is not in it: it is made again from the portrait, or from the reference that took
        the portrait's place.
        """
        held = self._sessions[session]
        parts: dict[str, SessionState | dict[str, torch.Tensor]] = {}
        for lane in held.lanes:
            name, reference = f"step{lane.index}", lane.sink.conditions.reference_BCTHW
            replaced = not lane.sink.conditions.same(
                self._conditions(held.inputs, self._step(lane))
            )
            parts[name] = SessionState(numbers={"index": lane.index})
            parts[f"{name}/ring"] = lane.cache.export_state()
            if lane.silent is not None:
                parts[f"{name}/silent"] = lane.silent.export_state()
            parts[f"{name}/heard"] = lane.history.export_state()
            parts[f"{name}/sink"] = {"reference_BCTHW": reference} if replaced else {}
            parts[f"{name}/plugins"] = dict(lane.memory)
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
            lane.history.import_state(on_device(device, part.part("heard").tensors))
            lane.cache.import_state(on_device(device, part.part("ring").tensors))
            if lane.silent is not None:
                lane.silent.import_state(on_device(device, part.part("silent").tensors))
            lane.memory = on_device(device, part.part("plugins").tensors)
            replaced = part.part("sink").tensors.get("reference_BCTHW")
            original = self._conditions(held.inputs, self._step(lane)).reference_BCTHW
            self._show(lane, original if replaced is None else replaced)

    def close(self) -> None:
        """Forget all sessions."""
        for session in list(self._sessions):
            self.reset(session)

    def _step(self, lane: Lane) -> Step:
        """The step whose lane it is."""
        return self._steps[lane.index - self._first_step]

    def _conditions(self, inputs: SessionInputs, step: Step) -> Conditions:
        """What a step's sink is made of: the session's, at the step's resolution."""
        reference, motion = inputs.reference_BCTHW, inputs.motion_BCTHW
        return Conditions(
            reference_BCTHW=resized_latents(reference, step.resolution),
            motion_BCTHW=None if motion is None else resized_latents(motion, step.resolution),
            context_BSD=inputs.context_BSD,
            scaling=self._plan.rope_scaling(step.resolution),
            adapter=step.adapter,
        )

    def _open_cache(self) -> KVCache:
        """An empty lane; its buffers are made at the first chunk."""
        plan = self._plan
        return KVCache(window_frames=plan.window_frames, frames_per_chunk=plan.frames_per_chunk)


def resized_latents(latents_BCTHW: torch.Tensor, resolution: float) -> torch.Tensor:
    """Clean latents at a step's resolution; the same tensor where that is 1."""
    if resolution == 1.0:
        return latents_BCTHW
    return torch.stack([resized(latents_CTHW, resolution) for latents_CTHW in latents_BCTHW])
