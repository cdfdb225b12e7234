"""Faces of a model: what is refused, and chains whose stages run side by side."""

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.chain_settings import ChainSettings
from pipeline.cuts import cut_at
from pipeline.errors import PlanError
from pipeline.live_face import FaceRefused
from pipeline.live_session import LiveSession, LiveSlice
from pipeline.live_state import StateError, export_session, import_session
from pipeline.live_warmup import warm_up
from pipeline.model import Model, load_model
from pipeline.model_face import ModelFaces, with_bypass
from pipeline.plan_parse import load_plan
from pipeline.recipe import DecodeRecipe, DenoiseRecipe
from pipeline.staged_chain import StagedChain
from pipeline.thread_host import ThreadHost
from tests.support.fake_face import FakeClock, FakeFaces
from tests.support.tiny_model import SIZE_PX, build_tiny_model

pytestmark = pytest.mark.stream

RATE, FRAME = 48_000, 1920
PLAN = cut_at(load_plan("live"), [2])


def picture(side: int = 96, kind: str = "PNG") -> bytes:
    pixels_HWC = np.random.default_rng(1).integers(0, 256, (side, side, 3), np.uint8)
    stored = io.BytesIO()
    Image.fromarray(pixels_HWC).save(stored, kind)
    return stored.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load_model(str(folder))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As many threads as the nodes of a chain have: others sum in another order."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


def refused(model: Model, portrait: bytes = b"", **options: Any) -> FaceRefused:
    faces = ModelFaces(model, load_plan("live"))
    chosen: dict[str, Any] = {"session": "a", "seed": 1, "sample_rate": RATE} | options
    with pytest.raises(FaceRefused) as caught:
        faces.open(portrait or picture(), **chosen)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("portrait", "words"),
    [
        (b"no picture at all", "is text, not a PNG"),
        (picture()[:500], "is damaged or cut short"),
        (picture(32), "32x32 is too small"),
        (b"GIF89a" + bytes(50), "is a GIF"),
        (picture(), "no face found"),
    ],
)
def test_a_bad_portrait_is_refused_in_one_line(model: Model, portrait: bytes, words: str) -> None:
    error = refused(model, portrait)
    assert error.reason == "portrait"
    assert words in str(error)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"sample_rate": 44_101}, "sample_rate"),
        ({"size": (65, 64)}, "size"),
        ({"size": (64, 4000)}, "size"),
        ({"crop": "1,2"}, "portrait"),
        ({"crop": "0,0,500,500"}, "portrait"),
        ({"crop": "none", "plan": "render"}, "plan"),
        ({"crop": "none", "plan": "../../etc/passwd"}, "plan"),
        ({"crop": "none", "plan": "nothing"}, "plan"),
    ],
)
def test_a_wish_that_cannot_be_met_is_refused_by_name(
    model: Model, options: dict[str, Any], reason: str
) -> None:
    assert refused(model, **options).reason == reason


def test_a_plan_for_renders_is_no_plan_for_sessions(model: Model) -> None:
    with pytest.raises(PlanError, match="for renders"):
        ModelFaces(model, load_plan("render"))


def test_steps_may_be_left_out_only_where_there_are_enough() -> None:
    assert [spec.name for spec in with_bypass(load_plan("live")).plugins] == ["bypass"]
    assert with_bypass(load_plan("pocket-2step")).plugins == ()


def opened(model: Model, **options: Any) -> LiveSession:
    faces = ModelFaces(model, PLAN, **options)
    face = faces.open(picture(), session="a", seed=4, sample_rate=RATE, crop="none")
    assert face.size == (SIZE_PX, SIZE_PX)
    session = LiveSession(face)
    session.want(10_000)
    return session


@contextmanager
def staged(folder: Path, at: Path) -> Iterator[StagedChain]:
    at.mkdir()
    recipes = [DenoiseRecipe(model=str(folder), plan=PLAN, index=index) for index in range(2)]
    settings = ChainSettings(pictures_per_chunk=12, transport="queue")
    threads = threading.active_count()
    chain = StagedChain(ThreadHost(), [*recipes, DecodeRecipe(model=str(folder))], at, settings)
    try:
        yield chain
    finally:
        chain.close()
    assert threading.active_count() == threads


def all_out(session: LiveSession) -> list[LiveSlice]:
    """What comes once nothing is under way any more."""
    until_s = time.monotonic() + 60
    while session.num_under_way > 0 and time.monotonic() < until_s:
        session.collect()
        time.sleep(0.002)
    assert session.num_under_way == 0
    return session.release()


def spoken(session: LiveSession, num_frames: int = 30) -> None:
    rng = np.random.default_rng(2)
    sound_T = rng.integers(-9000, 9000, num_frames * FRAME).astype(np.int16)
    session.speak("u", 0, sound_T)
    session.end("u", 0)


def same(made: list[LiveSlice], expected: list[LiveSlice], levels: int = 0) -> bool:
    pairs = zip(made, expected, strict=True)
    return all(
        (a.index, a.epoch, a.utterance, a.ends_utterance)
        == (b.index, b.epoch, b.utterance, b.ends_utterance)
        and np.array_equal(a.sound_T, b.sound_T)
        and int(np.abs(a.picture_HWC.astype(int) - b.picture_HWC).max()) <= levels
        for a, b in pairs
    )


def test_stages_side_by_side_give_the_slices_of_one_process(
    model: Model, folder: Path, tmp_path: Path
) -> None:
    local = opened(model)
    spoken(local)
    for _ in range(4):
        local.begin_chunk()
    expected = local.release()
    assert len(expected) == 48
    with staged(folder, tmp_path / "chain") as chain:
        session = opened(model, chain=chain)
        spoken(session)
        for _ in range(4):
            session.begin_chunk()
        assert session.next_unmade == 48
        made = all_out(session)
        seen, until_s = set[str](), time.monotonic() + 20
        while len(seen) < 3 and time.monotonic() < until_s:
            seen |= {one.stage for one in session.face.stage_times()}
        assert seen == set(chain.names)
        session.close()
    assert same(made, expected)


def test_an_interrupt_reaches_chunks_that_are_under_way(
    model: Model, folder: Path, tmp_path: Path
) -> None:
    with staged(folder, tmp_path / "chain") as chain:
        session = opened(model, chain=chain)
        spoken(session, 200)
        for _ in range(3):
            session.begin_chunk()
        session.interrupt(1)
        assert session.next_unmade - session.next_index <= 36
        for _ in range(2):
            session.begin_chunk()
        made = all_out(session)
        session.close()
    assert len(made) >= 12
    assert [one.index for one in made] == list(range(len(made)))
    assert not any(one.utterance or one.sound_T.any() for one in made)
    assert {one.epoch for one in made} == {1}


def test_a_session_moves_from_stages_to_one_process(
    model: Model, folder: Path, tmp_path: Path
) -> None:
    whole = opened(model)
    spoken(whole)
    for _ in range(4):
        whole.begin_chunk()
    expected = whole.release()
    with staged(folder, tmp_path / "chain") as chain:
        first = opened(model, chain=chain)
        spoken(first)
        first.begin_chunk()
        first.begin_chunk()
        with pytest.raises(StateError, match="under way"):
            export_session(first)
        made = all_out(first)
        state = export_session(first)
        first.close()
    second = opened(model)
    import_session(second, state)
    for _ in range(2):
        second.begin_chunk()
    made += second.release()
    # The resampler is fed again where a session moves, which rounds otherwise.
    assert same(made, expected, levels=1)
    other = ModelFaces(model, PLAN).open(
        picture(), session="b", seed=5, sample_rate=RATE, crop="none"
    )
    with pytest.raises(StateError, match="seed"):
        import_session(LiveSession(other), state)
    for cut in (0, 1, 100, len(state) // 2, len(state) - 1):
        with pytest.raises(StateError):
            import_session(opened(model), state[:cut])


@pytest.mark.parametrize(("held", "took_s"), [(0, 0.2), (2, 0.6)])
def test_a_warm_up_knows_the_time_and_leaves_nothing(held: int, took_s: float) -> None:
    clock = FakeClock()
    faces = FakeFaces(clock, cost_s=0.2, num_held=held)
    warmth = warm_up(faces, clock_s=clock, sleep=clock.advance)
    assert warmth.took_s == pytest.approx(took_s, abs=0.01)
    assert warmth.busy_s == pytest.approx(0.0 if held else 0.2, abs=0.01)
    assert warmth.capacity.sessions == 2
    assert warmth.warm_s == pytest.approx(clock.now_s)
    assert all(face.is_closed for face in faces.opened)
