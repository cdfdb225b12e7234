"""Colours that creep are held; what moves in the picture is left alone."""

from fractions import Fraction

import numpy as np
import pytest

from video.chunk import VideoChunk
from video.colour_guard import MAX_SHIFT, ColourGuard
from video.errors import ImageError
from video.label import Label

pytestmark = pytest.mark.unit

FPS = Fraction(5)


def creeping(num_frames: int, per_frame: float) -> VideoChunk:
    """Grey that turns red."""
    frames_THWC = np.full((num_frames, 8, 8, 3), 100.0)
    frames_THWC[..., 0] += per_frame * np.arange(num_frames)[:, None, None]
    return VideoChunk(
        frames_THWC=np.rint(frames_THWC).clip(0, 255).astype(np.uint8), pts=0, time_base=1 / FPS
    )


def test_a_slow_drift_is_taken_back() -> None:
    chunk = creeping(1000, 0.008)
    held = ColourGuard(FPS).corrected(chunk).frames_THWC[..., 0].mean(axis=(1, 2))
    assert chunk.frames_THWC[-1, 0, 0, 0] == 108
    assert np.abs(held - 100).max() <= 1.0


def test_no_more_than_a_little_is_ever_changed() -> None:
    chunk = creeping(1000, 0.1)
    held = ColourGuard(FPS).corrected(chunk).frames_THWC.astype(float)
    assert np.abs(held - chunk.frames_THWC).max() <= MAX_SHIFT + 0.5


def test_it_goes_on_where_another_stopped() -> None:
    chunk = creeping(60, 0.2)
    whole = ColourGuard(FPS).corrected(chunk).frames_THWC
    halves = [
        VideoChunk(frames_THWC=part, pts=pts, time_base=1 / FPS)
        for part, pts in ((chunk.frames_THWC[:31], 0), (chunk.frames_THWC[31:], 31))
    ]
    first, second = ColourGuard(FPS), ColourGuard(FPS)
    one = first.corrected(halves[0]).frames_THWC
    second.import_state(first.export_state())
    two = second.corrected(halves[1]).frames_THWC
    np.testing.assert_array_equal(np.concatenate([one, two]), whole)


def test_a_label_is_drawn_on_every_picture_and_nowhere_else() -> None:
    frames_THWC = np.full((3, 96, 128, 3), 200, np.uint8)
    chunk = VideoChunk(frames_THWC=frames_THWC, pts=0, time_base=1 / FPS)
    drawn = Label("Made by AI", (128, 96)).drawn_on(chunk).frames_THWC
    assert (frames_THWC == 200).all()
    changed = (drawn != 200).any(axis=-1)
    assert changed[:, -4:, :20].any(axis=(1, 2)).all()
    assert not changed[:, : 96 // 2].any()


@pytest.mark.parametrize("text", ["x" * 65, "two\nlines"])
def test_a_label_that_cannot_be_shown_is_refused(text: str) -> None:
    with pytest.raises(ImageError, match="label"):
        Label(text, (128, 96))
