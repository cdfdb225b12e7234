"""What the network is told of a window: it sees all of it at once and nothing before it.

Shape legend: B = batch (1), L = audio layers, C = channels, T = frames, F = latent frames, H, W =
rows and columns.
"""

from dataclasses import dataclass

import torch

from pipeline.sink_store import Conditions
from video.dit import SpeechToVideoDiT
from video.noise import counter_noise


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowView:
    """A window's speech, what comes before it, and how the network looks at it.

    `audio_LCT` holds 4 feature frames per latent frame, `before_LCT` the last ones before the
    window (None at the clip's begin, or if the network encodes each chunk alone). `stride` is how
    many frames of noise belong to one chunk of the plan.
    """

    stride: int
    audio_LCT: torch.Tensor
    before_LCT: torch.Tensor | None
    conditions: Conditions
    bidirectional: bool = False

    def ask(
        self,
        network: SpeechToVideoDiT,
        x_BCTHW: torch.Tensor,
        t_BF: torch.Tensor,
        *,
        start_frame: int,
        sink_distance: int | None,
        cond_BCTHW: torch.Tensor | None,
    ) -> torch.Tensor:
        """The network's prediction for every frame of the window.

        A causal network sees the window as a stream that begins with it. A bidirectional one
        always finds it at frame 0, as it was trained. Source: FlashPortrait, released code.
        """
        weight, conditions = network.patch_embedding.weight, self.conditions
        hears = bool(network.config.audio_inject_layers)
        carries = not self.bidirectional and network.config.audio_context == "carry"
        before_LCT = self.before_LCT if carries or self.bidirectional else None

        def given(value: torch.Tensor | None) -> torch.Tensor | None:
            return None if value is None else value.to(weight)

        return network.forward_full(
            x_BCTHW,
            t_BF,
            self.audio_LCT[None].to(weight) if hears else None,
            conditions.reference_BCTHW.to(weight),
            motion=given(conditions.motion_BCTHW),
            cond=cond_BCTHW,
            context=given(conditions.context_BSD),
            causal=not self.bidirectional,
            audio_history=None if before_LCT is None else before_LCT[None].to(weight),
            sink_distance=sink_distance,
            start_frame=0 if self.bidirectional else start_frame,
            scaling=conditions.scaling,
        )


def stride_noise(
    seed: int, stride: int, draw: int, start_frame: int, like_CTHW: torch.Tensor
) -> torch.Tensor:
    """Noise number `draw` of the frames from `start_frame` on, as each frame's own chunk has it.

    So windows that share a frame share its noise.
    """
    channels, num_frames, height, width = like_CTHW.shape
    pieces, frame, end = [], start_frame, start_frame + num_frames
    while frame < end:
        count = min(end, (frame // stride + 1) * stride) - frame
        shape_CTHW = (channels, count, height, width)
        chunk = frame // stride
        pieces.append(counter_noise(seed, chunk, draw, shape_CTHW, frame, device=like_CTHW.device))
        frame += count
    return torch.cat(pieces, dim=1)
