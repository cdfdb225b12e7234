"""A model that is loaded, warmed up and ready to serve live sessions. This loads torch."""

import contextlib
import gc
import logging
from dataclasses import dataclass, field
from functools import partial

import torch
from viva.v1.messages import GatewayMessage, ModelReady

from pipeline.live_engine import LiveEngine
from pipeline.live_face import FaceMaker
from pipeline.live_warmup import warm_up
from pipeline.model import load_model, read_config
from pipeline.model_face import ModelFaces
from pipeline.plan_parse import load_plan
from services.chains import ChainTask, open_chain
from services.model_server import Tell
from services.options import ChainRequest

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """What to serve: a plan of "" is the model's own, 0 threads are torch's choice.

    `capacity` is how many sessions fit, None: as many as the warm-up finds.
    """

    model: str = "pocket"
    plan: str = ""
    threads: int = 0
    capacity: int | None = None
    chain: ChainRequest = field(default_factory=ChainRequest)


class ModelEngine:
    """A live engine with everything that has to be closed behind it."""

    def __init__(self, engine: LiveEngine, behind: contextlib.ExitStack) -> None:
        """Own both."""
        self._engine, self._behind = engine, behind

    @property
    def ready(self) -> ModelReady:
        """What it is."""
        return self._engine.ready

    def start(self) -> None:
        """Work from now on."""
        self._engine.start()

    def post(self, message: GatewayMessage) -> None:
        """Take a message about a session."""
        self._engine.post(message)

    def close(self) -> None:
        """End all sessions, then faces and chain."""
        with self._behind:
            self._engine.close()


def open_engine(options: EngineOptions, tell: Tell) -> ModelEngine:
    """Load the model, warm it up and measure it.

    Raises:
        ChainError, ModelError, PlanError, WeightsError: one line naming the input and the remedy.
        ColdModel: no pictures come out.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    with contextlib.ExitStack() as behind:
        engine = engine_of(open_faces(options, behind), tell, capacity=options.capacity)
        # What is there by now stays: no collection has to walk over it while pictures are due.
        gc.collect()
        gc.freeze()
        return ModelEngine(engine, behind.pop_all())


def engine_of(faces: FaceMaker, tell: Tell, *, capacity: int | None = None) -> LiveEngine:
    """An engine of any faces, warm."""
    warmth = warm_up(faces)
    engine = LiveEngine(faces, warmth, tell, max_sessions=capacity)
    log.info(
        "model %s, plan %s: a chunk takes %.0f ms, %d sessions fit, warm after %.1f s",
        faces.name, faces.plan_name, 1e3 * warmth.took_s, engine.ready.capacity, warmth.warm_s,
    )  # fmt: skip
    return engine


def open_faces(options: EngineOptions, behind: contextlib.ExitStack) -> ModelFaces:
    """Faces of a model in this process, or of one whose stages run elsewhere."""
    folder, config = read_config(options.model)
    plan = load_plan(options.plan or config.plan)
    if options.chain.kind == "local" and options.chain.stages is None:
        faces = ModelFaces(load_model(options.model), plan)
    else:
        task = ChainTask(
            request=options.chain,
            plan=plan,
            model=options.model,
            folder=folder,
            config=config,
            size=config.native_size,
        )
        opened = open_chain(task, partial(load_model, options.model))
        model, chain = behind.enter_context(opened)
        faces = ModelFaces(model, plan, chain=chain)
    behind.callback(faces.close)
    return faces
