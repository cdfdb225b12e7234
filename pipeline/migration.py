"""A session's state cut anew: from what stages of one cut exported to what another cut needs."""

from collections.abc import Collection, Sequence

from pipeline.checkpoint import Kept, pack_messages
from pipeline.packing import pack_state
from pipeline.session_state import SessionState


def recut_states(
    states: Sequence[SessionState],
    shares: Sequence[Collection[str]],
    *,
    session: str,
    epoch: int,
    chunk: int,
) -> dict[tuple[int, int], Kept]:
    """Checkpoints after `chunk` for stages that have these `shares` of a session's parts.

    By epoch and the stage's position.

    Lanes are named by their steps' numbers in the plan, so a lane does not care which stage it is
    in.

    Raises:
        ValueError: a stage would get nothing: the states are of another plan.
    """
    whole = SessionState.joined(states)
    made = {}
    for position, share in enumerate(shares):
        own = whole.only(share)
        if not own.tensors and not own.numbers:
            raise ValueError(
                f"session {session} has nothing of {', '.join(sorted(share))}: cut the plan that "
                "it was begun with"
            )
        message = pack_state(own, session=session, epoch=epoch, chunk=chunk)
        made[epoch, position] = Kept(chunk=chunk, data=pack_messages([message]))
    return made
