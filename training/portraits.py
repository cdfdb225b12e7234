"""The demo's portraits: four made-up people; the names are file names and stand for nobody."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from training.camera import Framing
from training.identity import sample_identity
from training.renderer import HeadRenderer

PORTRAIT_PX = 512
DRAWN_PX = 1536
SEEDS: dict[str, int] = {"ada": 323, "bruno": 346, "chioma": 302, "dev": 313}


def draw_portraits(facekit_dir: Path, folder: Path) -> None:
    """Write the four PNG files, 512 x 512, canonical framing, looking at the camera."""
    folder.mkdir(parents=True, exist_ok=True)
    renderer = HeadRenderer(facekit_dir, size=PORTRAIT_PX)
    for name, seed in SEEDS.items():
        picture = draw_portrait(renderer, seed)
        bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(folder / f"{name}.png"), bgr, [cv2.IMWRITE_PNG_COMPRESSION, 9])


def draw_portrait(renderer: HeadRenderer, seed: int) -> np.ndarray:
    """One person with the trace of a smile, [size, size, 3] u8."""
    identity = sample_identity(np.random.default_rng(seed))
    identity = replace(identity, weights_K=identity.weights_K * 0.8)
    weights_E = np.zeros(len(renderer.kit.expression_names), np.float32)
    for side in "LR":
        weights_E[renderer.kit.expression_index(f"mouthSmile_{side}")] = 0.4
        weights_E[renderer.kit.expression_index(f"eyeSquint_{side}")] = 0.2
    scene = renderer.begin(identity, Framing(distance_cm=95), weights_E)
    try:
        return scene.picture(weights_E, samples=DRAWN_PX)
    finally:
        scene.close()
