"""Errors about models, plans and chains."""


class ModelError(ValueError):
    """A model folder cannot be used: one line naming the folder and the remedy."""


class PlanError(ValueError):
    """A plan cannot be used: one line naming the plan and the remedy."""


class ChainError(ValueError):
    """A chain cannot be set up as asked: one line naming what is short and the remedy."""


class ChainFull(ChainError):
    """A chain takes no further session now: one line with the arithmetic and when to ask again.

    `retry_after_s` is about when a session of the chain ends.
    """

    def __init__(self, reason: str, *, retry_after_s: float) -> None:
        """Say why, and when it may be otherwise."""
        super().__init__(f"{reason}; ask again in {retry_after_s:.0f} s")
        self.retry_after_s = retry_after_s


class ChainDown(RuntimeError):
    """A chain that ran cannot go on and could not be healed: one line saying why."""


class ChainDraining(ChainDown):
    """A chain that is being shut down takes nothing new; what it has accepted still comes out."""


class NodeDown(RuntimeError):
    """A node of a chain is gone or answers nothing; one line saying which."""
