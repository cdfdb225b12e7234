"""Errors about models, plans and chains."""


class ModelError(ValueError):
    """A model folder cannot be used: one line naming the folder and the remedy."""


class PlanError(ValueError):
    """A plan cannot be used: one line naming the plan and the remedy."""


class ChainError(ValueError):
    """A chain cannot be set up as asked: one line naming what is short and the remedy."""


class ChainDown(RuntimeError):
    """A chain that ran cannot go on and could not be healed: one line saying why."""


class NodeDown(RuntimeError):
    """A node of a chain is gone or answers nothing; one line saying which."""
