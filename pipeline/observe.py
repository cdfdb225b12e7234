"""A session that shows someone its latents on their way into the decoder, for measurements.

Shape legend: B = batch (1), C = channels, T = latent frames, H, W = rows and columns.
"""

import copy
import dataclasses
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import torch

from pipeline.chain import LocalChain
from pipeline.generator import AvatarGenerator
from pipeline.model import Model
from pipeline.plan import Plan
from pipeline.sampler import Denoiser
from video.codec import DecoderState, ReadsPictures, VideoCodec
from video.dit import SpeechToVideoDiT
from video.kv_cache import Sink
from video.motion_codec import MotionCodec, MotionDecoderState
from video.motion_skip import catch_up, skip_pictures

OnLatents = Callable[[torch.Tensor], None]
Wanted = Callable[[int], bool]


class ObservedCodec:
    """The model's codec, whose latents `on_latents` sees; only `wanted` pictures are decoded.

    Pictures that nobody looks at are two black pixels square: the numbers before the decoder do not
    depend on what it makes. A motion codec's stream keeps its place meanwhile, so that the next
    wanted ones are those of a whole stream within a level; other codecs start where they left.
    Serves one session.
    """

    def __init__(self, codec: VideoCodec, on_latents: OnLatents, wanted: Wanted) -> None:
        """Stand in front of `codec`; `wanted` is asked with the index of a call's first picture."""
        self._codec = codec
        self._on_latents = on_latents
        self._wanted = wanted
        self._num_pictures = 0
        self._skipped: torch.Tensor | None = None

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
        batch, _, num_latents = latents_BCTHW.shape[:3]
        first, num_pictures = self._num_pictures, num_latents * self.frames_per_latent
        self._num_pictures += num_pictures
        if self._wanted(first):
            self._catch_up(state)
            return self._codec.decode(latents_BCTHW, state)
        if isinstance(state, MotionDecoderState):
            skip_pictures(latents_BCTHW, state)
        self._skipped = latents_BCTHW
        return latents_BCTHW.new_full((batch, 3, num_pictures, 2, 2), -1.0)

    def _catch_up(self, state: DecoderState) -> None:
        """Go on after pictures that were left out."""
        skipped, self._skipped = self._skipped, None
        if skipped is None or not isinstance(state, MotionDecoderState):
            return
        if isinstance(self._codec, MotionCodec):
            catch_up(self._codec, skipped, state)


class ObservedReader(ObservedCodec):
    """The same before a codec that reads renewed references from its pictures: all are decoded."""

    def __init__(self, codec: VideoCodec, on_latents: OnLatents, read: ReadsPictures) -> None:
        """Stand in front of `codec`, which is also `read`."""
        super().__init__(codec, on_latents, lambda _: True)
        self._read = read

    def reference_of(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        """Return what the codec reads from a picture of its own."""
        return self._read.reference_of(image_BCHW)


class ObservedSession(AvatarGenerator):
    """A session that says how often the network ran for it, after its end too."""

    def __init__(self, chain: LocalChain, *args: Any, **options: Any) -> None:
        """Open the session in its own chain; the rest is `AvatarGenerator`'s."""
        self._own_chain = chain
        self.num_evaluations = 0
        super().__init__(*args, chain=chain, **options)

    def close(self) -> None:
        """Count, then forget the session."""
        self.num_evaluations = self._own_chain.num_evaluations(self.session)
        super().close()


class _Sinkless(SpeechToVideoDiT):
    """The network with a sink that holds nothing: chunks attend to the past alone."""

    def prefill_sink(self, *args: Any, **options: Any) -> Sink:
        """The reference's sink without its rows."""
        full = super().prefill_sink(*args, **options)
        keys, values = (tuple(x[:, :0] for x in rows) for rows in (full.keys, full.values))
        return dataclasses.replace(full, keys=keys, values=values)


def without_sink(denoiser: Denoiser) -> Denoiser:
    """The same network, weights shared, for which the reference is no anchor: to show what it does.

    The prior still knows the portrait.
    """
    network = copy.copy(denoiser.network)
    network.__class__ = _Sinkless
    adapters = None if denoiser.adapters is None else denoiser.adapters.on(network)
    return dataclasses.replace(denoiser, network=network, adapters=adapters)


def open_observed(  # noqa: PLR0913 - one keyword per choice of a session
    model: Model,
    plan: Plan,
    portrait_BCHW: torch.Tensor,
    *,
    sample_rate: int,
    seed: int,
    on_latents: OnLatents,
    pictures: bool | Wanted,
    fps: Fraction | None = None,
    sink: bool = True,
) -> ObservedSession:
    """Open the session that a render would be, with its latents shown to `on_latents`.

    `pictures` says which are decoded, by the index of their chunk's first; `sink` whether the
    network sees the reference.
    """
    wanted = pictures if callable(pictures) else (lambda _: bool(pictures))
    codec = ObservedCodec(model.codec, on_latents, wanted)
    if plan.sink_refresh is not None and isinstance(model.codec, ReadsPictures):
        codec = ObservedReader(model.codec, on_latents, model.codec)
    denoiser = model.denoiser(plan)
    chain = LocalChain.from_plan(plan, denoiser if sink else without_sink(denoiser), codec)
    return ObservedSession(
        chain,
        model,
        plan,
        portrait_BCHW,
        sample_rate=sample_rate,
        seed=seed,
        fps=fps,
    )
