"""Faces of Viva Voce in Pipecat pipelines."""

from viva_pipecat.video import VivaVideoService, VivaVideoSettings

__all__ = ["VivaVideoService", "VivaVideoSettings"]
