"""The benchmark's own stages, on a chain of threads: they hand on what they are given."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from chain_stages import (
    JoinedRecipe,
    SleepRecipe,
    blank_inputs,
    blank_work,
    numbered,
    sleep_recipes,
    sleep_until_s,
)

from pipeline.chain_settings import ChainSettings
from pipeline.packing import pack_work
from pipeline.staged_chain import StagedChain
from pipeline.thread_host import ThreadHost
from tests.support.toy_stages import ToyRecipe, ToyStage, toy_inputs, toy_works

pytestmark = pytest.mark.unit


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="viva-bench-"))
    yield made
    shutil.rmtree(made)


def test_a_sleep_never_ends_early() -> None:
    until_s = time.perf_counter() + 0.003
    sleep_until_s(until_s)
    assert time.perf_counter() >= until_s
    sleep_until_s(until_s)


def test_a_chain_of_sleepers_shows_every_chunk_in_order(folder: Path) -> None:
    settings = ChainSettings(pictures_per_chunk=2, transport="queue")
    chain = StagedChain(ThreadHost(), sleep_recipes([0.0] * 3, (2, 8, 8, 3)), folder, settings)
    try:
        chain.prepare(blank_inputs("s", 8))
        work = blank_work("s", 1 << 12)
        shown = [video for index in range(9) for video in chain.submit(numbered(work, index))]
        shown += chain.drain("s")
        assert [video.pts for video in shown] == list(range(9))
        assert all((video.frames_THWC == 127).all() for video in shown)
    finally:
        chain.close()


def test_a_blank_chunk_weighs_what_was_asked_for() -> None:
    message = pack_work(blank_work("s", 1 << 20), epoch=1, due_ns=0)
    assert message.num_bytes == pytest.approx(1 << 20, abs=8)


def test_the_end_of_a_chain_without_a_decoder_shows_every_bit_of_the_latents() -> None:
    show = SleepRecipe(index=0, shows=True).build()
    first, second = toy_works("s", 2)
    one, other = (show.process(work).frames_THWC for work in (first, second))
    values = first.latent.latents_CTHW.contiguous().view(torch.uint8).numpy().reshape(-1)
    np.testing.assert_array_equal(one.reshape(-1)[: values.size], values)
    assert not np.array_equal(one, other)


def test_joined_stages_do_what_they_do_one_by_one_and_go_on_from_their_state() -> None:
    parts = (SleepRecipe(index=0), ToyRecipe(index=1))
    joined, twin = (JoinedRecipe(parts=parts).build() for _ in range(2))
    alone = ToyStage(ToyRecipe(index=1))
    for stage in (joined, twin, alone):
        stage.prepare(toy_inputs("s"))
    *early, late = toy_works("s", 4)
    for work in early:
        expected = alone.process(work)
        made = joined.process(work)
        assert torch.equal(made.latent.latents_CTHW, expected.latent.latents_CTHW)
    twin.import_state("s", joined.export_state("s"))
    made, again = joined.process(late), twin.process(late)
    assert torch.equal(made.latent.latents_CTHW, again.latent.latents_CTHW)
    assert JoinedRecipe(parts=parts).steps_done == 2


def test_joined_stages_show_what_the_last_one_makes() -> None:
    parts = (ToyRecipe(index=0), SleepRecipe(index=1, shows=True))
    joined, alone = JoinedRecipe(parts=parts).build(), ToyStage(parts[0])
    for stage in (joined, alone):
        stage.prepare(toy_inputs("s"))
    (work,) = toy_works("s", 1)
    expected = parts[1].build().process(alone.process(work))
    np.testing.assert_array_equal(joined.process(work).frames_THWC, expected.frames_THWC)
