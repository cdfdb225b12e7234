"""How much of a portrait the video shows, as a word; apart so that naming it loads nothing."""

from typing import Literal

# `face` is the cut the model sees, `portrait` the whole picture, `auto` what the picture suggests.
FrameChoice = Literal["auto", "face", "portrait"]
FRAME_CHOICES: tuple[FrameChoice, ...] = ("auto", "face", "portrait")
