"""How far pictures are from an undisturbed run when stages that keep no checkpoints are lost."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from fault_stream import Script, script_of, undisturbed
from report import table

from pipeline.chain_settings import ChainSettings
from pipeline.model import Model
from pipeline.plan import Plan
from pipeline.recipe import DecodeRecipe, DenoiseRecipe, Recipe
from pipeline.staged_chain import StagedChain
from pipeline.thread_host import ThreadHost
from video.chunk import VideoChunk

NUM_CHUNKS, FAULT_AT = 40, 30
DEPTHS = (1, 4, 12, 30)
WINDOW = 2


def describe_replay(model: Model, plan: Plan) -> str:
    """The difference by how many chunks are played again, as Markdown."""
    script = script_of(model, plan, "s0", 1, NUM_CHUNKS)
    expected = undisturbed(model, plan, script, NUM_CHUNKS)
    rows = []
    for what, num_lost in {"first stage": 1, "all stages": len(plan.stages) + 1}.items():
        positions = list(range(num_lost))
        for depth in DEPTHS:
            made = _lose(model, plan, script, positions, depth)
            db = [_psnr_db(a, b) for a, b in zip(made, expected, strict=True)]
            rows.append([what, str(depth), _decibels(db)])
    return (
        f"One session of {NUM_CHUNKS} chunks, stages lost at chunk {FAULT_AT}, at most {WINDOW} "
        "chunks under way; peak signal to noise ratio of the worst chunk's pictures against an "
        "undisturbed run, and of the last chunk's.\n\n"
        + table(["lost", "chunks played again (`replay_chunks`)", "PSNR, dB"], rows)
    )


def _lose(
    model: Model, plan: Plan, script: Script, positions: Sequence[int], depth: int
) -> list[VideoChunk]:
    """The session's pictures when stages are lost on the way."""
    name = str(model.folder)
    stages = [DenoiseRecipe(model=name, plan=plan, index=i) for i in range(len(plan.stages))]
    settings = ChainSettings(
        pictures_per_chunk=plan.frames_per_chunk * model.codec.frames_per_latent,
        window=WINDOW,
        checkpoint_chunks=0,
        replay_chunks=depth,
        transport="queue",
    )
    folder = Path(tempfile.mkdtemp(prefix="viva-"))
    recipes: list[Recipe] = [*stages, DecodeRecipe(model=name)]
    chain = StagedChain(ThreadHost(), recipes, folder, settings)
    try:
        chain.prepare(script.inputs)
        made: list[VideoChunk] = []
        for index, work in enumerate(script.works):
            if index == FAULT_AT:
                for position in positions:
                    chain.controller.kill(position)
            made += chain.submit(work)
        return made + chain.drain(script.name)
    finally:
        chain.close()
        shutil.rmtree(folder)


def _psnr_db(one: VideoChunk, other: VideoChunk) -> float:
    """Infinite for equal pictures."""
    difference = one.frames_THWC.astype(np.float64) - other.frames_THWC
    mean_square = float((difference**2).mean())
    return float("inf") if mean_square == 0 else float(10 * np.log10(255**2 / mean_square))


def _decibels(db: Sequence[float]) -> str:
    if min(db) == float("inf"):
        return "identical"
    return f"{min(db):.1f}, last chunk {db[-1]:.1f}"
