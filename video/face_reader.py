"""Reads generated latents as a face would be read: how open mouth and eyes are, frame by frame.

The decoder's own motion is read, after its networks and at the portrait's own head pose, so that
a head that turns does not look like a mouth that moves; and the pixels decoded at that pose.

Shape legend: B = batch (1), C = channels, T = latent frames, N = video frames, H, W = 256,
P = 68 points.
"""

from dataclasses import dataclass, fields

import torch

from video.face_flow import read_flow
from video.face_motion import full_cover
from video.face_pixels import eye_pattern, mouth_darkness
from video.face_points import Points, mean_points
from video.head_pose import POSE_CHANNELS
from video.motion_codec import MotionCodec, resize_antialiased
from video.warp import resize


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceReading:
    """Curves over N frames, relative to the portrait; see `face_flow` and `face_pixels`."""

    opening_px_N: torch.Tensor
    width_px_N: torch.Tensor
    lids_N: torch.Tensor
    eye_pattern_N: torch.Tensor
    darkness_N: torch.Tensor

    @classmethod
    def joined(cls, parts: "list[FaceReading]") -> "FaceReading":
        """One reading of what was read in pieces."""
        return cls(**{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(cls)})


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignedFrames:
    """Frames at the portrait's own head pose: flow and opacity as decoded, and the picture."""

    flow_N2HW: torch.Tensor
    opacity_N1HW: torch.Tensor
    pictures_N3HW: torch.Tensor


class FaceReader:
    """Reads the latents of one portrait; holds nothing between calls."""

    def __init__(
        self, codec: MotionCodec, image_BCHW: torch.Tensor, points_P2: Points | None = None
    ) -> None:
        """Take one portrait [1, 3, H, W] in [-1, 1] and its points, else those of the framing."""
        self._codec = codec
        self.points_P2 = mean_points() if points_P2 is None else points_P2
        with torch.inference_mode():
            self.portrait_13HW = resize_antialiased(image_BCHW)
            self.reading = codec.read(self.portrait_13HW)

    @torch.inference_mode()
    def frames(self, latents_BCTHW: torch.Tensor) -> AlignedFrames:
        """Decode at the portrait's own pose: 4 frames per latent."""
        parts = []
        last = self._codec.still_field(self.portrait_13HW)
        for index in range(latents_BCTHW.shape[2]):
            local = latents_BCTHW[:, POSE_CHANNELS:, index : index + 1]
            motion, last = self._codec.streamed_motion(
                local, self.portrait_13HW, self.reading, last
            )
            still = torch.zeros_like(motion.flow_N2FF)
            pictures = self._codec.render(motion, self.portrait_13HW, still)[0].transpose(0, 1)
            flow = resize(motion.flow_N2FF, *pictures.shape[-2:])
            parts.append((flow, full_cover(motion), pictures))
        flow, opacity, pictures = (torch.cat(piece) for piece in zip(*parts, strict=True))
        return AlignedFrames(flow_N2HW=flow, opacity_N1HW=opacity, pictures_N3HW=pictures)

    @torch.inference_mode()
    def read(self, latents_BCTHW: torch.Tensor) -> FaceReading:
        """Read the frames of latents."""
        return self.read_frames(self.frames(latents_BCTHW))

    def read_frames(self, frames: AlignedFrames) -> FaceReading:
        """Read frames that were decoded."""
        flow = read_flow(frames.flow_N2HW, frames.opacity_N1HW, self.points_P2)
        pixels = (frames.pictures_N3HW, self.portrait_13HW, self.points_P2)
        return FaceReading(
            opening_px_N=flow.opening_px_N,
            width_px_N=flow.width_px_N,
            lids_N=flow.lids_N,
            eye_pattern_N=eye_pattern(*pixels),
            darkness_N=mouth_darkness(*pixels),
        )
