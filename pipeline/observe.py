"""A session that shows someone its latents on their way into the decoder, for measurements.

Shape legend: B = batch (1), C = channels, T = latent frames, H, W = rows and columns.
"""

from collections.abc import Callable
from fractions import Fraction

import torch

from pipeline.chain import LocalChain
from pipeline.generator import AvatarGenerator
from pipeline.model import Model
from pipeline.plan import Plan
from video.codec import DecoderState, VideoCodec

OnLatents = Callable[[torch.Tensor], None]


class ObservedCodec:
    """The model's codec, whose latents `on_latents` sees; without `pictures` none are decoded.

    Pictures that nobody looks at are two black pixels square: the numbers before the decoder do not
    depend on what it makes.
    """

    def __init__(self, codec: VideoCodec, on_latents: OnLatents, *, pictures: bool) -> None:
        """Stand in front of `codec`."""
        self._codec = codec
        self._on_latents = on_latents
        self._pictures = pictures

    @property
    def latent_channels(self) -> int:
        """Channels of a latent frame."""
        return self._codec.latent_channels

    @property
    def frames_per_latent(self) -> int:
        """Pictures that one latent frame decodes to."""
        return self._codec.frames_per_latent

    def latent_size(self, height_px: int, width_px: int) -> tuple[int, int]:
        """Return the codec's (rows, columns) of the latent grid."""
        return self._codec.latent_size(height_px, width_px)

    def encode_reference(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the codec's reference latents."""
        return self._codec.encode_reference(image_BCHW)

    def start(self, image_BCHW: torch.Tensor) -> DecoderState:
        """Begin a session of the codec."""
        return self._codec.start(image_BCHW)

    def decode(self, latents_BCTHW: torch.Tensor, state: DecoderState) -> torch.Tensor:
        """Show the latents, then decode them or leave that out."""
        self._on_latents(latents_BCTHW)
        if self._pictures:
            return self._codec.decode(latents_BCTHW, state)
        batch, _, num_latents = latents_BCTHW.shape[:3]
        return latents_BCTHW.new_full((batch, 3, num_latents * self.frames_per_latent, 2, 2), -1.0)


def open_observed(
    model: Model,
    plan: Plan,
    portrait_BCHW: torch.Tensor,
    *,
    sample_rate: int,
    seed: int,
    on_latents: OnLatents,
    pictures: bool,
    fps: Fraction | None = None,
) -> AvatarGenerator:
    """Open the session that a render would be, with its latents shown to `on_latents`."""
    codec = ObservedCodec(model.codec, on_latents, pictures=pictures)
    return AvatarGenerator(
        model,
        plan,
        portrait_BCHW,
        sample_rate=sample_rate,
        seed=seed,
        fps=fps,
        chain=LocalChain.from_plan(plan, model.denoiser(plan), codec),
    )
