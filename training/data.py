"""Make and look at training clips: `viva data make|show|portraits`.

A shard `clips_NNNNN.npz` stacks 16 records of `training.clip` along a leading clip axis,
uncompressed. Every clip follows from (seed, clip index) alone (its sound up to the
synthesiser's running phases), so shards can be made in any order,
by any number of processes, and existing ones are skipped.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from training.clip import (
    FPS,
    LEAD_SAMPLES,
    NUM_FRAMES,
    SAMPLE_RATE,
    TAIL_SAMPLES,
    Record,
    Script,
    render_clip,
)
from training.corpus import Heard, make_utterance, read_corpus
from training.domain import Person, Renderer
from training.drawn_renderer import DrawnRenderer
from training.errors import InputError
from training.facekit import Array, FaceKitError
from training.performance import perform
from training.portraits import draw_portraits
from training.renderer import HeadRenderer
from training.shards import read_shard, shard_paths
from training.texts import Split

CLIPS_PER_SHARD = 16
DROWSY_SHARE = 0.15
SOUGHT_BLINK_SHARE = 0.5


def write_script(
    rng: np.random.Generator,
    split: Split,
    names: Sequence[str],
    spoken: Sequence[Heard] = (),
) -> Script:
    """Speak a fresh utterance or choose a spoken one, perform it, and cut 48 frames."""
    samples_T, visemes_VT = (
        spoken[int(rng.integers(len(spoken)))] if spoken else make_utterance(rng, split)
    )
    short = NUM_FRAMES * 4 - visemes_VT.shape[1]
    if short > 0:
        visemes_VT = np.pad(visemes_VT, ((0, 0), (0, short + 8)))
    drowsy = rng.random() < DROWSY_SHARE
    performance = perform(visemes_VT, rng, fps=FPS, names=names, drowsy=drowsy)
    start = choose_window(performance.blink_T, rng)
    window = slice(start, start + NUM_FRAMES)
    return Script(
        expression_TE=performance.expression_TE[window],
        visemes_TV=performance.visemes_TV[window],
        blink_T=performance.blink_T[window],
        gaze_T2=performance.gaze_T2[window],
        pose_T6=performance.pose_T6[window],
        speaking_E=speaking_frame(performance.expression_TE, names, rng),
        samples_T=cut_sound(samples_T, start),
    )


def choose_window(blink_T: Array, rng: np.random.Generator) -> int:
    """First frame of a window; half of all windows are chosen around a full blink.

    Of the others about two in five hold one by chance, so that about 70 % of all do.
    """
    last = max(len(blink_T) - NUM_FRAMES, 0)
    start = int(rng.integers(0, last + 1))
    shut = np.flatnonzero(np.asarray(blink_T) >= 1)
    if rng.random() >= SOUGHT_BLINK_SHARE or not len(shut):
        return start
    middle = int(shut[rng.integers(len(shut))])
    low, high = max(middle - NUM_FRAMES + 6, 0), min(middle - 5, last)
    return int(rng.integers(low, high + 1)) if low <= high else start


def speaking_frame(expression_TE: Array, names: Sequence[str], rng: np.random.Generator) -> Array:
    """The frame whose jaw is nearest to one drawn between shut and the widest of all."""
    jaw_T = expression_TE[:, names.index("jawOpen")]
    wanted = rng.uniform(0, float(jaw_T.max()))
    near = np.argsort(np.abs(jaw_T - wanted), kind="stable")[:3]
    frame: Array = expression_TE[int(near[rng.integers(len(near))])]
    return frame


def cut_sound(samples_T: Array, start_frame: int) -> np.ndarray:
    """Samples i16 from 0.5 s before the frame to 0.2 s after the window, silence outside."""
    per_frame = SAMPLE_RATE // FPS
    length = LEAD_SAMPLES + NUM_FRAMES * per_frame + TAIL_SAMPLES
    first = start_frame * per_frame - LEAD_SAMPLES
    sound = np.zeros(length, np.int16)
    low, high = max(first, 0), min(first + length, len(samples_T))
    if high > low:
        scaled = np.clip(samples_T[low:high], -1, 1) * 32767
        sound[low - first : high - first] = np.rint(scaled).astype(np.int16)
    return sound


def make_clip(
    renderer: Renderer[Person],
    seed: int,
    index: int,
    split: Split = "train",
    spoken: Sequence[Heard] = (),
) -> Record:
    """The clip of a seed and index; its voice comes from the split, or from what was spoken."""
    names = renderer.kit.expression_names
    script = write_script(np.random.default_rng((seed, index, 0)), split, names, spoken)
    return render_clip(renderer, script, np.random.default_rng((seed, index, 1)))


def open_domain(domain: str, facekit: Path | None) -> Renderer[Any]:
    """The renderer of a domain: `heads` need the face kit, `drawn` characters nothing.

    Raises:
        FaceKitError: heads without a kit.
        RendererError: OpenGL cannot start.
    """
    if domain == "drawn":
        return DrawnRenderer()
    if facekit is None:
        raise FaceKitError("heads need the face kit; pass --facekit DIR or --domain drawn")
    return HeadRenderer(facekit)


def make(options: argparse.Namespace) -> None:
    """Write the missing shards, one after another until the minutes are over."""
    options.out.mkdir(parents=True, exist_ok=True)
    deadline_s = time.monotonic() + options.minutes * 60.0
    spoken = read_corpus(options.corpus) if options.corpus is not None else []
    renderer = open_domain(options.domain, options.facekit)
    shards = range(options.first // CLIPS_PER_SHARD, -(-options.clips // CLIPS_PER_SHARD))
    for shard in shards:
        path = options.out / f"clips_{shard:05d}.npz"
        if path.exists():
            continue
        if time.monotonic() >= deadline_s:
            return
        began = time.process_time()
        indices = range(shard * CLIPS_PER_SHARD, min((shard + 1) * CLIPS_PER_SHARD, options.clips))
        clips = [make_clip(renderer, options.seed, i, options.split, spoken) for i in indices]
        write_shard(path, clips)
        each = (time.process_time() - began) / len(indices)
        print(f"{path.name}: {len(indices)} clips, {each:.2f} CPU s each", flush=True)  # noqa: T201 - progress


def write_shard(path: Path, records: list[Record]) -> None:
    """Stack records and put the file in place at once, so that readers never see half of it."""
    stacked = {name: np.stack([record[name] for record in records]) for name in records[0]}
    partial = path.with_suffix(f".part{os.getpid()}")
    with partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **stacked)
    partial.replace(path)


def show(options: argparse.Namespace) -> None:
    """Write a contact sheet: reference, group frames, size of flow, hidden share."""
    paths = shard_paths(options.folder)
    rows: list[np.ndarray] = []
    for path in reversed(paths):
        wanted = read_shard(path, ("ref_rgb", "rgb", "flow128", "occl128"))
        for clip in range(len(wanted["ref_rgb"])):
            rows.append(_sheet_row({name: values[clip] for name, values in wanted.items()}))
        if len(rows) >= options.rows:
            break
    sheet = np.concatenate(rows[: options.rows])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    try:
        Image.fromarray(sheet).save(options.out)
    except ValueError as error:
        raise InputError(f"{options.out} is no kind of picture: name a .png") from error


def _sheet_row(record: Record) -> np.ndarray:
    cells = [record["ref_rgb"]]
    for group in range(0, len(record["rgb"]), 4):
        cells += [record["rgb"][group], record["rgb"][group + 2]]
    flow = record["flow128"][0].astype(np.float32)
    size = np.clip(np.hypot(flow[0], flow[1]) * 12, 0, 255).astype(np.uint8)
    cells += [cv2.cvtColor(_large(size), cv2.COLOR_GRAY2RGB)]
    cells += [cv2.cvtColor(_large(record["occl128"][0]), cv2.COLOR_GRAY2RGB)]
    return np.concatenate(cells, axis=1)


def _large(field: np.ndarray) -> np.ndarray:
    return cv2.resize(field, (256, 256), interpolation=cv2.INTER_NEAREST)


def portraits(options: argparse.Namespace) -> None:
    """Draw the shipped portraits."""
    draw_portraits(options.facekit, options.out)


if __name__ == "__main__":
    from training.commands import main

    main("data")
