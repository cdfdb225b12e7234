"""Framebuffers to draw into, each made once."""

from typing import Any


class Targets:
    """The square framebuffers of one OpenGL context: four channels and depth."""

    def __init__(self, context: Any) -> None:
        """Make none yet; `context` is a moderngl context."""
        self._context = context
        self._made: dict[tuple[int, str], Any] = {}

    def __call__(self, size: int, dtype: str) -> Any:
        """The framebuffer of `size` pixels a side and a moderngl dtype such as f1 or f4."""
        key = (size, dtype)
        if key not in self._made:
            texture = self._context.texture((size, size), 4, dtype=dtype)
            depth = self._context.depth_renderbuffer((size, size))
            self._made[key] = self._context.framebuffer([texture], depth)
        return self._made[key]
