"""The plug-in's logger; nothing of media, keys or tokens is ever logged."""

import logging

logger = logging.getLogger("viva_livekit")
