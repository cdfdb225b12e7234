"""One job in a process of its own: `python -m services.render_job ORDER --parent PID`.

ORDER is a JSON file that `job_worker` writes. What happens is told on stdout, one JSON object a
line. The process may be killed at any moment: what is finished is on the disk, and the next one
goes on from there. SIGTERM ends it at the next border between segments.
"""

import argparse
import json
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

from audio.errors import AudioError
from pipeline.errors import ChainError, ModelError, PlanError
from services.captions import CaptionsError, read_words
from services.disk import is_disk_full
from services.job_files import JobFiles
from services.job_order import ORDER, Order
from services.job_queue import JobError
from services.job_request import render_request
from services.job_states import Progress
from services.options import OptionError, RenderRequest
from services.provenance import ProvenanceError, Signing, require_usable, sign
from services.segment_store import stored_file
from services.tether import tie_to_parent
from video.errors import ImageError, RecordError, WeightsError

PREVIEW_S = Fraction(2)
REPORT_EVERY_S = 1.0
# What a file or a choice is to blame for: trying again changes nothing.
BAD_INPUT = (
    *(AudioError, CaptionsError, ChainError, ImageError, JobError, ModelError, OptionError),
    *(PlanError, ProvenanceError, RecordError, WeightsError),
)


Tell = Callable[[Mapping[str, Any]], None]


class Drained(Exception):
    """The process was asked to end, and everything finished is on the disk."""


class _Watch:
    """Tells how far the render is, and ends it at a border when asked to."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._told_at_s = -1.0
        self._is_ending = False

    def end(self, signum: int, frame: object) -> None:
        """Have the next border be the last."""
        del signum, frame
        self._is_ending = True

    def check(self) -> None:
        """Nothing: who wants the process to stop at once kills it."""

    def at_border(self) -> None:
        """Leave, if that was asked for."""
        if self._is_ending:
            raise Drained

    def report(self, progress: Progress) -> None:
        """Tell how far the render is, now and then."""
        now_s = time.monotonic()
        if now_s - self._told_at_s >= REPORT_EVERY_S:
            self._told_at_s = now_s
            self._tell({"progress": asdict(progress)})


def main() -> NoReturn:
    """Do the job and exit; the reason of a failure is on stdout."""
    parser = argparse.ArgumentParser(prog="render_job")
    parser.add_argument("order", type=Path)
    parser.add_argument("--parent", type=int, required=True)
    arguments = parser.parse_args()
    tie_to_parent(arguments.parent)
    watch = _Watch(_tell)
    signal.signal(signal.SIGTERM, watch.end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who watches decides
    order = ORDER.validate_json(arguments.order.read_bytes())
    _tell(outcome(order, watch, _tell))
    sys.exit(0)


def _tell(message: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def outcome(order: Order, watch: _Watch, tell: Tell) -> dict[str, Any]:
    """Do the job; returns its result, or why there is none."""
    from services.long_render import FolderBusy

    try:
        return {"done": _done(order, watch, tell)}
    except Drained:
        return {"drained": True}
    except BAD_INPUT as error:
        if is_disk_full(error.__cause__ or error):
            return _disk_full(order)
        return _failure("INPUT_UNREADABLE", str(error), for_good=True)
    except FolderBusy as error:
        return _failure("FOLDER_BUSY", str(error), is_blameless=True)
    except OSError as error:
        if is_disk_full(error):
            return _disk_full(order)
        return _failure("STORAGE", f"{type(error).__name__}: {error.strerror or error}")
    except Exception as error:  # noqa: BLE001 - told to who watches, who tries again
        return _failure("INTERNAL", f"{type(error).__name__}: {error}")


def _disk_full(order: Order) -> dict[str, Any]:
    free = shutil.disk_usage(order.data).free >> 20
    return _failure(
        "DISK_FULL",
        f"the disk is full ({free} MiB free): free some space, and the job goes on by itself from "
        "its last segment",
        is_blameless=True,
    )


def _failure(reason: str, detail: str, **how: bool) -> dict[str, Any]:
    return {"failed": {"reason": reason, "detail": " ".join(detail.split())[:500], **how}}


def _done(order: Order, watch: _Watch, tell: Tell) -> dict[str, Any]:
    """Render, sign, deliver."""
    from services.long_render import LongOptions, LongRender

    request, files = order.request, JobFiles(order.data, order.rules)
    if request.sign:
        require_usable(_signing(order))  # said now, not after hours of rendering
    work = files.work(order.job_id)
    work.mkdir(parents=True, exist_ok=True)
    film = work / "film.mp4"
    render = render_request(request, files, film)
    if order.wants_preview:
        _preview(render, files.preview(order.job_id), tell)
    words = read_words(files.input(request.captions)) if request.captions else None
    options = LongOptions(
        segment_s=order.segment_s,
        loudness_lufs=request.loudness_lufs,
        guard_colour=request.guard_colour,
        label=request.label,
    )
    ended = LongRender(render, options, work, watch).run(film, words)
    tell({"progress": asdict(ended)})
    if request.sign:
        film = _signed(order, film)
    return _delivered(order, files, film)


def _preview(render: RenderRequest, path: Path, tell: Tell) -> None:
    """Show the first seconds, small, before anything else; a plan may have no preview."""
    from pipeline.model import read_config
    from services.plan_choice import chosen_plan
    from services.render import render as render_video

    if not path.exists():
        plan = chosen_plan(render.plan, render.mode, read_config(render.model)[1].plan)
        step = len(plan.steps) - 1 if len(plan.steps) <= 8 else len(plan.steps) // 3
        clip = replace(
            render,
            out=path,
            preview=step,
            frame="face",
            size=None,
            max_seconds=PREVIEW_S,
            overwrite=True,
        )
        try:
            render_video(clip, lambda *_: None)
        except (ModelError, OptionError, PlanError, ValueError) as error:
            tell({"note": f"no preview: {error}"})
            return
    tell({"preview": str(path)})


def _signing(order: Order) -> Signing:
    """What films are signed with.

    Raises:
        ProvenanceError: there is nothing.
    """
    if order.signing is None:
        raise ProvenanceError("this server has no certificate to sign with: leave sign out")
    return order.signing


def _signed(order: Order, film: Path) -> Path:
    """The film with its manifest."""
    signed = film.with_name("signed.mp4")
    sign(film, signed, _signing(order), title=order.request.labels.get("title", order.job_id))
    return signed


def _delivered(order: Order, files: JobFiles, film: Path) -> dict[str, Any]:
    """Put the film where it belongs, with its captions beside it."""
    stored = stored_file(film)
    target = files.film(order.job_id)
    url = order.request.output_url
    if url:
        files.require_allowed(url, "output_url")
        files.deliver(film, url)
    film.replace(target)
    if order.request.captions:
        shutil.copyfile(files.input(order.request.captions), files.captions(order.job_id))
        if url:
            files.deliver(files.captions(order.job_id), f"{url.removesuffix('.mp4')}.vtt")
    return {"url": url or str(target), "num_bytes": stored.num_bytes, "sha256": stored.sha256}


if __name__ == "__main__":
    main()
