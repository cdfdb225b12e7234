"""Train the pocket network: `viva train base`.

Flow matching on clips of four chunks. All chunks of a clip share one noise level, as the chunks a
denoising step sees do (each step keeps its own cache of same-level history: Live Avatar's
timestep forcing), so training and streaming are the same computation. The network predicts what
the prior misses: x0 = prior + prediction.

Shape legend: B = clips, C = latent channels, T = latent frames, G = grid side, F = video frames.
"""

import argparse

import torch
from torch import nn

from training.latents import LatentClips
from training.loop import Trainer, export, run_until, seed_step
from training.prior import (
    EYE_ROW,
    POCKET_PRIOR,
    blink_kept,
    channel_weight,
    event_weight,
    opening_figures,
    opening_probe,
)
from training.stored import load_weights
from video.dit import SpeechToVideoDiT
from video.dit_config import DiTConfig
from video.head_pose import POSE_CHANNELS
from video.motion_codec import MotionCodec, MotionCodecConfig
from video.prior import MotionPrior

SHIFT = 3.0  # noise levels are drawn towards the noisy end, where motion is decided
PURE_NOISE_SHARE = 0.2
PLAN_SHARE = 0.4  # of the draws lie at the levels where the plan's steps will stand
SINK_DISTANCE = 15
EVALUATED_SIGMAS = (1.0, 0.95, 0.85, 0.65)  # as in configs/plans/pocket.yaml
POCKET_DIT = DiTConfig(
    dim=192,
    ffn_dim=512,
    num_heads=3,
    num_layers=4,
    in_dim=32,
    out_dim=32,
    cond_dim=32,
    freq_dim=128,
    audio_dim=70,
    num_audio_layers=1,
    num_audio_token=4,
    audio_inject_layers=(0, 2),
    audio_context="carry",
    zero_init=True,
)


def draw_sigma(size: int, generator: torch.Generator) -> torch.Tensor:
    """Draw one noise level per clip: shifted uniform, a share of it exactly 1 or the plan's."""
    u = torch.rand(size, generator=generator).clamp_min(0.01)
    sigma = SHIFT * u / (1 + (SHIFT - 1) * u)
    levels = torch.tensor(EVALUATED_SIGMAS)
    planned = levels[torch.randint(len(levels), (size,), generator=generator)]
    chance = torch.rand(size, generator=generator)
    sigma = torch.where(chance < PURE_NOISE_SHARE + PLAN_SHARE, planned, sigma)
    return torch.where(chance < PURE_NOISE_SHARE, torch.ones_like(sigma), sigma)


def predict_clean(
    dit: SpeechToVideoDiT,
    noisy_BCTGG: torch.Tensor,
    sigma_B: torch.Tensor,
    audio_BCF: torch.Tensor,
    reference_BC1GG: torch.Tensor,
    cond_BCTGG: torch.Tensor,
) -> torch.Tensor:
    """Return the network's estimate of the clean latents of whole clips."""
    time_BT = (sigma_B * 1000.0)[:, None].expand(-1, noisy_BCTGG.shape[2])
    prediction = dit.forward_full(
        noisy_BCTGG,
        time_BT,
        audio_BCF[:, None],
        reference_BC1GG,
        cond=cond_BCTGG,
        sink_distance=SINK_DISTANCE,
    )
    return cond_BCTGG + prediction


def loss_weight(codec: MotionCodec) -> torch.Tensor:
    """Return loss weights [C, 1, G, G]: head pose 1, facial components by their size."""
    local = channel_weight(codec)
    return torch.cat((torch.ones(POSE_CHANNELS, *local.shape[1:]), local))


def sample(
    dit: SpeechToVideoDiT,
    sigmas: tuple[float, ...],
    noise: torch.Tensor,
    audio_BCF: torch.Tensor,
    reference: torch.Tensor,
    cond: torch.Tensor,
) -> torch.Tensor:
    """Denoise whole clips by Euler steps; equals streaming with one cache lane per step."""
    x = noise
    for sigma, following in zip(sigmas, (*sigmas[1:], 0.0), strict=True):
        clean = predict_clean(dit, x, torch.full((len(x),), sigma), audio_BCF, reference, cond)
        x = x + (following - sigma) * (x - clean) / sigma
    return x


def motion_figures(name: str, latents_BCTGG: torch.Tensor) -> dict[str, float]:
    """Return spread and change of head pose and spread of the eyes' channels."""
    pose = latents_BCTGG[:, :POSE_CHANNELS].mean((-2, -1))
    eyes = latents_BCTGG[:, POSE_CHANNELS:, :, EYE_ROW]
    return {
        f"{name}_pose_std": float(pose.std()),
        f"{name}_pose_change": float(pose.diff(dim=2).std()),
        f"{name}_eye_std": float(eyes.std()),
    }


def evaluate(
    dit: SpeechToVideoDiT,
    prior: MotionPrior,
    codec: MotionCodec,
    clips: LatentClips,
    probe: torch.Tensor,
) -> dict[str, float]:
    """Return figures of held-out clips generated from their own and from other clips' sound."""
    generator = torch.Generator().manual_seed(7)
    figures = {}
    with torch.inference_mode():
        truth = clips.latents(torch.arange(len(clips)))
        reference = codec.identity(clips.portraits(torch.arange(len(clips))))[:, :, None]
        noise = torch.randn(truth.shape, generator=generator)
        for name, shift in (("own", 0), ("other", 1)):
            audio = clips.audio_NCT.roll(shift, 0)
            drive = torch.cat((audio, clips.behaviour_N3T), dim=1)
            cond = prior(drive, reference, prior.initial_past(len(clips), drive))
            made = sample(dit, EVALUATED_SIGMAS, noise, audio, reference, cond)
            for key, value in opening_figures(probe, made[:, POSE_CHANNELS:], clips).items():
                figures[f"{name}_{key}"] = value
            figures[f"{name}_blinks"] = blink_kept(made[:, POSE_CHANNELS:], clips)
            figures |= motion_figures(name, made)
    figures |= motion_figures("true", truth)
    return {name: round(value, 4) for name, value in figures.items()}


def run(args: argparse.Namespace) -> None:
    """Run a slice of base training and export dit.safetensors."""
    torch.manual_seed(args.seed)
    codec, prior = MotionCodec(MotionCodecConfig()), MotionPrior(POCKET_PRIOR)
    load_weights(codec, args.parts / "codec.safetensors")
    load_weights(prior, args.parts / "prior.safetensors")
    codec.requires_grad_(False)
    prior.requires_grad_(False)
    dit = SpeechToVideoDiT(POCKET_DIT)
    if args.init is not None:
        load_weights(dit, args.init)
    trainer = Trainer(
        folder=args.run,
        modules=nn.ModuleDict({"dit": dit}),
        total=args.steps,
        peak_rate=args.rate,
        average_decay=0.998,
    )
    clips = LatentClips.load(args.latents)
    weight = loss_weight(codec)
    for step in run_until(trainer, args.minutes):
        generator = seed_step(args.seed, step)
        pick = torch.randint(len(clips), (args.batch,), generator=generator)
        audio, clean = clips.audio_NCT[pick], clips.latents(pick)
        with torch.no_grad():
            reference = codec.identity(clips.portraits(pick))[:, :, None]
            drive = clips.drives(pick)
            cond = prior(drive, reference, prior.initial_past(len(pick), drive))
        sigma = draw_sigma(len(pick), generator)
        mix = sigma[:, None, None, None, None]
        noisy = (1 - mix) * clean + mix * torch.randn(clean.shape, generator=generator)
        events = event_weight(clips, pick, clean.shape[-1])
        error = predict_clean(dit, noisy, sigma, audio, reference, cond) - clean
        loss = (error.square() * weight * events).mean()
        pose = float(error[:, :POSE_CHANNELS].detach().square().mean())
        trainer.update(loss, {"loss": float(loss.detach()), "pose": pose})
    trainer.modules.load_state_dict(trainer.averaged())
    if args.held_out is not None:
        held_out = LatentClips.load(args.held_out)
        trainer.held_out(evaluate(dit, prior, codec, held_out, opening_probe(clips)))
    if args.out is not None:
        export(trainer.averaged(), "dit.", args.out)


if __name__ == "__main__":
    from training.commands import main

    main("train", "base")
