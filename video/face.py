"""Where the face is in a picture, and the box that puts it where the model expects it.

The finder uses the Haar cascades that come inside OpenCV's wheel: no download, deterministic,
about a third of a second. It finds upright and tilted (±30°) frontal faces up to three-quarter
view; profiles, masks and many drawings give None. OpenCV is imported nowhere else.

Shape legend: H = height, W = width, C = channels.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from video.crop import Box

Point = tuple[float, float]
Grey = npt.NDArray[np.uint8]
Affine = npt.NDArray[Any]  # 2 x 3

# The alignment rule of the training data, in pixels of a 256 x 256 model picture.
MODEL_SIDE = 256.0
MODEL_CENTRE: Point = (128.0, 136.0)
MODEL_EYE_DISTANCE = 54.0
MODEL_EYE_TO_MOUTH = 56.0

# Search picture, and the normalised face in which eyes and mouth are refined.
_SEARCH_SIDE_PX = 720
_MIN_FACE_PART = 0.06
_FACE_SIDE = 256
# (tilt in degrees, lift the shadows?): the first attempt that sees a face ends the search.
_ATTEMPTS = ((0.0, False), (0.0, True), (-22.0, False), (22.0, False))
# Proportions of a cascade's face box, for eyes that stay hidden (closed, glasses, painted).
_BOX_EYES = ((0.30, 0.40), (0.70, 0.40))
# Eye-to-mouth distance over interocular distance of a face looking at the camera.
_MOUTH_OVER_EYES = 1.10
_EYE_CASCADES = ("eye", "eye_tree_eyeglasses", "lefteye_2splits", "righteye_2splits")


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """Eye centres (left one in the picture first) and mouth centre in pixels; score in 0..1.

    `score` is 1.0 when eyes and mouth were seen, lower when proportions stand in for them.
    """

    eyes: tuple[Point, Point]
    mouth: Point
    score: float

    @property
    def eye_centre(self) -> Point:
        """Midpoint of the eye centres."""
        return _midpoint(*self.eyes)

    @property
    def eye_distance(self) -> float:
        """Interocular distance in pixels."""
        return _distance(*self.eyes)

    @property
    def eye_to_mouth(self) -> float:
        """Distance from the eyes' midpoint to the mouth in pixels."""
        return _distance(self.eye_centre, self.mouth)


def aligned_box(face: Face, size: tuple[int, int] = (256, 256)) -> Box:
    """The source box that shows `face` as the model was taught to see it.

    With E the eyes' midpoint, M the mouth, I the interocular and D the eye-to-mouth distance, a
    256 x 256 picture has (E + M) / 2 at (128, 136) and (I / 54 + D / 56) / 2 = 1: eyes near
    y = 108, mouth near y = 164. Other aspects keep that square and grow it: sideways evenly,
    downwards three parts of four, because below a face there is a person and above it a wall.
    """
    source_per_model = 0.5 * (
        face.eye_distance / MODEL_EYE_DISTANCE + face.eye_to_mouth / MODEL_EYE_TO_MOUTH
    )
    centre_x, centre_y = _midpoint(face.eye_centre, face.mouth)
    side = MODEL_SIDE * source_per_model
    width, height = side * max(1.0, size[0] / size[1]), side * max(1.0, size[1] / size[0])
    left = centre_x - MODEL_CENTRE[0] * source_per_model - (width - side) / 2
    top = centre_y - MODEL_CENTRE[1] * source_per_model - (height - side) / 4
    return Box(x=round(left), y=round(top), width=round(width), height=round(height))


def framed_box(side: int, size: tuple[int, int] = (256, 256)) -> Box:
    """The box of a square picture that shows a face as `aligned_box` would, grown as there."""
    width, height = side * max(1.0, size[0] / size[1]), side * max(1.0, size[1] / size[0])
    left, top = (side - width) / 2, (side - height) / 4
    return Box(x=round(left), y=round(top), width=round(width), height=round(height))


def locate_face(image_HWC: npt.NDArray[np.uint8]) -> Face | None:
    """Find the largest face of an RGB picture, or None.

    The same picture gives the same answer on any number of cores. Never raises on a picture of
    at least 2 x 2 pixels.
    """
    grey, scale = _search_picture(image_HWC)
    with _one_thread():
        for tilt, brighten in _ATTEMPTS:
            to_tilted = _rotation(grey.shape, tilt)
            tilted = grey if tilt == 0.0 else _warp(grey, to_tilted, (grey.shape[1], grey.shape[0]))
            face = _largest_face(_brightened(tilted) if brighten else tilted)
            if face is not None:
                return _mapped(face, cv2.invertAffineTransform(to_tilted), 1.0 / scale)
    return None


def _search_picture(image_HWC: npt.NDArray[np.uint8]) -> tuple[Grey, float]:
    """Grey picture whose longer side is at most the search size, and its scale."""
    height, width = image_HWC.shape[:2]
    scale = min(1.0, _SEARCH_SIDE_PX / max(height, width))
    grey = cv2.cvtColor(np.ascontiguousarray(image_HWC), cv2.COLOR_RGB2GRAY)
    if scale < 1.0:
        wanted = (max(1, round(width * scale)), max(1, round(height * scale)))
        grey = cv2.resize(grey, wanted, interpolation=cv2.INTER_AREA)
    return np.asarray(grey, dtype=np.uint8), scale


def _brightened(grey: Grey) -> Grey:
    """The picture with its shadows lifted (gamma 0.4): brings out dark skin and faces in shade."""
    curve = np.round(255.0 * (np.arange(256) / 255.0) ** 0.4).astype(np.uint8)
    return curve[grey]


def _largest_face(grey: Grey) -> Face | None:
    """The largest box whose eyes are seen; else the largest one on which two cascades agree."""
    smallest = max(24, round(min(grey.shape) * _MIN_FACE_PART))
    boxes = sorted(
        _detect("frontalface_alt2", grey, neighbours=3, smallest=smallest),
        key=lambda box: (-box[2], box),
    )[:6]
    for box in boxes:
        eyes = _find_eyes(grey, box)
        if eyes is not None:
            return _with_mouth(grey, eyes, score=0.9)
    others = _detect("frontalface_default", grey, neighbours=4, smallest=smallest)
    for x, y, side, _ in boxes:
        if any(_overlap((x, y, side, side), other) > 0.5 for other in others):
            left, right = ((x + fx * side, y + fy * side) for fx, fy in _BOX_EYES)
            return _with_mouth(grey, (left, right), score=0.5)
    return None


def _find_eyes(grey: Grey, box: tuple[int, int, int, int]) -> tuple[Point, Point] | None:
    """Both eye centres inside a face box, or None when either stays unseen."""
    x, y, side, _ = box
    scale = _FACE_SIDE / side
    to_face = np.array([[scale, 0.0, -x * scale], [0.0, scale, -y * scale]])
    face = _warp(grey, to_face, (_FACE_SIDE, _FACE_SIDE))
    top = round(0.16 * _FACE_SIDE)
    band = face[top : round(0.62 * _FACE_SIDE)]
    seen: tuple[list[Point], list[Point]] = ([], [])
    for name in _EYE_CASCADES:
        for ex, ey, ew, eh in _detect(name, band, neighbours=4, smallest=30, largest=110):
            centre = (ex + ew / 2, top + ey + eh * 0.55)
            seen[0 if centre[0] < _FACE_SIDE / 2 else 1].append(centre)
    if not seen[0] or not seen[1]:
        return None
    left, right = (_pupil(face, _median(points)) for points in seen)
    if not _plausible_eyes(left, right):
        return None
    return (
        (x + left[0] / scale, y + left[1] / scale),
        (x + right[0] / scale, y + right[1] / scale),
    )


def _plausible_eyes(left: Point, right: Point) -> bool:
    """Whether two points of the normalised face can be its eyes: apart, and about level."""
    across, down = (right[0] - left[0]) / _FACE_SIDE, (right[1] - left[1]) / _FACE_SIDE
    return 0.22 <= across <= 0.62 and abs(down) <= 0.6 * across


def _pupil(face: Grey, guess: Point) -> Point:
    """The eye's centre: the centroid of what is dark near `guess` in the normalised face."""
    half_x, half_y = 22, 12
    x0 = min(max(round(guess[0]) - half_x, 0), _FACE_SIDE - 2 * half_x)
    y0 = min(max(round(guess[1]) - half_y, 0), _FACE_SIDE - 2 * half_y)
    patch = face[y0 : y0 + 2 * half_y, x0 : x0 + 2 * half_x].astype(np.float64)
    dark = np.clip(np.quantile(patch, 0.35) - patch, 0.0, None)
    ys, xs = np.mgrid[y0 : y0 + 2 * half_y, x0 : x0 + 2 * half_x] + 0.5
    # A prior around the guess keeps lashes, brows and frames of glasses from pulling it away.
    dark *= np.exp(-(((xs - guess[0]) / 14) ** 2 + ((ys - guess[1]) / 8) ** 2) / 2)
    weight = dark.sum()
    if weight <= 0.0:
        return guess
    return (float((dark * xs).sum() / weight), float((dark * ys).sum() / weight))


def _with_mouth(grey: Grey, eyes: tuple[Point, Point], score: float) -> Face:
    """Add the mouth: seen below the levelled eyes, else where proportions put it."""
    to_level = _levelling(eyes)
    level = _warp(grey, to_level, (_FACE_SIDE, _FACE_SIDE))
    expected = (_FACE_SIDE / 2, _LEVEL_EYE_Y + _MOUTH_OVER_EYES * _LEVEL_EYE_DISTANCE)
    seen = _find_mouth(level, expected)
    mouth = _apply(cv2.invertAffineTransform(to_level), seen or expected)
    return Face(eyes=eyes, mouth=mouth, score=score + (0.1 if seen else 0.0))


_LEVEL_EYE_Y = 84.0
_LEVEL_EYE_DISTANCE = 84.0


def _levelling(eyes: tuple[Point, Point]) -> Affine:
    """Similarity that puts the eyes level, a fixed distance apart, centred, in a 256 square."""
    (lx, ly), (rx, ry) = eyes
    across, down = rx - lx, ry - ly
    length_squared = across * across + down * down
    cos, sin = (
        across * _LEVEL_EYE_DISTANCE / length_squared,
        -down * _LEVEL_EYE_DISTANCE / length_squared,
    )
    cx, cy = _midpoint(*eyes)
    return np.array(
        [
            [cos, -sin, _FACE_SIDE / 2 - cos * cx + sin * cy],
            [sin, cos, _LEVEL_EYE_Y - sin * cx - cos * cy],
        ]
    )


def _find_mouth(level: Grey, expected: Point) -> Point | None:
    """The mouth's centre in the levelled face, from the smile cascade's boxes near `expected`.

    The cascade also answers to chins and nostrils, so boxes count the less the farther they are
    from where proportions expect a mouth, and the expectation counts as one more box.
    """
    top = round(expected[1] - 52)
    found = _detect("smile", level[top:], neighbours=4, smallest=36, largest=120)
    centres = np.array([(x + w / 2, top + y + h * 0.5) for x, y, w, h in found]).reshape(-1, 2)
    distances = np.abs(centres - expected)
    near = np.all(distances <= 26, axis=1)
    if not near.any():
        return None
    weights = np.exp(-((distances[near] / (14, 10)) ** 2).sum(axis=1) / 2)
    x, y = (weights @ centres[near] + np.array(expected)) / (weights.sum() + 1.0)
    return (float(x), float(y))


def _detect(
    name: str, grey: Grey, *, neighbours: int, smallest: int, largest: int | None = None
) -> list[tuple[int, int, int, int]]:
    """Boxes (x, y, width, height) one cascade finds, in a fixed order."""
    limit = (0, 0) if largest is None else (largest, largest)
    found = _cascade(name).detectMultiScale(
        grey,
        scaleFactor=1.06,
        minNeighbors=neighbours,
        minSize=(smallest, smallest if name != "smile" else smallest // 2),
        maxSize=limit,
    )
    return sorted((int(x), int(y), int(w), int(h)) for x, y, w, h in found)


@cache
def _cascade(name: str) -> cv2.CascadeClassifier:
    """One of the cascades inside OpenCV's wheel."""
    path = Path(cv2.__file__).parent / "data" / f"haarcascade_{name}.xml"
    return cv2.CascadeClassifier(str(path))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let OpenCV use one thread meanwhile: its threads change the order boxes are merged in."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _rotation(shape: tuple[int, ...], degrees: float) -> Affine:
    """Rotation about the picture's centre."""
    centre = (shape[1] / 2, shape[0] / 2)
    return np.asarray(cv2.getRotationMatrix2D(centre, degrees, 1.0), dtype=np.float64)


def _warp(grey: Grey, matrix: Affine, size: tuple[int, int]) -> Grey:
    """The picture under an affine map, edges repeated outside it."""
    warped = cv2.warpAffine(
        grey, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(warped, dtype=np.uint8)


def _mapped(face: Face, matrix: Affine, scale: float) -> Face:
    """The face in the coordinates of the source picture."""

    def move(point: Point) -> Point:
        x, y = _apply(matrix, point)
        return (x * scale, y * scale)

    left, right = (move(eye) for eye in face.eyes)
    return Face(eyes=(left, right), mouth=move(face.mouth), score=face.score)


def _apply(matrix: Affine, point: Point) -> Point:
    """One point under an affine map."""
    x, y = matrix @ np.array([point[0], point[1], 1.0])
    return (float(x), float(y))


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """Intersection over union of two boxes (x, y, width, height)."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(0, width) * max(0, height)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def _median(points: list[Point]) -> Point:
    """The median of each coordinate: one stray box among several does not move it."""
    x, y = np.median(np.array(points), axis=0)
    return (float(x), float(y))


def _midpoint(a: Point, b: Point) -> Point:
    return ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2)


def _distance(a: Point, b: Point) -> float:
    return float(np.hypot(a[0] - b[0], a[1] - b[1]))
