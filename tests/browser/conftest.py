"""Sound that the tests of this folder speak, and where their screenshots go."""

from pathlib import Path

import pytest

from tests.support.wav import speech_wav


@pytest.fixture(scope="session")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine seconds of speech as WAV, for a browser's microphone."""
    return speech_wav(tmp_path_factory.mktemp("sound") / "speech.wav")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder for screenshots, under pytest's temporary folder."""
    return tmp_path_factory.mktemp("screenshots")
