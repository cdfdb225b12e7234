"""Viva Voce."""

__version__ = "0.1.0"
