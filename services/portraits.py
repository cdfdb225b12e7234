"""Portraits by name: the model's cast, and pictures that callers upload.

Names are looked up in tables, never joined to paths. Uploads lie in memory only, and not for ever.
"""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from pipeline.cast import CastMember
from services.deployment import Limits
from services.problem import Problem
from video.errors import ImageError
from video.picture import decode_picture, read_picture_file

TYPES = ("image/png", "image/jpeg", "image/webp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A picture that was looked at: its name, size in pixels, and when it is forgotten."""

    name: str
    data: bytes
    width: int
    height: int
    expires_s: float


class Portraits:
    """The cast and the uploads of one server."""

    def __init__(
        self,
        cast: tuple[CastMember, ...],
        limits: Limits,
        *,
        clock: Callable[[], float],
        executor: Executor,
    ) -> None:
        """Decode in `executor`, so that a large picture holds nobody up."""
        self.cast: Mapping[str, CastMember] = {member.name: member for member in cast}
        self._limits, self._clock, self._executor = limits, clock, executor
        self._uploads: OrderedDict[str, Upload] = OrderedDict()

    @property
    def default(self) -> str:
        """The first of the cast; empty where there is none."""
        return next(iter(self.cast), "")

    def thumbnail(self, name: str) -> Path:
        """The file of a cast member's small picture.

        Raises:
            Problem: 404 `no_portrait`.
        """
        member = self.cast.get(name)
        if member is None:
            raise _unknown(name)
        small = member.path.parent / "thumbnails" / f"{member.name}.jpg"
        return small if small.is_file() else member.path

    async def find(self, name: str) -> bytes:
        """The picture file that a name stands for.

        Raises:
            Problem: 404 `no_portrait`.
        """
        self._forget_old()
        if name in self._uploads:
            return self._uploads[name].data
        member = self.cast.get(name)
        if member is None:
            raise _unknown(name)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, read_picture_file, member.path, name)

    async def add(self, data: bytes) -> Upload:
        """Look at a picture and keep it under a name that nobody can guess.

        Raises:
            Problem: 422 `bad_picture`, with the reason.
        """
        loop = asyncio.get_running_loop()
        try:
            width, height = await loop.run_in_executor(
                self._executor, _size_of, data, self._limits.max_picture_pixels
            )
        except ImageError as error:
            raise Problem(422, "bad_picture", str(error)) from error
        upload = Upload(
            name=f"up_{secrets.token_urlsafe(16)}",
            data=data,
            width=width,
            height=height,
            expires_s=self._clock() + self._limits.upload_ttl_s,
        )
        self._forget_old()
        self._uploads[upload.name] = upload
        while len(self._uploads) > self._limits.max_uploads:
            self._uploads.popitem(last=False)
        return upload

    def _forget_old(self) -> None:
        """Drop uploads whose time is over; they lie in the order of their ends."""
        now_s = self._clock()
        while self._uploads and next(iter(self._uploads.values())).expires_s <= now_s:
            self._uploads.popitem(last=False)


def _size_of(data: bytes, max_pixels: int) -> tuple[int, int]:
    """Width and height of a picture that can be decoded."""
    picture = decode_picture(data, "the portrait", max_pixels=max_pixels)
    return picture.width, picture.height


def _unknown(name: str) -> Problem:
    """Refuse a name."""
    return Problem(404, "no_portrait", f"there is no portrait {name[:64]!r}: see /v1/portraits")
