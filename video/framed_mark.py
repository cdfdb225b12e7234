"""The mark of portraits that are framed already: a text in a PNG, so it travels with the picture.

Drawings are often missed by the face finder, and pictures that were drawn in the model's own
framing need no finding: the whole square is what the model wants to see.
"""

from PIL import Image
from PIL.PngImagePlugin import PngInfo

_KEY, _VALUE = "Viva-Framing", "aligned"


def framed_mark() -> PngInfo:
    """The mark, to be given as `pnginfo` to Pillow's `save`."""
    mark = PngInfo()
    mark.add_text(_KEY, _VALUE)
    return mark


def carries_mark(image: Image.Image) -> bool:
    """Whether a picture is square and marked; a mark on anything else says nothing."""
    return image.info.get(_KEY) == _VALUE and image.width == image.height


def keep_mark(source: Image.Image, image: Image.Image) -> Image.Image:
    """The picture made of a source, marked as the source is and with nothing else attached."""
    image.info = {_KEY: _VALUE} if carries_mark(source) else {}
    return image
