"""Make the face kit from public OBJ files.

`python -m training.facekit_import --ict CLONE --hair MAKEHUMAN_ASSETS --out DIR` reads a clone of
`ICT-VGL/ICT-FaceKit` (MIT: `FaceXModel/generic_neutral_mesh.obj`, `identity000.obj` to
`identity099.obj`, one file an expression) and one of `makehumancommunity/makehuman-assets` (CC0:
`base/hair/NAME/NAME.obj`), and writes the two files that `facekit.load_facekit` reads:

- `ict_face_model_light.npz`: `vertices` f32 [V, 3] (cm), `uv` f32 [U, 2], `triangles` and
  `triangle_uv` i32 [F, 3], `identity_deltas` f16 [100, V, 3], `expression_deltas` f16 [57, V, 3],
  `expression_names` [57]; a delta is a file's positions minus the neutral ones;
- `makehuman_hair.npz`: per style `NAME/vertices` (dm), `NAME/uv`, `NAME/triangles`,
  `NAME/triangle_uv`.
"""

import argparse
import logging
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from training.facekit import HAIR_STYLES, FaceKitError, load_facekit
from training.obj import Floats, Ints, ObjError, ObjMesh, read_obj, read_vertices

NUM_VERTICES, NUM_UV, NUM_TRIANGLES, NUM_IDENTITIES = 26719, 28911, 52220, 100
# The renderer names vertices by number: this checksum of the triangles says that they are those.
_TRIANGLES_CRC32 = 2345492968
NEUTRAL = "generic_neutral_mesh"

_SIDED = """
PupilDilate browDown browInnerUp browOuterUp cheekPuff cheekRaiser cheekSquint eyeBlink
eyeLookDown eyeLookIn eyeLookOut eyeLookUp eyeSquint eyeWide mouthDimple mouthFrown
mouthLowerDown mouthPress mouthSmile mouthStretch mouthUpperUp noseSneer
"""
_WHOLE = """
jawForward jawLeft jawOpen jawRight mouthClose mouthFunnel mouthLeft mouthPucker mouthRight
mouthRollLower mouthRollUpper mouthShrugLower mouthShrugUpper
"""
EXPRESSIONS = tuple(
    sorted([*_WHOLE.split(), *(f"{name}_{side}" for name in _SIDED.split() for side in "LR")])
)
_LOG = logging.getLogger(__name__)


def import_head(clone: Path) -> dict[str, Any]:
    """The arrays of `ict_face_model_light.npz` from a clone, or from its `FaceXModel` folder.

    Raises:
        FaceKitError: a file is missing, or is not that of the public model.
    """
    folder = clone / "FaceXModel" if (clone / "FaceXModel").is_dir() else clone
    names = [*(f"identity{index:03d}" for index in range(NUM_IDENTITIES)), *EXPRESSIONS]
    _require([folder / f"{name}.obj" for name in (NEUTRAL, *names)], "a clone of ICT-FaceKit")
    neutral = _read(folder / f"{NEUTRAL}.obj")
    _check_topology(neutral, folder / f"{NEUTRAL}.obj")
    deltas = np.empty((len(names), NUM_VERTICES, 3), np.float16)
    for index, name in enumerate(names):
        deltas[index] = _delta(folder / f"{name}.obj", neutral.vertices_V3)
        if (index + 1) % 40 == 0:
            _LOG.info("%d of %d shapes", index + 1, len(names))
    return {
        "vertices": neutral.vertices_V3,
        "uv": neutral.uv_U2,
        "triangles": neutral.triangles_F3,
        "triangle_uv": neutral.triangle_uv_F3,
        "identity_deltas": deltas[:NUM_IDENTITIES],
        "expression_deltas": deltas[NUM_IDENTITIES:],
        "expression_names": np.array(EXPRESSIONS),
    }


def import_hair(assets: Path) -> dict[str, Floats | Ints]:
    """The arrays of `makehuman_hair.npz` from a clone of the assets, or from its hair folder.

    Raises:
        FaceKitError: a style is missing or its file is broken.
    """
    folder = assets / "base" / "hair" if (assets / "base" / "hair").is_dir() else assets
    paths = {name: folder / name / f"{name}.obj" for name in HAIR_STYLES}
    _require(list(paths.values()), "a clone of makehuman-assets")
    arrays: dict[str, Floats | Ints] = {}
    for name, path in paths.items():
        mesh = _read(path)
        arrays[f"{name}/vertices"], arrays[f"{name}/uv"] = mesh.vertices_V3, mesh.uv_U2
        arrays[f"{name}/triangles"] = mesh.triangles_F3
        arrays[f"{name}/triangle_uv"] = mesh.triangle_uv_F3
    return arrays


def import_facekit(clone: Path, assets: Path, out: Path) -> None:
    """Write the kit folder `out` from the two clones.

    Raises:
        FaceKitError: a file is missing or wrong; nothing is written then.
    """
    hair = import_hair(assets)  # first: it takes a second, the heads half a minute
    head = import_head(clone)
    try:
        out.mkdir(parents=True, exist_ok=True)
        _save(out / "makehuman_hair.npz", hair)
        _save(out / "ict_face_model_light.npz", head)
    except OSError as error:
        raise FaceKitError(f"{out}: cannot be written: {error.strerror}") from error
    load_facekit(out)


def _require(paths: list[Path], source: str) -> None:
    missing = [path for path in paths if not path.is_file()]
    if missing:
        others = f" and {len(missing) - 1} more files" if len(missing) > 1 else ""
        raise FaceKitError(f"{missing[0]}{others}: missing; give the folder of {source}")


def _read(path: Path) -> ObjMesh:
    try:
        return read_obj(path)
    except ObjError as error:
        raise FaceKitError(str(error)) from error


def _check_topology(mesh: ObjMesh, path: Path) -> None:
    counts = (len(mesh.vertices_V3), len(mesh.uv_U2), len(mesh.triangles_F3))
    expected = (NUM_VERTICES, NUM_UV, NUM_TRIANGLES)
    if counts != expected:
        raise FaceKitError(
            f"{path}: {counts[0]} vertices, {counts[1]} texture points and {counts[2]} triangles; "
            f"the public model has {expected[0]}, {expected[1]} and {expected[2]}"
        )
    if zlib.crc32(mesh.triangles_F3.astype("<i4").tobytes()) != _TRIANGLES_CRC32:
        raise FaceKitError(f"{path}: vertices in another order than the public model's")


def _delta(path: Path, neutral_V3: Floats) -> Floats:
    try:
        vertices_V3 = read_vertices(path)
    except ObjError as error:
        raise FaceKitError(str(error)) from error
    if len(vertices_V3) != len(neutral_V3):
        raise FaceKitError(
            f"{path}: {len(vertices_V3)} vertices; the neutral head has {len(neutral_V3)}"
        )
    delta_V3: Floats = vertices_V3 - neutral_V3
    return delta_V3


def _save(path: Path, arrays: dict[str, Any]) -> None:
    partial = path.with_name(f"{path.name}.part")
    with partial.open("wb") as file:
        np.savez_compressed(file, **arrays)
    partial.replace(path)


def main() -> None:
    """Command line of `python -m training.facekit_import`."""
    parser = argparse.ArgumentParser(description="Make the face kit from public OBJ files.")
    parser.add_argument("--ict", type=Path, required=True, help="a clone of ICT-VGL/ICT-FaceKit")
    parser.add_argument(
        "--hair", type=Path, required=True, help="a clone of makehumancommunity/makehuman-assets"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the kit")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        import_facekit(args.ict, args.hair, args.out)
    except FaceKitError as error:
        parser.error(str(error))
    _LOG.info("%s: ready for --facekit", args.out)


if __name__ == "__main__":
    main()
