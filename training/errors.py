"""What the outside did wrong, for every training program."""

from services.options import OptionError


class InputError(OptionError):
    """An option, folder, shard or recipe cannot be used: one line naming it and the remedy."""


def reason(error: Exception) -> str:
    """What went wrong, without what the message around it already says."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
