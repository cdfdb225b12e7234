"""Errors about pictures, videos, weights and recordings that came from outside."""


class ImageError(ValueError):
    """A portrait cannot be used: one line naming the input and the remedy."""


class WeightsError(ValueError):
    """A weights file does not fit the network: names what is missing, unexpected or mis-shaped."""


class RecordError(ValueError):
    """A recording cannot be written: one line naming the path and the remedy."""


class MovieError(ValueError):
    """A video cannot be read: one line naming the file and the remedy."""
