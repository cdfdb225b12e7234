"""Nodes that were lost: told of at once, told of again when replaced, and not borne for ever."""

import time
from collections.abc import Callable

from pipeline.chain_events import ChainEvent, NodeLost, Replacement
from pipeline.errors import ChainDown
from pipeline.slot import Slot

# A node that dies so often while no chunk comes out would go on dying.
MAX_DEATHS_WITHOUT_PROGRESS = 5
# Replacements that are remembered.
MAX_REPLACEMENTS = 1000


class Losses:
    """Losses that are not made up yet, and the latest replacements."""

    def __init__(self, on_event: Callable[[ChainEvent], None]) -> None:
        """Begin with none."""
        self._on_event = on_event
        self._lost: list[tuple[int, str, float]] = []
        self.replacements: list[Replacement] = []

    def add(self, slot: Slot, reason: str, num_done: int) -> None:
        """A node is gone, after so many chunks have come out of the chain.

        Raises:
            ChainDown: nodes die there again and again while nothing comes out.
        """
        self._lost.append((slot.spec.position, reason, time.monotonic()))
        self._on_event(NodeLost(position=slot.spec.position, name=slot.spec.name, reason=reason))
        slot.num_deaths = 1 if num_done != slot.done_at_death else slot.num_deaths + 1
        slot.done_at_death = num_done
        if slot.num_deaths > MAX_DEATHS_WITHOUT_PROGRESS:
            raise ChainDown(
                f"stage {slot.spec.name} was lost {slot.num_deaths} times in a row without a "
                "chunk coming out: the chain gives up"
            )

    def made_up(self) -> None:
        """All are replaced."""
        now_s = time.monotonic()
        for position, reason, lost_s in self._lost:
            replaced = Replacement(position=position, reason=reason, healed_s=now_s - lost_s)
            self.replacements.append(replaced)
            self._on_event(replaced)
        self._lost.clear()
        del self.replacements[:-MAX_REPLACEMENTS]
