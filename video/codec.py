"""The border between pixels and latents: what the chain asks of any video codec.

Shape legend: B = batch, C = channels, T = frames (latent or picture), H = height, W = width.
"""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch


@runtime_checkable
class DecoderState(Protocol):
    """Everything a session's decoder remembers between chunks, owned by that session."""

    def export_state(self) -> dict[str, torch.Tensor]:
        """Return copies of all remembered tensors, enough to go on elsewhere identically."""
        ...

    def import_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Replace what is remembered; raises ValueError when the names do not fit."""
        ...


@runtime_checkable
class ReadsPictures(Protocol):
    """A codec whose reference is no latent of the stream, but is read from a picture."""

    def reference_of(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the reference latents_BCTHW (T = 1) of a picture that the codec made."""
        ...


@runtime_checkable
class VideoCodec(Protocol):
    """Turns a portrait into latents and latents into pictures, a chunk at a time.

    Images are float RGB in [-1, 1]; `frames_per_latent` pictures come out of each latent.
    """

    @property
    def latent_channels(self) -> int:
        """Channels of a latent frame."""
        ...

    @property
    def frames_per_latent(self) -> int:
        """Pictures that one latent frame decodes to once a session has started."""
        ...

    def latent_size(self, height_px: int, width_px: int) -> tuple[int, int]:
        """Return (rows, columns) of the latent grid; raises ImageError for an unusable size."""
        ...

    def encode_reference(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the reference latents_BCTHW (T = 1) the network's sink is filled with."""
        ...

    def start(self, image_BCHW: torch.Tensor) -> DecoderState:
        """Return the state of a new session showing this portrait, primed for any chunk."""
        ...

    def decode(self, latents_BCTHW: torch.Tensor, state: DecoderState) -> torch.Tensor:
        """Return frames_BCTHW in [-1, 1], `frames_per_latent` per latent; `state` moves on."""
        ...


def renewed_reference(
    codec: VideoCodec, latents_BCTHW: torch.Tensor, frames_BCTHW: torch.Tensor
) -> torch.Tensor:
    """A chunk's first latent (T = 1) as the network's sink takes it.

    It is that latent itself, or, where references are of another kind, what the codec reads from
    the first picture made of it. Source: Live Avatar, adaptive attention sink.
    """
    if isinstance(codec, ReadsPictures):
        return codec.reference_of(frames_BCTHW[:, :, 0])
    return latents_BCTHW[:, :, :1]
