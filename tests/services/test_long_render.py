"""A render that was stopped, damaged or starved of disk ends as one that nobody disturbed."""

import errno
import shutil
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from audio.errors import AudioError
from pipeline.generator import AvatarGenerator
from services.disk import is_disk_full
from services.long_render import FolderBusy, LongOptions, LongRender
from services.options import RenderRequest
from services.render import render
from services.segment_store import COMMITS, SegmentStore
from tests.support.job_inputs import (
    Onlooker,
    Stopped,
    frame_digest,
    sound_of,
    write_sound,
)
from video.crop import Crop
from video.output_file import OutputFile
from video.text_track import Cue, Words

pytestmark = pytest.mark.stream

# 3 segments of one chunk each, and a rest.
OPTIONS = LongOptions(segment_s=Fraction(1, 2))
SECONDS = 1.7


@pytest.fixture(scope="module")
def request_of(
    tiny_model: Path, portrait: Path, tmp_path_factory: pytest.TempPathFactory
) -> RenderRequest:
    folder = tmp_path_factory.mktemp("long")
    return RenderRequest(
        portrait=portrait,
        audio=write_sound(folder / "speech.wav", SECONDS, 22_050),
        out=folder / "unused.mp4",
        model=str(tiny_model),
        crop=Crop(mode="center"),
        size=(64, 64),
    )


@pytest.fixture(scope="module")
def undisturbed(request_of: RenderRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    film = folder / "film.mp4"
    LongRender(request_of, OPTIONS, folder / "work", Onlooker()).run(film)
    return film


def test_the_film_has_all_pictures_and_exactly_the_sound_of_a_plain_render(
    request_of: RenderRequest, undisturbed: Path, tmp_path: Path
) -> None:
    plain = replace(request_of, out=tmp_path / "plain.mp4")
    render(plain, lambda *_: None)
    assert frame_digest(undisturbed)[0] == frame_digest(plain.out)[0] == 43
    np.testing.assert_array_equal(sound_of(undisturbed), sound_of(plain.out))
    with av.open(str(undisturbed)) as film, av.open(str(plain.out)) as other:
        for kind in ("video", "audio"):
            ours, theirs = getattr(film.streams, kind)[0], getattr(other.streams, kind)[0]
            assert ours.start_time == 0
            assert ours.duration * ours.time_base == theirs.duration * theirs.time_base
        dts = [p.dts for p in film.demux(video=0) if p.dts is not None]
        assert dts == sorted(set(dts))


def test_the_same_render_gives_the_same_bytes(
    request_of: RenderRequest, undisturbed: Path, tmp_path: Path
) -> None:
    LongRender(request_of, OPTIONS, tmp_path / "work", Onlooker()).run(tmp_path / "film.mp4")
    assert (tmp_path / "film.mp4").read_bytes() == undisturbed.read_bytes()


def stop_after(borders: int, request: RenderRequest, options: LongOptions, work: Path) -> None:
    """Begin, and stop at the border that comes as so many."""
    watch = Onlooker(lambda w: w.num_borders >= borders)
    with pytest.raises(Stopped):
        LongRender(request, options, work, watch).run(work / "never.mp4")


def runs_of(
    monkeypatch: pytest.MonkeyPatch,
) -> list[int]:
    """The segments that are committed from now on."""
    committed: list[int] = []
    commit = SegmentStore.commit

    def noted(self: SegmentStore, index: int, **rest: object) -> object:
        manifest = commit(self, index, **rest)  # type: ignore[arg-type]  # passed on as it came
        committed.append(index)
        return manifest

    monkeypatch.setattr(SegmentStore, "commit", noted)
    return committed


def test_stopped_anywhere_it_goes_on_and_makes_nothing_twice(
    request_of: RenderRequest,
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    committed = runs_of(monkeypatch)
    num_stops = 0
    for limit in (2, 1, 10_000):
        watch = Onlooker(lambda w, limit=limit: len(w.reports) >= limit)  # type: ignore[misc]  # a default
        try:
            LongRender(request_of, OPTIONS, tmp_path / "work", watch).run(tmp_path / "film.mp4")
        except Stopped:
            num_stops += 1
    assert num_stops == 2
    assert committed == sorted(set(committed)) == list(range(len(committed)))
    assert (tmp_path / "film.mp4").read_bytes() == undisturbed.read_bytes()


@pytest.mark.parametrize("damage", ["last state", "media and states"])
def test_what_is_damaged_is_found_and_made_again(
    request_of: RenderRequest,
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: str,
) -> None:
    work = tmp_path / "work"
    stop_after(4, request_of, OPTIONS, work)
    segments = work / "segments"
    for name in {
        "last state": ["000002.state"],
        "media and states": ["000001.mp4", "000000.state", "000001.state", "000002.state"],
    }[damage]:
        path = segments / name
        if path.exists():
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
    committed = runs_of(monkeypatch)
    LongRender(request_of, OPTIONS, work, Onlooker()).run(tmp_path / "film.mp4")
    again = [index for index in committed if index < 3]
    assert again == ([] if damage == "last state" else [1])
    assert (tmp_path / "film.mp4").read_bytes() == undisturbed.read_bytes()


def test_segments_of_another_render_do_not_count(
    request_of: RenderRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = tmp_path / "film.mp4"
    LongRender(request_of, OPTIONS, tmp_path / "work", Onlooker()).run(film)
    first = frame_digest(film)
    committed = runs_of(monkeypatch)
    other = replace(request_of, seed=1)
    LongRender(other, OPTIONS, tmp_path / "work", Onlooker()).run(film)
    assert committed == list(range(len(committed)))
    assert frame_digest(film) != first


def test_weights_that_changed_by_one_byte_begin_anew(
    request_of: RenderRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Path(shutil.copytree(request_of.model, tmp_path / "model"))
    request = replace(request_of, model=str(model))
    work = tmp_path / "work"
    stop_after(3, request, OPTIONS, work)
    weights = model / "dit.safetensors"
    data = bytearray(weights.read_bytes())
    data[-4] ^= 1  # the lowest bit of the last number
    weights.write_bytes(data)
    committed = runs_of(monkeypatch)
    LongRender(request, OPTIONS, work, Onlooker()).run(tmp_path / "film.mp4")
    assert committed == list(range(4))
    log = (work / "segments" / COMMITS).read_text().split()
    assert log == ["0", "1", "0", "1", "2", "3"]


def test_on_a_full_disk_it_says_so_and_goes_on_later(
    request_of: RenderRequest,
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    space = [60_000]
    write: Callable[[OutputFile, bytes], int] = OutputFile.write

    def scarce(self: OutputFile, data: bytes) -> int:
        space[0] -= len(data)
        if space[0] < 0:
            self._error = OSError(errno.ENOSPC, "No space left on device")
            raise self._error
        return write(self, data)

    monkeypatch.setattr(OutputFile, "write", scarce)
    film = tmp_path / "film.mp4"
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is looked at below
        LongRender(request_of, OPTIONS, tmp_path / "work", Onlooker()).run(film)
    assert is_disk_full(caught.value)
    assert not film.exists()
    space[0] = 1 << 30
    LongRender(request_of, OPTIONS, tmp_path / "work", Onlooker()).run(film)
    assert film.read_bytes() == undisturbed.read_bytes()


def test_it_can_be_watched_while_it_grows(request_of: RenderRequest, tmp_path: Path) -> None:
    seen: list[int] = []
    work = tmp_path / "work"
    watch = Onlooker()
    long = LongRender(request_of, OPTIONS, work, watch)

    def look(_: Onlooker) -> bool:
        if watch.num_borders >= 4 and not seen:
            seen.append(frame_digest(long.growing_path)[0])
        return False

    watch.stop_when = look
    long.run(tmp_path / "film.mp4")
    assert seen
    assert seen[0] > 0
    assert not long.growing_path.exists()


def test_progress_rises_to_all_pictures(request_of: RenderRequest, tmp_path: Path) -> None:
    watch = Onlooker()
    ended = LongRender(request_of, OPTIONS, tmp_path / "work", watch).run(tmp_path / "film.mp4")
    done = [report.num_frames_done for report in watch.reports]
    assert done == sorted(done)
    assert ended.num_frames_done == ended.num_frames_total == 43
    assert ended.num_segments_done == ended.num_segments_total == 4
    assert watch.reports[-1].fps > 0


def test_label_guard_loudness_and_words_go_into_the_film(
    request_of: RenderRequest, undisturbed: Path, tmp_path: Path
) -> None:
    options = replace(OPTIONS, label="Made by AI", guard_colour=True, loudness_lufs=-23.0)
    words = Words(captions=(Cue(100, 900, "Hello"),), chapters=(Cue(0, 1700, "One"),))
    films = [tmp_path / "one.mp4", tmp_path / "two.mp4"]
    LongRender(request_of, options, tmp_path / "a", Onlooker()).run(films[0], words)
    stop_after(3, request_of, options, tmp_path / "b")
    LongRender(request_of, options, tmp_path / "b", Onlooker()).run(films[1], words)
    assert films[0].read_bytes() == films[1].read_bytes()
    with av.open(str(films[0])) as film, av.open(str(undisturbed)) as plain:
        assert [s.codec_context.name for s in film.streams if s.type == "subtitle"] == ["mov_text"]
        assert film.chapters()[0]["metadata"]["title"] == "One"
        shown, bare = (next(f.decode(video=0)).to_ndarray(format="gray") for f in (film, plain))
    assert np.abs(shown[-8:, :30].astype(int) - bare[-8:, :30]).max() > 60


def test_windows_go_on_as_well(request_of: RenderRequest, tmp_path: Path) -> None:
    plan = tmp_path / "windows.yaml"
    plan.write_text(
        "name: windows\nmode: render\nframes_per_chunk: 3\nwindow_frames: 12\nsink_distance: 15\n"
        "windows: {length: 6, overlap: 3, blend: exact}\n"
        "schedule: {steps: 2, shift: 5, rule: euler}\n"
    )
    request = replace(request_of, plan=str(plan))
    films = [tmp_path / "one.mp4", tmp_path / "two.mp4"]
    LongRender(request, OPTIONS, tmp_path / "a", Onlooker()).run(films[0])
    for stop in (2, 3):
        stop_after(stop, request, OPTIONS, tmp_path / "b")
    LongRender(request, OPTIONS, tmp_path / "b", Onlooker()).run(films[1])
    assert films[0].read_bytes() == films[1].read_bytes()


def test_two_processes_do_not_render_in_one_folder(
    request_of: RenderRequest, tmp_path: Path
) -> None:
    def second(_: Onlooker) -> bool:
        with pytest.raises(FolderBusy):
            LongRender(request_of, OPTIONS, tmp_path / "work", Onlooker()).run(tmp_path / "b.mp4")
        return True

    with pytest.raises(Stopped):
        LongRender(request_of, OPTIONS, tmp_path / "work", Onlooker(second)).run(tmp_path / "a.mp4")


def test_a_sound_that_is_cut_off_is_refused_before_anything_is_rendered(
    request_of: RenderRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = request_of.audio.read_bytes()
    cut = tmp_path / "cut.wav"
    cut.write_bytes(data[: len(data) // 2])
    monkeypatch.setattr(AvatarGenerator, "push", lambda *_: pytest.fail("it was rendered"))
    with pytest.raises(AudioError, match="cut off"):
        LongRender(replace(request_of, audio=cut), OPTIONS, tmp_path / "work", Onlooker()).run(
            tmp_path / "film.mp4"
        )
