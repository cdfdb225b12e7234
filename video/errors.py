"""Errors about pictures, weights and recordings that came from outside."""


class ImageError(ValueError):
    """A portrait cannot be used: one line naming the input and the remedy."""


class WeightsError(ValueError):
    """A weights file does not fit the network: names what is missing, unexpected or mis-shaped."""


class RecordError(ValueError):
    """A recording cannot be written: one line naming the path and the remedy."""
