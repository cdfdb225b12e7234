"""Errors about models and plans that came from outside."""


class ModelError(ValueError):
    """A model folder cannot be used: one line naming the folder and the remedy."""


class PlanError(ValueError):
    """A plan cannot be used: one line naming the plan and the remedy."""
