"""One station of the chain: takes a chunk, does its share, hands it on.

Shape legend: B = batch (1), C = channels, T = frames, H, W = rows and columns, S = text tokens,
D = their width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Protocol, TypeVar

import torch

from pipeline.errors import ModelError
from pipeline.plan import Step
from pipeline.sampler import Denoiser, Lane, denoise_chunk
from pipeline.session_state import SessionState
from video.audio_tokens import AudioHistory, Heard
from video.chunk import LatentChunk, VideoChunk
from video.codec import DecoderState, VideoCodec
from video.kv_cache import KVCache, Sink
from video.still_border import hold_border

OutT_co = TypeVar("OutT_co", covariant=True)


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
    prior's latents, zeros in a model without a prior.
    """

    session: str
    latent: LatentChunk
    audio_LCT: torch.Tensor
    cond_CTHW: torch.Tensor


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

    def export_state(self, session: str) -> SessionState:
        """Everything a prepared twin needs to go on with the session."""
        ...

    def import_state(self, session: str, state: SessionState) -> None:
        """Go on from what `export_state` gave; the session must be prepared."""
        ...

    def close(self) -> None:
        """Forget all sessions."""
        ...


class DenoiseStage:
    """Runs a contiguous run of steps; one cache lane per (session, step), one sink per session."""

    def __init__(
        self,
        denoiser: Denoiser,
        steps: Sequence[Step],
        *,
        first_step: int,
        window_frames: int,
        frames_per_chunk: int,
        sinks: dict[str, Sink] | None = None,
    ) -> None:
        """Own `steps`, numbered from `first_step` in the plan.

        Stages with the same network may share `sinks`: the sink never sees noise, so it is the
        same for all steps (spec section 1.9).
        """
        self._denoiser = denoiser
        self._steps = tuple(steps)
        self._first_step = first_step
        self._window_frames = window_frames
        self._frames_per_chunk = frames_per_chunk
        self._sinks = {} if sinks is None else sinks
        self._lanes: dict[str, list[Lane]] = {}
        self._histories: dict[str, AudioHistory] = {}
        self._seeds: dict[str, int] = {}

    def prepare(self, inputs: SessionInputs) -> None:
        """Fill the session's sink and open its empty lanes."""
        self._seeds[inputs.session] = inputs.seed
        self._histories[inputs.session] = AudioHistory()
        self._lanes[inputs.session] = [
            Lane(step=step, index=self._first_step + offset, cache=self._open_cache())
            for offset, step in enumerate(self._steps)
        ]
        if inputs.session not in self._sinks:
            self._sinks[inputs.session] = self._fill_sink(inputs)

    @torch.inference_mode()
    def process(self, work: ChunkWork) -> ChunkWork:
        """The chunk after this stage's steps; its speech is encoded once for all of them."""
        latent = denoise_chunk(
            self._denoiser,
            work.latent,
            heard=self._hear(work),
            cond_CTHW=work.cond_CTHW,
            lanes=self._lanes[work.session],
            sink=self._sinks[work.session],
            seed=self._seeds[work.session],
        )
        return replace(work, latent=latent)

    def _hear(self, work: ChunkWork) -> tuple[Heard, ...] | None:
        """The chunk's speech as the layers use it, None for a network that hears nothing."""
        network = self._denoiser.network
        if not network.config.audio_inject_layers:
            return None
        audio_BLCT = work.audio_LCT[None].to(network.patch_embedding.weight)
        return network.encode_audio(
            audio_BLCT,
            start_frame=work.latent.start_frame,
            history=self._histories[work.session],
        )

    def reset(self, session: str) -> None:
        """Forget a session."""
        for table in (self._lanes, self._sinks, self._seeds, self._histories):
            table.pop(session, None)

    def export_state(self, session: str) -> SessionState:
        """The lanes and the speech heard last; the sink is made again from the portrait."""
        lanes = {f"lane{lane.index}": lane.cache.export_state() for lane in self._lanes[session]}
        return SessionState.of({"heard": self._histories[session].export_state(), **lanes})

    def import_state(self, session: str, state: SessionState) -> None:
        """Fill the lanes from an export."""
        weight = self._denoiser.network.patch_embedding.weight
        heard = _on(weight.device, state.part("heard").tensors)
        self._histories[session].import_state(heard)
        for lane in self._lanes[session]:
            tensors = _on(weight.device, state.part(f"lane{lane.index}").tensors)
            lane.cache.import_state(tensors)

    def close(self) -> None:
        """Forget all sessions."""
        for session in list(self._lanes):
            self.reset(session)

    @torch.inference_mode()
    def _fill_sink(self, inputs: SessionInputs) -> Sink:
        """Run the network once over the portrait."""
        weight = self._denoiser.network.patch_embedding.weight
        optional = (inputs.motion_BCTHW, inputs.context_BSD)
        motion, context = (None if x is None else x.to(weight) for x in optional)
        return self._denoiser.network.prefill_sink(
            inputs.reference_BCTHW.to(weight), motion, context
        )

    def _open_cache(self) -> KVCache:
        """An empty lane; its buffers are made at the first chunk."""
        return KVCache(window_frames=self._window_frames, frames_per_chunk=self._frames_per_chunk)


class DecodeStage:
    """Turns clean latents into pictures; owns each session's decoder state."""

    def __init__(self, codec: VideoCodec) -> None:
        """Decode with `codec`, on the device it is on."""
        self._codec = codec
        self._states: dict[str, DecoderState] = {}
        self._fps: dict[str, Fraction] = {}

    @torch.inference_mode()
    def prepare(self, inputs: SessionInputs) -> None:
        """Prime a decoder that shows the portrait."""
        state = self._codec.start(inputs.image_BCHW)
        if inputs.still_border:
            hold_border(state)
        self._states[inputs.session] = state
        self._fps[inputs.session] = inputs.fps

    @torch.inference_mode()
    def process(self, work: ChunkWork) -> VideoChunk:
        """The chunk's pictures, as many per latent frame as the codec makes.

        Raises:
            ModelError: the model computed NaN or infinity, which would show as plain black.
        """
        state, latent = self._states[work.session], work.latent
        frames_BCTHW = self._codec.decode(latent.latents_CTHW[None], state)
        if not bool(torch.isfinite(frames_BCTHW).all()):
            raise ModelError(
                f"the model's pictures are no finite numbers in chunk {latent.index}: its weights "
                "or its config are damaged, use others"
            )
        return VideoChunk(
            frames_THWC=_to_pictures(frames_BCTHW[0]).numpy(),
            pts=latent.start_frame * self._codec.frames_per_latent,
            time_base=1 / self._fps[work.session],
        )

    def reset(self, session: str) -> None:
        """Forget a session."""
        self._states.pop(session, None)
        self._fps.pop(session, None)

    def export_state(self, session: str) -> SessionState:
        """What the session's decoder remembers."""
        return SessionState.of({"decoder": self._states[session].export_state()})

    def import_state(self, session: str, state: SessionState) -> None:
        """Go on from an export."""
        self._states[session].import_state(state.part("decoder").tensors)

    def close(self) -> None:
        """Forget all sessions."""
        for session in list(self._states):
            self.reset(session)


def _on(device: torch.device, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors on a device."""
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def _to_pictures(frames_CTHW: torch.Tensor) -> torch.Tensor:
    """Frames in [-1, 1] as uint8 THWC on the CPU, rounded to nearest."""
    scaled = frames_CTHW.float().clamp(-1.0, 1.0).add(1.0).mul(127.5).round()
    return scaled.to(torch.uint8).permute(1, 2, 3, 0).contiguous().cpu()
