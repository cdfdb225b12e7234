"""Errors about sound that came from outside."""


class AudioError(ValueError):
    """An audio input cannot be used: one line naming the input and the remedy."""
