"""Pictures that say what they are: a flash and an open mouth for a beep, and a bar code.

The bar code fills the lowest three sixteenths: three rows of 16 cells, white for 1 and black for 0,
the most significant bit first: the index (modulo 65536); epoch and session (8 bits each); and the
exclusive or of both rows, inverted, by which a reader knows that it read well. It is read again
after a video codec and at any size. Beside it nothing is drawn but a face's mouth.
"""

import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]  # HWC, RGB
Sound = npt.NDArray[np.int16]  # T

GREY, WHITE, BLACK = 96, 255, 0
_CELLS, _ROWS = 16, 3
# A beep is 0.3 to 0.9 of full scale; what hisses or murmurs below this is none.
BEEP_RMS = 0.05 * 32768
_FLASH_LUMA = 176


@dataclass(frozen=True, slots=True)
class Code:
    """What a bar code says; `session` is `session_number` of its name."""

    index: int
    epoch: int
    session: int


def session_number(session: str) -> int:
    """A session's name as a number of 8 bits."""
    return zlib.crc32(session.encode()) & 0xFF


def has_beep(sound_T: Sound) -> bool:
    """Whether a frame's sound is loud."""
    if not sound_T.size:
        return False
    return float(np.sqrt(np.mean(sound_T.astype(np.float32) ** 2))) > BEEP_RMS


def draw(code: Code, *, is_flash: bool, height: int = 256, width: int = 256) -> Picture:
    """A picture with this bar code, at least 32 pixels a side."""
    picture_HWC = np.full((height, width, 3), WHITE if is_flash else GREY, np.uint8)
    top, bottom = (10, 12) if is_flash else (11, 11)
    rows = slice(height * top // 16 - height // 64, height * bottom // 16 + height // 64)
    picture_HWC[rows, width * 5 // 16 : width * 11 // 16] = BLACK
    rows_y = np.arange(height * 13 // 16, height)
    cells_y = np.minimum((rows_y * 16 // height) - 13, _ROWS - 1)
    cells_x = np.arange(width) * _CELLS // width
    picture_HWC[rows_y] = (_bits(code)[cells_y][:, cells_x] * WHITE)[..., None]
    return picture_HWC


def read(picture_HWC: Picture) -> Code | None:
    """What the bar code says; None if it is damaged."""
    height, width = picture_HWC.shape[:2]
    luma_HW = picture_HWC.mean(-1)
    bits = np.zeros((_ROWS, _CELLS), np.uint8)
    for row, cell in np.ndindex(_ROWS, _CELLS):
        y, x = height * (2 * (13 + row) + 1) // 32, width * (2 * cell + 1) // 32
        bits[row, cell] = luma_HW[y - 1 : y + 2, x - 1 : x + 2].mean() > 127
    if ((bits[0] ^ bits[1] ^ 1) != bits[2]).any():
        return None
    index, both = (int("".join(map(str, row)), 2) for row in bits[:2])
    return Code(index=index, epoch=both >> 8, session=both & 0xFF)


def is_flash(picture_HWC: Picture) -> bool:
    """Whether the picture flashes."""
    return float(picture_HWC[: picture_HWC.shape[0] // 2].mean()) > _FLASH_LUMA


def beeps(
    sample_rate: int, seconds: float, *, every_s: float = 1.0, beep_ms: int = 80, hertz: float = 880
) -> Sound:
    """Silence with a beep at 0, `every_s`, 2 `every_s` and so on."""
    times_s = np.arange(round(sample_rate * seconds)) / sample_rate
    tone = 0.5 * np.sin(2 * np.pi * hertz * times_s)
    is_on = times_s % every_s < beep_ms / 1000
    return np.round(32767 * tone * is_on).astype(np.int16)


def _bits(code: Code) -> npt.NDArray[np.uint8]:
    """The bar code's cells."""
    index, both = code.index & 0xFFFF, (code.epoch & 0xFF) << 8 | code.session & 0xFF
    words = (index, both, ~(index ^ both) & 0xFFFF)
    return np.array([[int(bit) for bit in f"{word:016b}"] for word in words], np.uint8)
