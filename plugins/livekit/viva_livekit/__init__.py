"""Faces of Viva Voce in LiveKit rooms: `AvatarSession` for agents, and the worker that joins."""

from viva_livekit.face_generator import FaceGenerator
from viva_livekit.face_runner import FaceRunner
from viva_livekit.session import AvatarSession, VivaError

__all__ = ["AvatarSession", "FaceGenerator", "FaceRunner", "VivaError"]
