"""The shipped cast is whole, and a name finds its portrait wherever one stands."""

import json
from pathlib import Path

import pytest
from PIL import Image

from pipeline.cast import CastMember, find_portrait, read_cast
from pipeline.catalog import model_path
from pipeline.errors import ModelError
from video.framed_mark import carries_mark

pytestmark = pytest.mark.unit

POCKET = model_path("pocket")
CAST = read_cast(POCKET)


def write_cast(folder: Path, text: str) -> Path:
    (folder / "portraits").mkdir(parents=True)
    (folder / "portraits" / "cast.json").write_text(text, encoding="utf-8")
    return folder


def test_eleven_of_both_domains_and_no_file_without_a_name() -> None:
    assert len(CAST) == 11
    assert [member.domain for member in CAST].count("drawn") == 4
    assert {member.domain for member in CAST} == {"heads", "drawn"}
    names = {member.name for member in CAST}
    assert {path.stem for path in (POCKET / "portraits").glob("*.png")} == names
    assert {path.stem for path in (POCKET / "portraits" / "thumbnails").iterdir()} == names


@pytest.mark.parametrize("member", CAST, ids=lambda member: member.name)
def test_a_member_has_a_framed_portrait_a_thumbnail_a_title_and_a_licence(
    member: CastMember,
) -> None:
    with Image.open(member.path) as portrait:
        assert (portrait.size, portrait.mode, portrait.format) == ((512, 512), "RGB", "PNG")
        assert carries_mark(portrait)
    with Image.open(member.path.parent / "thumbnails" / f"{member.name}.jpg") as thumbnail:
        assert (thumbnail.size, thumbnail.format) == ((128, 128), "JPEG")
    assert member.title.lower().startswith(f"{member.name}, ")
    assert member.licence.split()[0] == {"heads": "CC0-1.0", "drawn": "Apache-2.0"}[member.domain]


def test_a_name_is_the_cast_before_it_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ada").touch()
    (tmp_path / "someone").touch()
    assert find_portrait("ada", POCKET) == POCKET / "portraits" / "ada.png"
    assert find_portrait("./ada", POCKET) == Path("ada")
    assert find_portrait("someone", POCKET) == Path("someone")
    for path in ("ada.png", "no/such", ".."):
        assert find_portrait(path, POCKET) == Path(path)


def test_an_unknown_name_is_told_the_names() -> None:
    with pytest.raises(ModelError, match=r"'adda': use one of ada, bruno, .*, zoe, or the path"):
        find_portrait("adda", POCKET)
    with pytest.raises(ModelError, match="unknown portrait"):
        find_portrait("x" * 5000, POCKET)


def test_a_model_without_a_cast_knows_only_paths(tmp_path: Path) -> None:
    assert read_cast(tmp_path) == ()
    assert find_portrait("ada", tmp_path) == Path("ada")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "3",
        "[3]",
        '["ada"]',
        '[{"name": "ada"}]',
        json.dumps([dict.fromkeys(("name", "title", "domain", "licence"), "../ada")]),
    ],
)
def test_a_broken_list_is_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(ModelError, match=r"cast\.json is not a list of portraits"):
        read_cast(write_cast(tmp_path / "model", text))
