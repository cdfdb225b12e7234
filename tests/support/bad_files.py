"""Files that a user might hand over by mistake or in malice; each maker writes one in a folder."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from tests.services.conftest import noise, picture, write_wav


def missing(folder: Path) -> Path:
    return folder / "absent.bin"


def empty(folder: Path) -> Path:
    path = folder / "empty.bin"
    path.touch()
    return path


def prose(folder: Path) -> Path:
    path = folder / "prose.txt"
    path.write_text("Once upon a time. " * 200)
    return path


def a_folder(folder: Path) -> Path:
    path = folder / "inner"
    path.mkdir()
    return path


def truncated_wav(folder: Path) -> Path:
    path = write_wav(folder / "cut.wav", noise(2.0))
    os.truncate(path, path.stat().st_size // 2)
    return path


def zero_length_wav(folder: Path) -> Path:
    return write_wav(folder / "none.wav", np.zeros(0))


def ten_hours(folder: Path) -> Path:
    """A sparse file: 8 kHz, 8 bit, 36000 s."""
    path, num_bytes = folder / "long.wav", 36000 * 8000
    header = b"RIFF" + struct.pack("<I", 36 + num_bytes) + b"WAVEfmt "
    header += struct.pack("<IHHIIHH", 16, 1, 1, 8000, 8000, 1, 8)
    path.write_bytes(header + b"data" + struct.pack("<I", num_bytes))
    os.truncate(path, 44 + num_bytes)
    return path


def nan_wav(folder: Path) -> Path:
    """32-bit float, two seconds of sound, then NaN: found only while rendering."""
    samples_T = np.concatenate([noise(2.0), np.full(16000, np.nan)]).astype("<f4")
    data = samples_T.tobytes()
    header = b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVEfmt "
    header += struct.pack("<IHHIIHH", 16, 3, 1, 16000, 64000, 4, 32)
    path = folder / "nan.wav"
    path.write_bytes(header + b"data" + struct.pack("<I", len(data)) + data)
    return path


def all_nan_wav(folder: Path) -> Path:
    path = nan_wav(folder)
    data = bytearray(path.read_bytes())
    data[44:] = np.full((len(data) - 44) // 4, np.nan, "<f4").tobytes()
    path.write_bytes(bytes(data))
    return path


def silent_film(folder: Path) -> Path:
    """A picture where sound is wanted."""
    path = folder / "picture.png"
    picture().save(path)
    return path


def a_pipe(folder: Path) -> Path:
    """Nobody writes to it: reading would wait for ever."""
    path = folder / "pipe.bin"
    os.mkfifo(path)
    return path


def endless(folder: Path) -> Path:
    path = folder / "zeros.bin"
    path.symlink_to("/dev/zero")
    return path


def a_loop(folder: Path) -> Path:
    path = folder / "loop.bin"
    path.symlink_to(path)
    return path


def long_name(folder: Path) -> Path:
    return folder / ("n" * 300)


ANY_FILE = [missing, empty, prose, a_folder, a_pipe, endless, a_loop, long_name]

AUDIO = [
    *ANY_FILE,
    truncated_wav,
    zero_length_wav,
    ten_hours,
    nan_wav,
    all_nan_wav,
    silent_film,
]


def truncated_png(folder: Path) -> Path:
    path = folder / "cut.png"
    picture(256, 256).save(path)
    os.truncate(path, 2000)
    return path


def corrupt_jpeg(folder: Path) -> Path:
    path = folder / "broken.jpg"
    path.write_bytes(b"\xff\xd8\xff\xe0" + bytes(range(256)) * 8)
    return path


def huge_png(folder: Path) -> Path:
    """A header that promises 60000 x 60000 pixels."""
    body = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    path = folder / "huge.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + b"\x00" * 64)
    return path


def tiny_png(folder: Path) -> Path:
    path = folder / "tiny.png"
    picture(8, 8).save(path)
    return path


def animated_webp(folder: Path) -> Path:
    path = folder / "moving.webp"
    first, second = picture(), Image.new("RGB", (96, 96))
    first.save(path, save_all=True, append_images=[second], duration=100)
    return path


def animated_gif(folder: Path) -> Path:
    path = folder / "moving.gif"
    picture().save(path, save_all=True, append_images=[Image.new("RGB", (96, 96))])
    return path


IMAGES = [
    *ANY_FILE,
    truncated_png,
    corrupt_jpeg,
    huge_png,
    tiny_png,
    animated_webp,
    animated_gif,
]
