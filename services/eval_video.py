"""Measures any video: does the mouth follow the sound, does the picture stay what it was?

One pass over the pictures and one over the sound, in memory that does not depend on their length
but for a few numbers a frame. What cannot be measured (no face, no sound) is left out and counts
as missed.

Shape legend: T = video frames, H, W = picture, C = colours.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from audio.envelope import Envelope, streamed_band_power
from audio.source import FileSource
from pipeline.gates import missed
from services.render import Progress
from services.truth_file import read_truth
from services.video_figures import (
    Figures,
    picture_figures,
    portrait_figures,
    sound_figures,
    truth_figures,
)
from services.video_watch import VideoWatch
from video.crop import Box, Crop, centred_box
from video.errors import MovieError
from video.face import aligned_box, framed_box, locate_face
from video.framing import FRAMED_SIDE_PX
from video.identity import Description, describe_face
from video.movie import Movie, open_movie
from video.reference import load_portrait
from video.sharpness import sharpness

LOOKS, LOOK_EVERY_S = 6, 0.4  # how often a face is looked for at the start
MIN_FRAMES = 12
MODEL_SHAPE = (256, 256)
Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoRequest:
    """What to measure, and what is known of it: sound, reference, truth, portrait where given."""

    video: Path
    audio: Path | None = None
    reference: Path | None = None
    truth: Path | None = None
    portrait: Path | None = None
    crop: Crop = field(default_factory=Crop)


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoResult:
    """What was measured; `kinds` names the limits that apply (`pipeline/gates.py`).

    `face` says how it was found. `power_T` and `truth_T` are None where they are not known.
    """

    movie: Movie
    face: str
    figures: Figures
    kinds: tuple[str, ...]
    watch: VideoWatch
    power_T: Envelope | None
    truth_T: npt.NDArray[np.float64] | None

    @property
    def missed(self) -> list[str]:
        """The figures outside their limits, or not measured."""
        return [name for kind in self.kinds for name in missed(kind, self.figures)]


def measure_video(request: VideoRequest, on_progress: Progress) -> VideoResult:
    """Measure one video; `on_progress` takes pictures done, expected and their rate.

    Raises:
        AudioError, ImageError, MovieError, OptionError: an input cannot be used.
    """
    movie = open_movie(request.video)
    power_T = _sound(request, movie)
    face, box = find_face(movie, request.crop)
    watch = VideoWatch(movie.fps, box)
    reference = None if request.reference is None else _matching(movie, request.reference)
    for frame, other in _pairs(movie, reference):
        watch.push(frame, other)
        on_progress(watch.num_frames, movie.num_frames, movie.fps)
    if watch.num_frames < MIN_FRAMES:
        raise MovieError(
            f"{movie.path} has {watch.num_frames} frames: at least {MIN_FRAMES} needed"
        )
    watch.finish()
    figures, kinds = picture_figures(watch), ["video"]
    if request.portrait is not None and box is not None:
        figures |= portrait_figures(
            watch, *read_portrait(request.portrait, request.crop, box, watch)
        )
    kinds += ["video_portrait"] if request.portrait is not None else []
    kinds += ["video_reference"] if reference is not None else []
    truth_T = None
    if power_T is not None:
        power_T = np.pad(power_T, (0, max(0, watch.num_frames - len(power_T))))[: watch.num_frames]
        kinds.append("video_sound")
        figures |= sound_figures(watch.opening, power_T, movie.fps) if watch.has_face else {}
    if request.truth is not None:
        truth_T = read_truth(request.truth, watch.num_frames)
        kinds.append("video_truth")
        figures |= truth_figures(watch.opening, truth_T, movie.fps) if watch.has_face else {}
    return VideoResult(
        movie=movie,
        face=face,
        figures={name: round(value, 4) for name, value in figures.items()},
        kinds=tuple(kinds),
        watch=watch,
        power_T=power_T,
        truth_T=truth_T,
    )


def find_face(movie: Movie, crop: Crop) -> tuple[str, Box | None]:
    """Where the face is in the first frame, and how that is known.

    "found" by the face finder, "given" by the crop, "assumed" where nothing was found in a small
    square video, framed as a model's own are (drawings are often missed), "none".
    """
    size = (movie.width, movie.height)
    if crop.mode == "center":
        return "given", centred_box(size, MODEL_SHAPE)
    if crop.mode == "none":
        return "given", Box(x=0, y=0, width=movie.width, height=movie.height)
    if crop.box is not None:
        return "given", crop.box
    step = max(1, round(LOOK_EVERY_S * movie.fps))
    for frame_HWC in islice(movie.frames(), 0, LOOKS * step, step):
        face = locate_face(frame_HWC)
        if face is not None:
            return "found", aligned_box(face)
    if movie.width == movie.height <= FRAMED_SIDE_PX:
        return "assumed", framed_box(movie.width)
    return "none", None


def read_portrait(path: Path, crop: Crop, box: Box, watch: VideoWatch) -> tuple[Description, float]:
    """Describe a portrait as the frames of a watched video show it, and say how sharp it is.

    Raises:
        ImageError: the portrait cannot be used.
    """
    crop = crop if crop.mode != "box" else Crop()
    image_CHW = load_portrait(path, size=(box.width, box.height), crop=crop).image_CHW
    pixels = ((image_CHW.permute(1, 2, 0).numpy() + 1.0) * 127.5).round().astype(np.uint8)
    view = watch.align(Image.fromarray(pixels))
    if view is None:
        return np.zeros(0), 0.0
    return describe_face(view.grey), sharpness(view.native_grey)


def _sound(request: VideoRequest, movie: Movie) -> Envelope | None:
    """Power of the voice at each frame; None without sound."""
    if request.audio is None and not movie.has_sound:
        return None
    source = FileSource(request.audio or movie.path)
    power_T = streamed_band_power(source.chunks(), source.sample_rate, movie.fps)
    late = 0 if request.audio is not None else round(movie.starts_s * movie.fps)
    return power_T[late:] if late >= 0 else np.pad(power_T, (-late, 0))


def _matching(movie: Movie, path: Path) -> Movie:
    """The video to hold it against.

    Raises:
        MovieError: it is of another size or rate.
    """
    other = open_movie(path)
    mine, theirs = ((m.width, m.height, m.fps) for m in (movie, other))
    if mine != theirs:
        raise MovieError(
            f"--reference {path} is {theirs[0]}x{theirs[1]} at {theirs[2]} fps, {movie.path} "
            f"{mine[0]}x{mine[1]} at {mine[2]}: give a video of the same size and rate"
        )
    return other


def _pairs(movie: Movie, reference: Movie | None) -> Iterator[tuple[Picture, Picture | None]]:
    """Each frame, and the reference's at the same place as long as it lasts."""
    if reference is None:
        return ((frame, None) for frame in movie.frames())
    others: Iterator[Picture | None] = chain(reference.frames(), iter(lambda: None, 0))
    return zip(movie.frames(), others, strict=False)
