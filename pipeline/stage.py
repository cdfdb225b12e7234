"""One station of the chain: takes a chunk, does its share, hands it on.

Shape legend: B = batch (1), C = channels, T = frames, H, W = rows and columns, S = text tokens,
D = their width.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Protocol, TypeVar

import torch

from pipeline.session_state import SessionState
from pipeline.thrift import Thrift
from video.chunk import LatentChunk

OutT_co = TypeVar("OutT_co", covariant=True)

VOID_FRAME = -1
"""Where a chunk lies that carries nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionInputs:
    """What every stage must know of a session before its first chunk.

    `image_BCHW` is the portrait in [-1, 1]; `reference_BCTHW` its latent (T = 1); `motion_BCTHW`
    the latents before the first chunk, for networks that look at them; `fps` the pictures' rate.
    `still_border` says that the pictures are laid into a larger one and must not move where they
    meet it. `live` says that somebody watches as they are made: each chunk has a deadline then.
    """

    session: str
    seed: int
    fps: Fraction
    image_BCHW: torch.Tensor
    reference_BCTHW: torch.Tensor
    motion_BCTHW: torch.Tensor | None = None
    context_BSD: torch.Tensor | None = None
    still_border: bool = False
    live: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkWork:
    """A chunk of latents on its way down the chain, with what steers it in every step.

    `audio_LCT` holds one feature vector per video frame (four per latent frame); `cond_CTHW` the
    prior's latents, zeros in a model without a prior. `reference_BCTHW` is the latent (T = 1) that
    takes the reference's place from this chunk on, in every step; None changes nothing. With
    `returns_reference` the chunk's own first latent comes out with its pictures. `carried` is what
    plug-ins remember of the chunk from step to step. A chunk before frame 0 is void: it stands for
    one that a step still holds back, and passes every step unchanged.

    `slack_s` is how long after a stage began with it its pictures are due, None if nobody waits;
    `num_bypassed` counts the steps left out for lack of time; `thrift` says what decoding may save.
    None of them goes from process to process.
    """

    session: str
    latent: LatentChunk
    audio_LCT: torch.Tensor
    cond_CTHW: torch.Tensor
    reference_BCTHW: torch.Tensor | None = None
    returns_reference: bool = False
    carried: Mapping[str, torch.Tensor] = field(default_factory=dict)
    slack_s: float | None = None
    num_bypassed: int = 0
    thrift: Thrift | None = None

    @property
    def is_void(self) -> bool:
        """Whether it carries nothing."""
        return self.latent.start_frame < 0


def void_chunk(session: str, index: int) -> ChunkWork:
    """A chunk that carries nothing, so that steps give what they hold back."""
    latents_CTHW = torch.zeros(1, 0, 1, 1)
    return ChunkWork(
        session=session,
        latent=LatentChunk(
            latents_CTHW=latents_CTHW, index=index, start_frame=VOID_FRAME, sigma=1.0
        ),
        audio_LCT=torch.zeros(1, 1, 0),
        cond_CTHW=latents_CTHW,
    )


class Stage(Protocol[OutT_co]):
    """What every station promises; sessions do not see each other."""

    def prepare(self, inputs: SessionInputs) -> None:
        """Make room for a session; must come before its first chunk."""
        ...

    def process(self, work: ChunkWork) -> OutT_co:
        """Do this station's share; chunks of one session come in order."""
        ...

    def reset(self, session: str) -> None:
        """Forget a session; a session that is unknown is no error."""
        ...

    def memory_bytes(self, session: str) -> int:
        """Bytes that the session takes here; 0 for one that is unknown."""
        ...

    def export_state(self, session: str) -> SessionState:
        """Everything a prepared twin needs to go on with the session.

        What belongs to a step is under `step<index>`, the decoder's state under `decoder`.
        """
        ...

    def import_state(self, session: str, state: SessionState) -> None:
        """Go on from an export, which may hold more than this station's share.

        The session must be prepared.
        """
        ...

    def close(self) -> None:
        """Forget all sessions."""
        ...


def on_device(device: torch.device, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors on a device."""
    return {name: tensor.to(device) for name, tensor in tensors.items()}
