"""Turn rendered clips into what the prior and the network learn from, once, in memory.

The codec's linear core and the speech encoder are frozen by then: a clip becomes 12 latents, 48
frames of speech features and the portrait at 128x128. `viva train latents` writes them.

Shape legend: N = clips, K = facial channels, L = latent frames, G = grid side, C = audio channels,
T = video frames, 6 = head pose. Behaviour has three channels: lids closed, glance right, up.
"""

import argparse
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from audio.features import log_mel
from audio.mel_encoder import MelEncoderConfig, MelEncoderNet
from training.errors import InputError
from training.shards import mirror_fields, motion_fields, read_shard, shard_paths
from training.stored import Arrays, load_tensors, load_weights, require_shapes
from video.head_pose import pose_to_latents
from video.motion_codec import MotionCodec, MotionCodecConfig

NAMES = (
    "ref_rgb", "flow64", "occl64", "samples", "pose", "blink", "gaze", "openness",
    "ref_openness", "visemes",
)  # fmt: skip
LEAD_FRAMES = 50  # mel frames of sound stored before a clip begins
GLANCE_UNIT_RAD = 0.1  # as `pipeline.behaviour` gives glances to the prior
SETTLE_FRAMES = 25.0  # a session starts at the portrait's pose and leaves it over about a second

SHAPES = {
    "local_NKLGG": (None, None, 12, 8, 8),
    "pose_NT6": (None, 48, 6),
    "audio_NCT": (None, None, 48),
    "image_N3HW": (None, 3, 128, 128),
    "behaviour_N3T": (None, 3, 48),
    "openness_NT": (None, 48),
    "ref_openness_N": (None,),
    "visemes_NVT": (None, 6, 48),
}


@dataclass(slots=True, kw_only=True)
class LatentClips:
    """All clips as tensors with a leading clip axis; mirrored twins are clips of their own."""

    local_NKLGG: torch.Tensor
    pose_NT6: torch.Tensor
    audio_NCT: torch.Tensor
    image_N3HW: torch.Tensor
    behaviour_N3T: torch.Tensor
    openness_NT: torch.Tensor
    ref_openness_N: torch.Tensor
    visemes_NVT: torch.Tensor

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.local_NKLGG)

    def latents(self, index: torch.Tensor) -> torch.Tensor:
        """Return full latents [B, 12 + K, L, G, G] of the chosen clips."""
        grid = self.local_NKLGG.shape[-1]
        pose = pose_to_latents(self.pose_NT6[index], grid)
        return torch.cat((pose, self.local_NKLGG[index].float()), dim=1)

    def drives(self, index: torch.Tensor) -> torch.Tensor:
        """Return what drives the prior, speech features then behaviour, [B, C + 3, T]."""
        return torch.cat((self.audio_NCT[index], self.behaviour_N3T[index]), dim=1)

    def portraits(self, index: torch.Tensor) -> torch.Tensor:
        """Return portraits [B, 3, 128, 128] in [-1, 1] of the chosen clips."""
        return self.image_N3HW[index].float() / 127.5 - 1.0

    def save(self, path: Path) -> None:
        """Write all tensors to one safetensors file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.part")
        save_file({f.name: getattr(self, f.name).contiguous() for f in fields(self)}, partial)
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            InputError: the file is damaged or holds something else.
        """
        tensors = load_tensors(path)
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        require_shapes(shapes, SHAPES, path)
        if len({shape[0] for shape in shapes.values()}) > 1 or set(shapes) != set(SHAPES):
            raise InputError(f"{path} is not what viva train latents writes: make it again")
        return cls(**tensors)


def settle(pose_NT6: torch.Tensor) -> torch.Tensor:
    """Make every clip begin at the portrait's own pose, as sessions do."""
    time_T = torch.arange(pose_NT6.shape[1], dtype=torch.float32)
    fade = torch.exp(-time_T / SETTLE_FRAMES)[None, :, None]
    return pose_NT6 - pose_NT6[:, :1] * fade


def speech_features(net: MelEncoderNet, samples_NT: torch.Tensor, num_frames: int) -> torch.Tensor:
    """Return features and visemes [N, C, T] at 25 frames a second for clips with 0.5 s lead."""
    features, visemes = net(log_mel(samples_NT))
    joined = torch.cat((features, visemes), dim=1)
    return joined[:, :, LEAD_FRAMES : LEAD_FRAMES + 4 * num_frames : 4]


def behaviour_tracks(
    blink_NT: torch.Tensor, gaze_NT2: torch.Tensor, pose_NT6: torch.Tensor
) -> torch.Tensor:
    """Return lids and glances [N, 3, T]: the gaze without what makes up for the head's own turn."""
    made_up = 0.8 * pose_NT6[..., :2] * pose_NT6.new_tensor([-1.0, 1.0])
    glance_NT2 = (gaze_NT2 - made_up) / GLANCE_UNIT_RAD
    return torch.cat((blink_NT[:, None], glance_NT2.transpose(1, 2)), dim=1)


def convert(shard: Arrays, codec: MotionCodec, speech: MelEncoderNet) -> LatentClips:
    """Convert one shard; every clip is followed by its mirrored twin."""
    field = motion_fields(shard)
    image = F.avg_pool2d(torch.from_numpy(shard["ref_rgb"]).permute(0, 3, 1, 2).float(), 2)
    sound = torch.from_numpy(shard["samples"].astype(np.float32) / 32768.0)
    blink, gaze, performed = (
        torch.from_numpy(shard[name].astype(np.float32)) for name in ("blink", "gaze", "pose")
    )
    behaviour = behaviour_tracks(blink, gaze, performed)
    mirrored_behaviour = behaviour * behaviour.new_tensor([1.0, -1.0, 1.0])[:, None]
    pose = settle(performed)
    mirrored_pose = pose * pose.new_tensor([-1.0, 1.0, -1.0, -1.0, 1.0, 1.0])
    audio = speech_features(speech, sound, pose.shape[1])
    twins = {
        "local_NKLGG": (codec.motion.encode(field), codec.motion.encode(mirror_fields(field))),
        "image_N3HW": (image, image.flip(-1)),
        "pose_NT6": (pose, mirrored_pose),
        "behaviour_N3T": (behaviour, mirrored_behaviour),
    }
    same = {
        "audio_NCT": audio,
        "openness_NT": torch.from_numpy(shard["openness"].astype(np.float32)),
        "ref_openness_N": torch.from_numpy(shard["ref_openness"].astype(np.float32)).reshape(-1),
        "visemes_NVT": torch.from_numpy(shard["visemes"].astype(np.float32)).transpose(1, 2),
    }
    tensors = {name: torch.cat(pair) for name, pair in twins.items()}
    tensors |= {name: torch.cat((value, value)) for name, value in same.items()}
    tensors["local_NKLGG"] = tensors["local_NKLGG"].half()
    tensors["image_N3HW"] = tensors["image_N3HW"].round().to(torch.uint8)
    return LatentClips(**tensors)


def join(parts: list[LatentClips]) -> LatentClips:
    """Concatenate clips."""
    return LatentClips(
        **{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(LatentClips)}
    )


def run(args: argparse.Namespace) -> None:
    """Convert a folder of shards."""
    codec, speech = MotionCodec(MotionCodecConfig()), MelEncoderNet(MelEncoderConfig())
    load_weights(codec, args.codec)
    load_weights(speech, args.speech)
    with torch.inference_mode():
        parts = [convert(read_shard(p, NAMES), codec, speech) for p in shard_paths(args.clips)]
    join(parts).save(args.out)


if __name__ == "__main__":
    from training.commands import main

    main("train", "latents")
