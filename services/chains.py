"""Where a session's stages run: in this process, or as Ray actors."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from pipeline.adapters import find_adapters
from pipeline.catalog import configs_folder
from pipeline.chain import Chain
from pipeline.chain_work import ChainWork
from pipeline.device import Cluster, standard_device
from pipeline.errors import ChainError
from pipeline.model import Model, ModelConfig
from pipeline.model_work import chain_work
from pipeline.placement import Placement
from pipeline.placement_refusal import require_stages
from pipeline.plan import Plan
from pipeline.planner import PlacementRequest, place
from pipeline.recording import Recording
from pipeline.step_cost import modelled_costs
from pipeline.timed_stage import TimedChain
from services.options import ChainKind, ChainRequest


def require_chain(kind: ChainKind) -> None:
    """Refuse a chain for which a package is missing, before anything is loaded.

    Raises:
        ChainError: names the package and how to install it.
    """
    if kind == "ray":
        try:
            import pipeline.supervisor  # noqa: F401 - only whether it can be
        except ImportError as error:
            raise ChainError(
                f"--chain ray needs the package {error.name}, which is not installed: "
                "pip install 'viva-voce[ray]', or use --chain local"
            ) from error


@dataclass(frozen=True)
class ChainTask:
    """A plan to be run with a model at a size (width and height in pixels), as was asked.

    `model` is the name by which the model was asked for.
    """

    request: ChainRequest
    plan: Plan
    model: str
    folder: Path
    config: ModelConfig
    size: tuple[int, int]

    @cached_property
    def work(self) -> ChainWork:
        """What a chunk and a session take."""
        return chain_work(self.config, self.plan, folder=self.folder, size=self.size)

    def place_on(self, devices: Cluster) -> Placement:
        """Where everything runs on these devices.

        Raises:
            PlanError: it does not fit; one line with the arithmetic.
        """
        return place(
            PlacementRequest(
                plan=self.plan,
                work=self.work,
                costs=modelled_costs(self.work),
                cluster=devices,
                num_stages=self.request.stages,
                strategy=self.request.strategy,
            )
        )

    def plan_here(self) -> Plan:
        """The plan for this one process, cut as asked; devices that it names mean nothing here.

        Raises:
            PlanError: there are more stages than steps.
        """
        if self.request.stages is None:
            return self.plan
        require_stages(self.plan, self.request.stages)
        stages = tuple(replace(stage, device=None) for stage in self.plan.stages)
        here = replace(self, plan=replace(self.plan, stages=stages, decoder=None))
        room = standard_device("cpu", 0, memory_bytes=1 << 62)
        return here.place_on(Cluster(devices=(room,))).cut_plan()

    @property
    def shared_name(self) -> str:
        """The model by a name that other machines know: a shipped one's, or a whole path."""
        is_shipped = self.folder.parent == configs_folder() / "models"
        return self.model if is_shipped else str(self.folder.resolve())


@contextlib.contextmanager
def open_chain(
    task: ChainTask, load: Callable[..., Model], *, recording: Recording | None = None
) -> Iterator[tuple[Model, Chain]]:
    """The model, as far as this process needs it, and a chain of the plan's stages.

    `load` makes the model once the plan is known to fit. The chain is closed at the end; what it
    did is in `recording` then.

    Raises:
        ChainError, ModelError, PlanError: it cannot be set up.
    """
    require_chain(task.request.kind)
    find_adapters(task.folder, task.plan)
    if task.request.kind == "ray":
        with _open_ray(task, load, recording) as opened:
            yield opened
        return
    plan = task.plan_here()
    model = load()
    chain = model.local_chain(plan)
    timed = None if recording is None else TimedChain(chain, _names(plan))
    try:
        yield model, chain
    finally:
        chain.close()
        if timed is not None and recording is not None:
            timed.record(recording)


@contextlib.contextmanager
def _open_ray(
    task: ChainTask, load: Callable[..., Model], recording: Recording | None
) -> Iterator[tuple[Model, Chain]]:
    """The same with Ray actors; this process hears and shows, but denoises nothing."""
    from pipeline.chain_watch import watchable
    from pipeline.cluster_address import find_address
    from pipeline.placed_chain import ChainOrder, open_placed_chain
    from pipeline.staged_chain import ChainSettings

    if task.request.stages is not None:
        require_stages(task.plan, task.request.stages)
    order = ChainOrder(
        model=task.shared_name,
        place=task.place_on,
        settings=ChainSettings(pictures_per_chunk=task.work.pictures),
        devices=task.request.devices,
        strategy=task.request.strategy,
        address=find_address(task.request.address),
        num_spares=task.request.spares,
    )
    listeners = () if recording is None else (recording.add,)
    label = f"model {task.config.name}, plan {task.plan.name}"
    with (
        open_placed_chain(order) as staged,
        watchable(staged, label=label, pid=os.getpid(), listeners=listeners),
    ):
        yield load(denoises=False), staged


def _names(plan: Plan) -> Iterator[str]:
    """What the stages are called in figures, the decoder last."""
    yield from (stage.name for stage in plan.stages)
    yield "decode"
