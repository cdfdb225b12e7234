"""Sinks of the sessions of one network: filled once, shared by all lanes, dropped with the last.

Shape legend: B = batch (1), C = channels, T = frames, H, W = rows and columns, S = text tokens,
D = their width.
"""

from dataclasses import dataclass

import torch

from pipeline.adapters import AdaptedNetwork
from video.dit import SpeechToVideoDiT
from video.kv_cache import Sink
from video.rope import NATIVE, RopeScaling


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What a sink is made of: the reference's latent, the latents before the first, the prompt.

    `scaling` says where its rows and columns lie for the network, `adapter` what it wears.
    """

    reference_BCTHW: torch.Tensor
    motion_BCTHW: torch.Tensor | None = None
    context_BSD: torch.Tensor | None = None
    scaling: RopeScaling = NATIVE
    adapter: str | None = None

    def same(self, other: "Conditions") -> bool:
        """Whether both give the same sink."""
        pairs = (
            (self.reference_BCTHW, other.reference_BCTHW),
            (self.motion_BCTHW, other.motion_BCTHW),
            (self.context_BSD, other.context_BSD),
        )
        is_read_alike = (self.scaling, self.adapter) == (other.scaling, other.adapter)
        return is_read_alike and all(_equal(mine, theirs) for mine, theirs in pairs)


@dataclass(slots=True, kw_only=True)
class HeldSink:
    """A sink, what it was made of, and how many lanes hold it."""

    sink: Sink
    conditions: Conditions
    num_holders: int = 0


class SinkStore:
    """The sinks of one network on one device.

    The sink never sees noise, so it is the same for all steps of one adapter, and for all stages
    that share the network (spec section 1.9). It is known by what it was made of: sessions that
    show the same portrait share it too. Nothing is ever written into one.
    """

    def __init__(self, network: SpeechToVideoDiT, adapters: AdaptedNetwork | None = None) -> None:
        """Begin with none."""
        self._adapters = AdaptedNetwork(network, {}) if adapters is None else adapters
        self._held: list[HeldSink] = []

    def hold(self, conditions: Conditions) -> HeldSink:
        """The sink of these conditions, for one lane more; whoever takes it gives it back.

        Raises:
            ValueError: the network cannot use them.
        """
        for held in self._held:
            if held.conditions.same(conditions):
                held.num_holders += 1
                return held
        made = HeldSink(sink=self._fill(conditions), conditions=conditions, num_holders=1)
        self._held.append(made)
        return made

    def release(self, held: HeldSink) -> None:
        """One lane needs it no longer; the last one's release frees the memory."""
        held.num_holders -= 1
        if held.num_holders <= 0:
            self._held = [other for other in self._held if other is not held]

    @torch.inference_mode()
    def _fill(self, conditions: Conditions) -> Sink:
        """Run the network once over the reference."""
        optional = (conditions.motion_BCTHW, conditions.context_BSD)
        with self._adapters.wearing(conditions.adapter) as network:
            weight = network.patch_embedding.weight
            motion, context = (None if x is None else x.to(weight) for x in optional)
            reference = conditions.reference_BCTHW.to(weight)
            return network.prefill_sink(reference, motion, context, conditions.scaling)

    def __len__(self) -> int:
        """Sinks in memory."""
        return len(self._held)


def _equal(mine: torch.Tensor | None, theirs: torch.Tensor | None) -> bool:
    if mine is theirs:
        return True
    if mine is None or theirs is None or mine.shape != theirs.shape:
        return False
    return mine.dtype == theirs.dtype and torch.equal(mine.cpu(), theirs.cpu())
