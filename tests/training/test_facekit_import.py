"""The face kit from OBJ files: a round trip of the real kit, and what is refused."""

import lzma
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.facekit import HAIR_STYLES, FaceKitError, load_facekit
from training.facekit_import import EXPRESSIONS, NEUTRAL, import_facekit, import_hair, import_head
from training.obj import ObjError, read_obj, read_vertices

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[2]
KIT = ROOT.parent / "shared" / "facekit"
needs_kit = pytest.mark.skipif(
    not (KIT / "ict_face_model_light.npz").is_file(), reason="the face kit folder is absent"
)
QUAD = "v 0 0 0\nv 1 0 0\nv 1 1 0.25\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nf 1/1 2/2 3/3 4/1\n"

Mesh = dict[str, Any]


def obj_text(mesh: Mesh, *, with_faces: bool = True) -> str:
    """OBJ text of a mesh; positions with the nine digits that float32 needs."""
    rows = [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in mesh["vertices"].tolist()]
    if with_faces:
        rows += [f"vt {u:.9g} {v:.9g}" for u, v in mesh["uv"].tolist()]
        pairs = np.stack([mesh["triangles"], mesh["triangle_uv"]], axis=-1) + 1
        rows += ["f " + " ".join(f"{v}/{t}" for v, t in face) for face in pairs.tolist()]
    return "# a comment\nmtllib none.mtl\nusemtl M_Face\n" + "\n".join(rows) + "\n"


def write_clone(folder: Path, head: Mesh) -> None:
    """A clone of the face kit: few shapes are real, as each takes long to print."""
    model = folder / "FaceXModel"
    model.mkdir(parents=True)
    (model / f"{NEUTRAL}.obj").write_text(obj_text(head))
    neutral = obj_text(head, with_faces=False)
    names = [*(f"identity{index:03d}" for index in range(100)), *EXPRESSIONS]
    deltas = np.concatenate([head["identity_deltas"], head["expression_deltas"]])
    for index, name in enumerate(names):
        moved = index in REAL_SHAPES
        shape = {"vertices": head["vertices"] + deltas[index].astype(np.float32)}
        text = obj_text(shape, with_faces=False) if moved else neutral
        (model / f"{name}.obj").write_text(text)


REAL_SHAPES = (0, 99, 100, 100 + EXPRESSIONS.index("jawOpen"), 156)


def write_hair(folder: Path, store: Mesh) -> None:
    for name in HAIR_STYLES:
        keys = ("vertices", "uv", "triangles", "triangle_uv")
        path = folder / "base" / "hair" / name / f"{name}.obj"
        path.parent.mkdir(parents=True)
        path.write_text(obj_text({key: store[f"{name}/{key}"] for key in keys}))


@pytest.fixture(scope="module")
def clones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clones")
    with np.load(KIT / "ict_face_model_light.npz") as head:
        write_clone(folder / "ict", dict(head))
    with np.load(KIT / "makehuman_hair.npz") as hair:
        write_hair(folder / "assets", dict(hair))
    return folder


@needs_kit
def test_a_clone_gives_back_the_kit_that_it_was_written_from(clones: Path, tmp_path: Path) -> None:
    import_facekit(clones / "ict", clones / "assets", tmp_path / "kit")
    assert sorted(path.name for path in (tmp_path / "kit").iterdir()) == [
        "ict_face_model_light.npz",
        "makehuman_hair.npz",
    ]
    for name in ("ict_face_model_light.npz", "makehuman_hair.npz"):
        with np.load(KIT / name) as old, np.load(tmp_path / "kit" / name) as new:
            assert sorted(old) == sorted(new)
            for key in old:
                assert new[key].dtype == old[key].dtype, key
                assert new[key].shape == old[key].shape, key
                if not key.endswith("_deltas"):
                    np.testing.assert_array_equal(new[key], old[key])
    kit, made = load_facekit(KIT), load_facekit(tmp_path / "kit")
    rows = np.concatenate([kit.identity_KX, kit.expression_EX])
    made_rows = np.concatenate([made.identity_KX, made.expression_EX])
    real = list(REAL_SHAPES)
    # Half floats of differences that went through float32 text: an ulp of each.
    np.testing.assert_allclose(made_rows[real], rows[real], rtol=1.1e-3, atol=4e-6)
    assert np.delete(made_rows, real, axis=0).max() == 0.0


@needs_kit
@pytest.mark.skipif(not (KIT / "jawOpen.obj.xz").is_file(), reason="the original OBJ is absent")
def test_the_original_files_give_the_arrays_of_the_kit(tmp_path: Path) -> None:
    for name in (NEUTRAL, "jawOpen"):
        (tmp_path / f"{name}.obj").write_bytes(
            lzma.decompress((KIT / f"{name}.obj.xz").read_bytes())
        )
    mesh = read_obj(tmp_path / f"{NEUTRAL}.obj")
    delta = (read_vertices(tmp_path / "jawOpen.obj") - mesh.vertices_V3).astype(np.float16)
    with np.load(KIT / "ict_face_model_light.npz") as head:
        np.testing.assert_array_equal(mesh.vertices_V3, head["vertices"])
        np.testing.assert_array_equal(mesh.uv_U2, head["uv"])
        np.testing.assert_array_equal(mesh.triangles_F3, head["triangles"])
        np.testing.assert_array_equal(mesh.triangle_uv_F3, head["triangle_uv"])
        assert tuple(head["expression_names"]) == EXPRESSIONS
        index = EXPRESSIONS.index("jawOpen")
        np.testing.assert_array_equal(delta, head["expression_deltas"][index])


def drop_a_shape(model: Path) -> None:
    (model / "mouthPucker.obj").rename(model / "elsewhere")


def drop_a_vertex(model: Path) -> None:
    text = (model / "identity000.obj").read_text()
    (model / "identity000.obj").write_text(text.rpartition("v ")[0])


def break_a_number(model: Path) -> None:
    path = model / "identity000.obj"
    path.write_text(path.read_text().replace("v ", "v x", 1))


def shuffle_faces(model: Path) -> None:
    path = model / f"{NEUTRAL}.obj"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:-2], lines[-1], lines[-2]]))


def shorten_neutral(model: Path) -> None:
    (model / f"{NEUTRAL}.obj").write_text(QUAD)


@needs_kit
@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (drop_a_shape, "mouthPucker.obj: missing; give the folder of a clone of ICT-FaceKit"),
        (drop_a_vertex, "identity000.obj: 26718 vertices; the neutral head has 26719"),
        (break_a_number, "identity000.obj: a 'v' line does not hold 3 numbers"),
        (shuffle_faces, "another order"),
        (shorten_neutral, "4 vertices, 3 texture points and 2 triangles; the public model has"),
    ],
)
def test_a_wrong_clone_is_refused_in_one_line(
    clones: Path, tmp_path: Path, damage: Callable[[Path], None], complaint: str
) -> None:
    model = tmp_path / "FaceXModel"
    model.mkdir()
    for path in (clones / "ict" / "FaceXModel").iterdir():
        (model / path.name).hardlink_to(path)
    for name in (NEUTRAL, "identity000"):  # what is damaged must not be the shared file
        text = (model / f"{name}.obj").read_text()
        (model / f"{name}.obj").unlink()
        (model / f"{name}.obj").write_text(text)
    damage(model)
    with pytest.raises(FaceKitError, match=complaint) as caught:
        import_head(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_hair_says_which_file_and_how_many_more(tmp_path: Path) -> None:
    with pytest.raises(FaceKitError, match=r"afro01.obj and 9 more files: missing; .*makehuman"):
        import_hair(tmp_path)


def test_the_command_gives_one_line_for_a_folder_without_files(tmp_path: Path) -> None:
    options = ["--ict", str(tmp_path), "--hair", str(tmp_path), "--out", str(tmp_path / "kit")]
    command = [sys.executable, "-m", "training.facekit_import", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "missing; give the folder of" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "kit").exists()


def test_a_clone_given_as_a_kit_names_the_command(tmp_path: Path) -> None:
    (tmp_path / "FaceXModel").mkdir()
    (tmp_path / "FaceXModel" / f"{NEUTRAL}.obj").write_text(QUAD)
    with pytest.raises(FaceKitError, match=r"training.facekit_import --ict .* then pass KIT"):
        load_facekit(tmp_path)


def test_faces_become_fans_and_negative_indices_count_from_the_end(tmp_path: Path) -> None:
    path = tmp_path / "quad.obj"
    path.write_text(QUAD + "f -4/-3/1 -3/-2/1 -2/-1/1\r\n")
    mesh = read_obj(path)
    assert mesh.triangles_F3.tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 2]]
    assert mesh.triangle_uv_F3.tolist() == [[0, 1, 2], [0, 2, 0], [0, 1, 2]]
    assert mesh.vertices_V3[2].tolist() == [1.0, 1.0, 0.25]
    assert mesh.triangles_F3.dtype == np.int32


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (QUAD + "f 1/1 2/2 5/3\n", "corner"),
        (QUAD + "f 1/1 2/2 0/3\n", "corner"),
        (QUAD + "f 1 2 3\n", "corner"),
        (QUAD + "f 1//1 2//1 3//1\n", "corner"),
        ("v 0 0 0\n", "no faces"),
        ("v 0 0\n", "3 numbers"),
        ("v 0 nan 0\n", "not finite"),
        ("\0\xff binary", "no faces"),
    ],
)
def test_broken_obj_files_are_refused(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "bad.obj").write_text(text)
    with pytest.raises(ObjError, match=complaint):
        read_obj(tmp_path / "bad.obj")
    with pytest.raises(ObjError, match="cannot be read"):
        read_obj(tmp_path / "none.obj")
