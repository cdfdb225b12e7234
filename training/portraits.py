"""The cast: made-up people who come with the model; the names are file names and stand for nobody.

`draw_portraits` writes `NAME.png` (512 x 512), `thumbnails/NAME.jpg` (128 x 128) and `cast.json`,
a list of objects with name, title, domain and licence in the order of the table. The pictures are
drawn as models see faces and carry the mark that says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from training.camera import Framing
from training.domain import Vocabulary
from training.drawn_renderer import DrawnRenderer
from training.facekit import Array
from training.identity import sample_identity
from training.renderer import HeadRenderer
from video.framed_mark import framed_mark

PORTRAIT_PX, THUMBNAIL_PX = 512, 128
DRAWN_PX = 1536
LICENCES = {
    "heads": "CC0-1.0 (drawn by this project's own renderer; face shapes: ICT-FaceKit, "
    "MIT licence; see NOTICE)",
    "drawn": "Apache-2.0 (drawn by this project's own programs; see LICENSE)",
}
Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class CastMember:
    """One portrait: file name, caption, domain (`heads` or `drawn`), seed and smile (0..1)."""

    name: str
    title: str
    domain: str
    seed: int
    smile: float = 0.4


CAST: tuple[CastMember, ...] = (
    CastMember("ada", "Ada, long fair hair", "heads", 441),
    CastMember("bruno", "Bruno, cropped dark hair", "heads", 407),
    CastMember("chioma", "Chioma, black bob with a fringe", "heads", 430),
    CastMember("dev", "Dev, greying side parting", "heads", 422),
    CastMember("greta", "Greta, silver bob", "heads", 416),
    CastMember("hana", "Hana, long black hair with a fringe", "heads", 414, smile=0.3),
    CastMember("kofi", "Kofi, short cropped hair", "heads", 419, smile=0.3),
    CastMember("iris", "Iris, turquoise with a violet bob", "drawn", 106),
    CastMember("leo", "Leo, brown curls and a green collar", "drawn", 102),
    CastMember("mina", "Mina, glasses and a bun", "drawn", 305),
    CastMember("zoe", "Zoe, green eyes and a ponytail", "drawn", 104),
)


def draw_portraits(facekit_dir: Path, folder: Path, cast: Iterable[CastMember] = CAST) -> None:
    """Write the cast's pictures, thumbnails and list; only 3-D heads need the face kit.

    Raises:
        FaceKitError: the folder lacks the kit.
        RendererError: OpenGL cannot start.
    """
    (folder / "thumbnails").mkdir(parents=True, exist_ok=True)
    members = list(cast)
    # One domain after the other: each renderer owns an OpenGL context.
    if heads := [member for member in members if member.domain == "heads"]:
        renderer = HeadRenderer(facekit_dir, size=PORTRAIT_PX)
        for member in heads:
            write_portrait(folder, member, draw_head(renderer, member))
    if drawn := [member for member in members if member.domain == "drawn"]:
        drawing = DrawnRenderer(PORTRAIT_PX)
        for member in drawn:
            write_portrait(folder, member, draw_character(drawing, member))
    write_list(folder, members)


def write_portrait(folder: Path, member: CastMember, picture: Picture) -> None:
    """Write a member's PNG, marked as framed, and thumbnail."""
    path = folder / f"{member.name}.png"
    Image.fromarray(picture).save(path, optimize=True, pnginfo=framed_mark())
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    small = cv2.resize(bgr, (THUMBNAIL_PX, THUMBNAIL_PX), interpolation=cv2.INTER_AREA)
    thumbnail = folder / "thumbnails" / f"{member.name}.jpg"
    cv2.imwrite(str(thumbnail), small, [cv2.IMWRITE_JPEG_QUALITY, 90])


def write_list(folder: Path, cast: Iterable[CastMember]) -> None:
    """Write `cast.json`."""
    entries = [
        {
            "name": member.name,
            "title": member.title,
            "domain": member.domain,
            "licence": LICENCES[member.domain],
        }
        for member in cast
    ]
    (folder / "cast.json").write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")


def draw_head(renderer: HeadRenderer, member: CastMember) -> Picture:
    """One 3-D person looking at the camera, canonical framing, [size, size, 3] u8."""
    return draw_portrait(renderer, member.seed, member.smile)


def draw_portrait(
    renderer: HeadRenderer, seed: int, smile: float = 0.4, samples: int = DRAWN_PX
) -> Picture:
    """The person of a seed with the trace of a smile; shapes a little nearer to the mean."""
    identity = sample_identity(np.random.default_rng(seed))
    identity = replace(identity, weights_K=identity.weights_K * 0.8)
    weights_E = smiling(renderer.kit, smile)
    scene = renderer.begin(identity, Framing(distance_cm=95), weights_E)
    try:
        return scene.picture(weights_E, samples=samples)
    finally:
        scene.close()


def draw_character(renderer: DrawnRenderer, member: CastMember) -> Picture:
    """One drawn character looking at the camera, canonical framing, [size, size, 3] u8."""
    person = renderer.sample(np.random.default_rng(member.seed))
    weights_E = smiling(renderer.kit, member.smile)
    scene = renderer.begin(person, Framing(), weights_E)
    try:
        return scene.picture(weights_E, samples=DRAWN_PX)
    finally:
        scene.close()


def smiling(kit: Vocabulary, smile: float) -> Array:
    """Expression weights of a smile of 0..1, the eyes taking part."""
    weights_E = np.zeros(len(kit.expression_names), np.float32)
    for side in "LR":
        weights_E[kit.expression_index(f"mouthSmile_{side}")] = smile
        weights_E[kit.expression_index(f"eyeSquint_{side}")] = 0.5 * smile
    return weights_E
