"""What may be saved on a chunk that is late: the share of the decoder, and of the steps."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Thrift:
    """How a live chunk is made cheaper; without any of these it is as good as can be.

    `leaves_out_steps` bypasses what a plan's bypass may; `halves_rate` makes every second picture
    and mixes those between; `halves_size` makes pictures of half the sides and enlarges them.
    """

    leaves_out_steps: bool = False
    halves_rate: bool = False
    halves_size: bool = False
