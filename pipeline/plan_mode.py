"""What a plan is for; apart from plans, so that reading a command's words loads nothing heavy."""

from typing import Literal

Mode = Literal["live", "render"]
