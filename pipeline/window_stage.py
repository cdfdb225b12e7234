"""The stations of a render with windows: a run of steps, each with a small buffer of strides.

Every message that enters a step leaves it as one message. It brings the stride that comes next and
takes along the one that the step is done with, or nothing yet: so messages are counted as chunks
are, and stages are joined, watched and healed as ever.

Shape legend: B = batch (1), L = audio layers, C = channels, T = frames, H, W = rows and columns.
"""

from dataclasses import dataclass, replace

import torch

from pipeline.denoise_stage import resized_latents
from pipeline.errors import PlanError
from pipeline.plan import Plan, Step
from pipeline.route import Leg
from pipeline.sampler import Denoiser, Lane, StepWork, denoise
from pipeline.session_state import SessionState
from pipeline.sink_store import Conditions, SinkStore
from pipeline.stage import ChunkWork, SessionInputs, on_device, void_chunk
from pipeline.window_line import WindowLine, on
from pipeline.window_rules import require_windows
from pipeline.window_view import WindowView
from video.audio_tokens import AudioHistory
from video.hinge import resized
from video.kv_cache import KVCache


@dataclass(slots=True, kw_only=True)
class WindowSession:
    """What the stage holds of a session; `evaluations` counts runs of the network."""

    inputs: SessionInputs
    lines: list[WindowLine]
    evaluations: int = 0


class WindowStage:
    """Runs a contiguous run of steps over windows of strides.

    With exact blending a step holds back the strides that a window reaches into, and frames leave
    it once no later window can touch them. With causal blending step 0 joins strides to windows,
    which the steps hand on whole, and the last one gives strides again. Shifted windows hold back
    one stride where their borders cut it. A message after the sound's end is void, and takes along
    what is held.
    """

    def __init__(
        self, denoiser: Denoiser, plan: Plan, index: int, *, sinks: SinkStore | None = None
    ) -> None:
        """Own the steps of stage `index` of a plan with windows.

        Raises:
            PlanError: its windows do not suit the network, or a plug-in does not suit windows.
        """
        self._windows = require_windows(denoiser, plan)
        self._denoiser, self._plan = denoiser, plan
        self._steps = plan.stages[index].steps
        self._first_step = plan.first_step(index)
        self._legs = plan.legs(0)
        self._sinks = SinkStore(denoiser.network, denoiser.adapters) if sinks is None else sinks
        self._sessions: dict[str, WindowSession] = {}

    def prepare(self, inputs: SessionInputs) -> None:
        """Open empty buffers for a session.

        Raises:
            PlanError: somebody watches as it is made.
        """
        if inputs.live:
            raise PlanError(
                f"plan {self._plan.name}: windows hold pictures back until the next windows are "
                "there: use a plan without windows for live sessions"
            )
        self.reset(inputs.session)
        lines = [
            WindowLine(
                lane=Lane(
                    index=self._first_step + offset,
                    cache=KVCache(window_frames=1, frames_per_chunk=1),  # windows have no past
                    sink=self._sinks.hold(_conditions(self._plan, inputs, step)),
                    history=AudioHistory(),
                )
            )
            for offset, step in enumerate(self._steps)
        ]
        self._sessions[inputs.session] = WindowSession(inputs=inputs, lines=lines)

    @torch.inference_mode()
    def process(self, work: ChunkWork) -> ChunkWork:
        """The message after this stage's steps; steps that it has behind it are left out.

        Raises:
            ValueError: it comes before this stage's steps.
        """
        if work.latent.step < self._first_step:
            raise ValueError(
                f"chunk {work.latent.index} comes before step {work.latent.step}, this stage has "
                f"steps from {self._first_step}: run the steps in order"
            )
        session = self._sessions[work.session]
        work = on(self._denoiser.network.patch_embedding.weight.device, work)
        while (offset := work.latent.step - self._first_step) < len(self._steps):
            leg = self._legs[work.latent.step]
            taken = self._taken(session, session.lines[offset], leg, work)
            latent = replace(
                taken.latent,
                index=work.latent.index,
                sigma=leg.to_sigma,
                step=leg.next_index,
            )
            work = replace(taken, latent=latent)
        return work

    def _taken(
        self, session: WindowSession, line: WindowLine, leg: Leg, work: ChunkWork
    ) -> ChunkWork:
        """What a step gives for what came in."""
        if self._windows.blend == "causal":
            return self._causal(session, line, leg, work)
        if self._windows.blend == "shifted":
            return self._shifted(session, line, leg, work)
        return self._exact(session, line, leg, work)

    def _exact(
        self, session: WindowSession, line: WindowLine, leg: Leg, work: ChunkWork
    ) -> ChunkWork:
        """Run the window that the stride completes, and let its first stride go."""
        if work.is_void:
            return self._let_go(line) if line.held else work
        line.held.append(work)
        if len(line.held) <= self._windows.held_back:
            return void_chunk(work.session, work.latent.index)
        start = line.start
        self._write(session, line, leg, (start, start + self._windows.length))
        return self._let_go(line)

    def _shifted(
        self, session: WindowSession, line: WindowLine, leg: Leg, work: ChunkWork
    ) -> ChunkWork:
        """Run what lies between this step's borders, as far as it is there."""
        offset = self._windows.offset(leg.index)
        if work.is_void and not line.held:
            return work
        if work.is_void:
            self._write(session, line, leg, (line.start + offset, line.end))
            return self._let_go(line)
        line.held.append(work)
        start, stride = line.start, self._plan.frames_per_chunk
        if len(line.held) == 1 and offset:
            if start == 0:
                self._write(session, line, leg, (0, offset))
            return void_chunk(work.session, work.latent.index)
        self._write(session, line, leg, (start + offset, start + offset + stride))
        return self._let_go(line)

    def _causal(
        self, session: WindowSession, line: WindowLine, leg: Leg, work: ChunkWork
    ) -> ChunkWork:
        """Run the window, blended into the one before; the last step gives its first stride."""
        windows, stride = self._windows, self._plan.frames_per_chunk
        if work.is_void:
            return self._rest(line, leg, work)
        line.held.append(work)
        joins = leg.index == 0
        if joins and len(line.held) <= windows.held_back:
            return void_chunk(work.session, work.latent.index)
        start = line.start
        window = self._write(session, line, leg, (start, start + windows.length))
        line.drop_oldest(stride)
        if leg.is_last:
            return _stride_of(window, line.released(start, stride))
        line.buffer.release(start + stride)
        return window

    def _rest(self, line: WindowLine, leg: Leg, void: ChunkWork) -> ChunkWork:
        """After the last window: its frames that were not given yet, which the last step has."""
        line.held.clear()
        written = line.buffer.frames_CTHW
        if not leg.is_last or written is None or not written.shape[1]:
            return void
        start, stride = line.buffer.start, self._plan.frames_per_chunk
        return _stride_of(
            replace(void, latent=replace(void.latent, start_frame=start)),
            line.released(start, stride),
        )

    def _write(
        self, session: WindowSession, line: WindowLine, leg: Leg, bounds: tuple[int, int]
    ) -> ChunkWork:
        """Run one window and write it; returns it as written, with what plug-ins remember."""
        start, end = bounds
        window = line.window(start, end)
        if window.reference_BCTHW is not None:
            self._show(line.lane, resized_latents(window.reference_BCTHW, leg.step.resolution))
        step = self._step_work(session, line, leg, window)
        (made,) = denoise(self._denoiser, [step])
        session.evaluations += made.evaluations
        blends = leg.index > 0 or self._windows.blend_first
        written_CTHW = line.buffer.write(start, made.chunk.latents_CTHW, blends=blends)
        line.held[0] = replace(line.held[0], carried=step.memory)
        return replace(
            window,
            latent=replace(made.chunk, latents_CTHW=written_CTHW),
            carried=step.memory,
        )

    def _step_work(
        self, session: WindowSession, line: WindowLine, leg: Leg, window: ChunkWork
    ) -> StepWork:
        """The window as the sampler takes it."""
        start, stride = window.latent.start_frame, self._plan.frames_per_chunk
        return StepWork(
            session=window.session,
            chunk=replace(window.latent, index=start // stride),
            legs=self._legs,
            leg=leg,
            lane=line.lane,
            audio_LCT=window.audio_LCT,
            heard=None,
            cond_CTHW=resized(window.cond_CTHW, leg.step.resolution),
            seed=session.inputs.seed,
            memory=dict(window.carried),
            window=WindowView(
                stride=stride,
                audio_LCT=window.audio_LCT,
                before_LCT=line.heard_before(start),
                conditions=line.lane.sink.conditions,
                bidirectional=self._windows.bidirectional,
            ),
        )

    def _let_go(self, line: WindowLine) -> ChunkWork:
        """The oldest stride, as written."""
        stride, start = self._plan.frames_per_chunk, line.start
        return _stride_of(line.drop_oldest(stride), line.released(start, stride))

    def _show(self, lane: Lane, reference_BCTHW: torch.Tensor) -> None:
        """Look at another reference from this window on."""
        before = lane.sink
        wanted = replace(before.conditions, reference_BCTHW=reference_BCTHW)
        if not before.conditions.same(wanted):
            lane.sink = self._sinks.hold(wanted)
            self._sinks.release(before)

    def num_evaluations(self, session: str) -> int:
        """How often the network ran for a session so far."""
        held = self._sessions.get(session)
        return 0 if held is None else held.evaluations

    def reset(self, session: str) -> None:
        """Forget a session; other stages keep what they share with this one."""
        held = self._sessions.pop(session, None)
        for line in () if held is None else held.lines:
            self._sinks.release(line.lane.sink)

    def memory_bytes(self, session: str) -> int:
        """Bytes of the session's buffers, and its share of the sinks that others hold as well."""
        held = self._sessions.get(session)
        lines = [] if held is None else held.lines
        sinks = [line.lane.sink for line in lines]
        shares = sum(held_sink.sink.num_bytes // held_sink.num_holders for held_sink in sinks)
        return sum(line.num_bytes for line in lines) + shares

    def export_state(self, session: str) -> SessionState:
        """Everything of each step under the step's own name, wherever the plan is cut."""
        held = self._sessions[session]
        parts: dict[str, SessionState | dict[str, torch.Tensor]] = {}
        for line, step in zip(held.lines, self._steps, strict=True):
            name, conditions = f"step{line.lane.index}", line.lane.sink.conditions
            replaced = not conditions.same(_conditions(self._plan, held.inputs, step))
            parts[name] = SessionState(numbers={"index": line.lane.index})
            parts |= {f"{name}/{part}": state for part, state in line.export_state().items()}
            parts[f"{name}/sink"] = (
                {"reference_BCTHW": conditions.reference_BCTHW} if replaced else {}
            )
            parts[f"{name}/plugins"] = dict(line.lane.memory)
        return SessionState.of(parts)

    def import_state(self, session: str, state: SessionState) -> None:
        """Fill the buffers from an export of any stages that had these steps.

        Raises:
            ValueError: one of this stage's steps is not in it.
        """
        held, device = self._sessions[session], self._denoiser.network.patch_embedding.weight.device
        for line, step in zip(held.lines, self._steps, strict=True):
            part = state.part(f"step{line.lane.index}")
            if part.numbers.get("index") != line.lane.index:
                raise ValueError(
                    f"the state holds nothing of step {line.lane.index}: use one of the same plan"
                )
            line.import_state(session, part, device)
            line.lane.memory = on_device(device, part.part("plugins").tensors)
            replaced = part.part("sink").tensors.get("reference_BCTHW")
            original = _conditions(self._plan, held.inputs, step).reference_BCTHW
            self._show(line.lane, original if replaced is None else replaced)

    def close(self) -> None:
        """Forget all sessions."""
        for session in list(self._sessions):
            self.reset(session)


def _stride_of(work: ChunkWork, latents_CTHW: torch.Tensor) -> ChunkWork:
    """A message that carries these latents."""
    return replace(work, latent=replace(work.latent, latents_CTHW=latents_CTHW))


def _conditions(plan: Plan, inputs: SessionInputs, step: Step) -> Conditions:
    """What a step's windows look at: the session's portrait, at the step's resolution."""
    motion_BCTHW = inputs.motion_BCTHW
    if motion_BCTHW is not None:
        motion_BCTHW = resized_latents(motion_BCTHW, step.resolution)
    return Conditions(
        reference_BCTHW=resized_latents(inputs.reference_BCTHW, step.resolution),
        motion_BCTHW=motion_BCTHW,
        context_BSD=inputs.context_BSD,
        scaling=plan.rope_scaling(step.resolution),
        adapter=step.adapter,
    )
