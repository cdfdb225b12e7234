"""Windows in a chain of stages of their own: the pictures of one process, also after faults."""

from pathlib import Path

import pytest

from pipeline.chain import LocalChain
from pipeline.packing import pack_work, unpack_work
from pipeline.stage import void_chunk
from pipeline.staged_chain import ChainSettings, StagedChain
from pipeline.thread_host import ThreadHost
from pipeline.window_spec import WindowSpec
from tests.support.small_chain import PlainCodec, denoiser, levels_apart, small_inputs
from tests.support.windowed_chain import (
    WindowedRecipe,
    pictures,
    strides_of_work,
    windowed_plan,
)

pytestmark = pytest.mark.stream

SPECS = [
    WindowSpec(length=9, overlap=6),
    WindowSpec(length=9, overlap=3, blend="causal"),
    WindowSpec(length=6, blend="shifted", shift=3),
]


@pytest.mark.parametrize("transport", ["queue", "unix"])
@pytest.mark.parametrize("spec", SPECS)
def test_stages_on_threads_show_what_one_process_shows(
    spec: WindowSpec, transport: str, tmp_path: Path
) -> None:
    """Two stages are killed on the way; with checkpoints nothing changes."""
    plan, inputs = windowed_plan(spec, [1, 3]), small_inputs("a", 11)
    works = strides_of_work(inputs, plan, 7)
    local = LocalChain.from_plan(plan, denoiser(), PlainCodec())  # type: ignore[arg-type]  # see small_chain.decode_stage
    expected = pictures(local, inputs, works)
    recipes = [WindowedRecipe(plan=plan, index=index) for index in range(4)]
    settings = ChainSettings(
        pictures_per_chunk=4 * plan.frames_per_chunk, transport=transport, checkpoint_chunks=2
    )
    chain = StagedChain(ThreadHost(), recipes, tmp_path, settings)
    try:
        chain.prepare(inputs)
        made = []
        for index, work in enumerate(works):
            if index in (3, 6):
                chain.controller.kill(index // 3)
            made += chain.submit(work)
        made += chain.drain("a")
    finally:
        chain.close()
    assert len(made) == len(works)
    assert levels_apart([video for video in made if video.num_frames], expected) == 0


def test_a_chunk_that_carries_nothing_goes_over_the_wire() -> None:
    back = unpack_work(pack_work(void_chunk("a", 7), epoch=1, due_ns=0))
    assert back.is_void
    assert back.latent.index == 7
