"""What a job asks for, looked at before it is taken and read again when it is worked on.

Nothing here imports torch, so that a server's border stays light: sound up to ten minutes is read
to its end, longer sound to its header (its end is read before anything is rendered), pictures are
decoded.
"""

import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from audio.errors import AudioError
from audio.source import FileSource, probe
from pipeline.cast import read_cast
from pipeline.catalog import configs_folder, model_path
from services.captions import CaptionsError, read_words
from services.job_files import JobFiles
from services.job_queue import JobRefused, JobRequest, check_words
from services.options import (
    OptionError,
    RenderRequest,
    parse_fps,
    parse_frame,
    parse_mode,
    parse_size,
)
from video.errors import ImageError
from video.face import locate_face
from video.framed_mark import carries_mark
from video.picture import decode_picture, read_picture_file

MAX_SOUND_S = 24 * 3600
READ_WHOLE_S = 600
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def fetched(request: JobRequest, files: JobFiles) -> JobRequest:
    """The request with all it names checked and kept by the server.

    Raises:
        JobRefused: names the field, and says what is wrong with it.
    """
    check_words(request)
    _check_choices(request, files)
    portrait = request.portrait
    if portrait not in _cast(request.model or "pocket"):
        portrait = files.fetch(portrait, "portrait")
    if not request.audio:
        raise JobRefused("audio", "audio is missing: give a sound file")
    audio = files.fetch(request.audio, "audio")
    captions = files.fetch(request.captions, "captions") if request.captions else ""
    if request.output_url:
        files.require_allowed(request.output_url, "output_url")
    kept = replace(request, portrait=portrait, audio=audio, captions=captions)
    _check_inputs(render_request(kept, files, Path("film.mp4")), kept, files)
    return kept


def render_request(request: JobRequest, files: JobFiles, out: Path) -> RenderRequest:
    """A kept request as a render to `out`; empty choices are the model's.

    Raises:
        JobRefused: an input is not there any more, or a choice cannot be.
    """
    model = request.model or "pocket"
    try:
        return RenderRequest(
            portrait=_portrait(request.portrait, model, files),
            audio=files.input(request.audio),
            out=out,
            model=model,
            plan=request.plan or None,
            mode=parse_mode(request.mode) if request.mode else None,
            seed=request.seed,
            size=_size(request),
            fps=parse_fps(str(Fraction(request.fps))) if request.fps else None,
            frame=parse_frame(request.frame) if request.frame else "auto",
        )
    except OptionError as error:
        raise JobRefused(_field(str(error)), str(error)) from error


def _portrait(word: str, model: str, files: JobFiles) -> Path:
    """The portrait's file."""
    return _cast(model).get(word) or files.input(word)


def _cast(model: str) -> dict[str, Path]:
    """The model's own portraits by name."""
    return {member.name: member.path for member in read_cast(model_path(model))}


def _size(request: JobRequest) -> tuple[int, int] | None:
    if not (request.width or request.height):
        return None
    return parse_size(f"{request.width}x{request.height}")


def _field(message: str) -> str:
    """The field that an option's complaint is about."""
    match = re.match(r"--([a-z-]+)", message)
    return match[1].replace("-", "_") if match else "request"


def _check_choices(request: JobRequest, files: JobFiles) -> None:
    """Refuse models and plans that are none of the server's."""
    for field, word, folder in (
        ("model", request.model, configs_folder() / "models"),
        ("plan", request.plan, configs_folder() / "plans"),
    ):
        if not word:
            continue
        named = folder / (word if field == "model" else f"{word}.yaml")
        if not (_NAME.fullmatch(word) and named.exists()):
            if not Path(word).exists():
                raise JobRefused(field, f"there is no {field} {word[:64]!r} here")
            files.require_allowed(word, field)


def _check_face(path: Path) -> None:
    """Refuse a portrait in which the render would find no face.

    Raises:
        ImageError: it is no picture, or there is none.
    """
    picture = decode_picture(read_picture_file(path, "portrait"), "portrait")
    if not carries_mark(picture) and locate_face(np.asarray(picture, np.uint8)) is None:
        raise ImageError("portrait: no face found: give a picture of one face, seen from the front")


def _check_inputs(render: RenderRequest, request: JobRequest, files: JobFiles) -> None:
    """Refuse inputs that cannot be used."""
    try:
        _check_face(render.portrait)
        duration_s = probe(render.audio).duration_s
        if duration_s is not None and duration_s > MAX_SOUND_S:
            raise JobRefused("audio", f"audio lasts over {MAX_SOUND_S} s: cut it into parts")
        if duration_s is not None and duration_s <= READ_WHOLE_S:
            for _ in FileSource(render.audio).chunks():
                pass
    except ImageError as error:
        raise JobRefused("portrait", str(error)) from error
    except AudioError as error:
        raise JobRefused("audio", str(error).replace(str(render.audio), "audio")) from error
    if request.captions:
        try:
            read_words(files.input(request.captions))
        except CaptionsError as error:
            raise JobRefused("captions", str(error)) from error
