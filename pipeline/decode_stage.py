"""The last station of the chain: clean latents become pictures.

Shape legend: B = batch (1), C = channels, T = frames, H, W = rows and columns.
"""

from fractions import Fraction

import torch
from torch import nn

from pipeline.errors import ModelError
from pipeline.memory_use import tensor_bytes
from pipeline.session_state import SessionState
from pipeline.stage import ChunkWork, SessionInputs, on_device
from video.chunk import VideoChunk, no_pictures
from video.codec import DecoderState, VideoCodec, renewed_reference
from video.motion_codec import MotionCodec, MotionDecoderState
from video.motion_thrift import decode_thriftily
from video.still_border import hold_border


class DecodeStage:
    """Turns clean latents into pictures; owns each session's decoder state."""

    def __init__(self, codec: VideoCodec) -> None:
        """Decode with `codec`, on the device it is on."""
        self._codec = codec
        self._weights = torch.zeros(())
        if isinstance(codec, nn.Module):
            self._weights = next(codec.parameters())
        self._states: dict[str, DecoderState] = {}
        self._fps: dict[str, Fraction] = {}
        # The last picture of live sessions, for those that are mixed.
        self._last_B3HW: dict[str, torch.Tensor] = {}

    @torch.inference_mode()
    def prepare(self, inputs: SessionInputs) -> None:
        """Prime a decoder that shows the portrait."""
        state = self._codec.start(inputs.image_BCHW.to(self._weights))
        if inputs.still_border:
            hold_border(state)
        self._states[inputs.session] = state
        self._fps[inputs.session] = inputs.fps

    @torch.inference_mode()
    def process(self, work: ChunkWork) -> VideoChunk:
        """The chunk's pictures, as many per latent frame as the codec makes; none of a void one.

        Raises:
            ModelError: the model computed NaN or infinity, which would show as plain black.
        """
        if work.is_void:
            return no_pictures(1 / self._fps[work.session])
        state, latent = self._states[work.session], work.latent
        latents_CTHW = latent.latents_CTHW.to(self._weights.device)
        frames_BCTHW = self._decoded(work, latents_CTHW[None], state)
        if not bool(torch.isfinite(frames_BCTHW).all()):
            raise ModelError(
                f"the model's pictures are no finite numbers in chunk {latent.index}: its weights "
                "or its config are damaged, use others"
            )
        reference = None
        if work.returns_reference:
            reference = renewed_reference(self._codec, latents_CTHW[None], frames_BCTHW).cpu()
        return VideoChunk(
            frames_THWC=_to_pictures(frames_BCTHW[0]).numpy(),
            pts=latent.start_frame * self._codec.frames_per_latent,
            time_base=1 / self._fps[work.session],
            reference_BCTHW=reference,
        )

    def _decoded(
        self, work: ChunkWork, latents_BCTHW: torch.Tensor, state: DecoderState
    ) -> torch.Tensor:
        """The chunk's pictures, cheaper if the chunk says so and the codec can."""
        thrift, codec = work.thrift, self._codec
        if thrift is None:
            return codec.decode(latents_BCTHW, state)
        if (
            isinstance(codec, MotionCodec)
            and isinstance(state, MotionDecoderState)
            and (thrift.halves_rate or thrift.halves_size)
        ):
            frames_BCTHW = decode_thriftily(
                codec,
                latents_BCTHW,
                state,
                halves_rate=thrift.halves_rate,
                halves_size=thrift.halves_size,
                last_B3HW=self._last_B3HW.get(work.session),
            )
        else:
            frames_BCTHW = codec.decode(latents_BCTHW, state)
        self._last_B3HW[work.session] = frames_BCTHW[:, :, -1].clone()
        return frames_BCTHW

    def reset(self, session: str) -> None:
        """Forget a session."""
        self._last_B3HW.pop(session, None)
        self._states.pop(session, None)
        self._fps.pop(session, None)

    def memory_bytes(self, session: str) -> int:
        """Bytes of all that the session's decoder remembers, the portrait as read included."""
        held = self._states.get(session), self._last_B3HW.get(session)
        return sum(tensor_bytes(part) for part in held)

    def export_state(self, session: str) -> SessionState:
        """What the session's decoder remembers."""
        return SessionState.of({"decoder": self._states[session].export_state()})

    def import_state(self, session: str, state: SessionState) -> None:
        """Go on from an export."""
        tensors = on_device(self._weights.device, state.part("decoder").tensors)
        self._states[session].import_state(tensors)

    def close(self) -> None:
        """Forget all sessions."""
        for session in list(self._states):
            self.reset(session)


def _to_pictures(frames_CTHW: torch.Tensor) -> torch.Tensor:
    """Frames in [-1, 1] as uint8 THWC on the CPU, rounded to nearest."""
    scaled = frames_CTHW.float().clamp(-1.0, 1.0).add(1.0).mul(127.5).round()
    return scaled.to(torch.uint8).permute(1, 2, 3, 0).contiguous().cpu()
