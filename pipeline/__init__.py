"""Moves chunks from speech to frames."""
