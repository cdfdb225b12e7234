"""What errors say of the disk."""

import errno


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that there is no space left."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
