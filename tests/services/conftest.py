"""Inputs for the command line: a tiny model, a portrait and speech, all made on the spot."""

import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.tiny_model import build_tiny_model

RATE = 16000


def write_wav(path: Path, samples_T: np.ndarray, rate: int = RATE) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples_T * 32767).astype("<i2").tobytes())
    return path


def noise(seconds: float) -> np.ndarray:
    return 0.1 * np.random.default_rng(2).standard_normal(int(seconds * RATE))


def picture(width: int = 96, height: int = 96) -> Image.Image:
    pixels = np.random.default_rng(3).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("portraits") / "face.png"
    picture().save(path)
    return path


@pytest.fixture(scope="session")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wav(tmp_path_factory.mktemp("sounds") / "speech.wav", noise(0.6))
