"""A line of text in the corner of every picture, for all to see that it was generated.

Shape legend: T = frames, H, W = rows and columns, C = channels.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from video.chunk import VideoChunk
from video.errors import ImageError

MAX_CHARACTERS = 64


class Label:
    """White text on a dark ground, bottom left, for pictures of one size."""

    def __init__(self, text: str, size: tuple[int, int]) -> None:
        """Draw the text once for pictures of width and height `size`.

        Raises:
            ImageError: the text is too long, or has characters that cannot be shown.
        """
        if len(text) > MAX_CHARACTERS or not text.isprintable():
            raise ImageError(
                f"label {text[:40]!r}: write one line of at most {MAX_CHARACTERS} characters"
            )
        width, height = size
        font_px = max(10, height // 24)
        font = ImageFont.load_default(size=font_px)
        box = font.getbbox(text)
        margin = font_px // 3
        if box[2] + 2 * margin > width:
            scale = (width - 2 * margin) / max(box[2], 1)
            font = ImageFont.load_default(size=max(6.0, font_px * scale))
            box = font.getbbox(text)
        ground = (min(width, round(box[2]) + 2 * margin), min(height, round(box[3]) + 2 * margin))
        drawn = Image.new("L", ground, 0)
        ImageDraw.Draw(drawn).text((margin, margin), text, font=font, fill=255)
        self._ink_HW1 = np.asarray(drawn, np.float32)[..., None] / 255.0

    def drawn_on(self, chunk: VideoChunk) -> VideoChunk:
        """The pictures with the text on them."""
        frames_THWC = chunk.frames_THWC.copy()
        rows, columns = self._ink_HW1.shape[:2]
        corner = frames_THWC[:, -rows:, :columns]
        ground = corner.astype(np.float32) * 0.4
        corner[:] = np.rint(ground + (255.0 - ground) * self._ink_HW1).astype(np.uint8)
        return VideoChunk(frames_THWC=frames_THWC, pts=chunk.pts, time_base=chunk.time_base)
