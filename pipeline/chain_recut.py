"""Cuts a running chain anew: by order, or when a follower says that another cut is better."""

import threading
from collections.abc import Callable, Sequence

from pipeline.checkpoint import Kept
from pipeline.doorman import ChainCapacity
from pipeline.follower import Follower
from pipeline.migration import recut_states
from pipeline.placement import Placement
from pipeline.recipe import Recipe, state_shares
from pipeline.recut import Decision
from pipeline.staged_chain import StagedChain

MakeRecipes = Callable[[Placement], Sequence[Recipe]]


class ChainRecut:
    """Changes the cuts of one chain, one change at a time."""

    def __init__(self, chain: StagedChain) -> None:
        """Leave the chain as it is."""
        self._chain, self._one = chain, threading.Lock()

    def to(self, recipes: Sequence[Recipe], capacity: ChainCapacity | None = None) -> None:
        """Run the same plan in other cuts from every session's next chunk on.

        New nodes are made beside the old ones where there is room for both, so that sessions wait
        only until what is under way is out and their states have moved.

        Raises:
            ModelError, PlanError: a new stage cannot be built; all stays as it was.
            NodeDown: a stage died meanwhile; all stays as it was.
            ChainDown: the chain is over.
        """
        chain, controller, shares = self._chain, self._chain.controller, state_shares(recipes)
        with self._one:
            slots = controller.beside(chain.cuts.specs(recipes))
            try:
                with chain.between_chunks() as sessions:
                    moved: dict[tuple[int, int], Kept] = {}
                    for name, held in sessions.items():
                        chunk = held.completed
                        states = controller.export_states(held.epoch, chunk)
                        moved |= recut_states(
                            states, shares, session=name, epoch=held.epoch, chunk=chunk
                        )
                    controller.take_over(slots, moved)
                    chain.adopt(recipes, capacity)
            finally:
                controller.dismiss(slots)

    def follow(self, follower: Follower, make: MakeRecipes, now_s: float) -> Decision | None:
        """Do what a follower decides by the stages' times; None if it is too soon to ask again.

        Call it about once a second; it takes as long as a change does. `make` gives the recipes of
        a placement.

        Raises:
            ModelError, PlanError, NodeDown, ChainDown: as `to` does.
        """
        controller = self._chain.controller
        decision = follower.look(controller.paces(), controller.num_done(), now_s)
        if decision is not None and decision.placement is not None:
            self.to(make(decision.placement), ChainCapacity.of(decision.placement))
            follower.moved(decision.placement, controller.num_done())
        return decision
