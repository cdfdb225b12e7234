"""Train the prior from speech to facial motion: `viva train prior`.

Also trains the codec's identity encoder, the portrait's latent frame, since the prior is the
first to need it: how far a mouth must move to close depends on how open the portrait holds it.

Shape legend: B = clips, K = facial channels, L = latent frames, G = grid side.
"""

import argparse

import torch
from torch import nn

from training.codec import recolour
from training.latents import LatentClips
from training.loop import Trainer, export, run_until, seed_step, step_generator
from training.stored import load_weights
from training.visemes import PRESS
from video.head_pose import POSE_CHANNELS
from video.motion_codec import MotionCodec, MotionCodecConfig
from video.prior import MotionPrior, MotionPriorConfig

POCKET_PRIOR = MotionPriorConfig(behaviour_channels=3)
BROW_ROW, EYE_ROW = 2, 3  # grid rows of an aligned portrait
BLINK_WEIGHT, PRESS_WEIGHT = 3.0, 3.0
MOVING_PX = 1.0
CLOSED_PX = 0.3
LIDS_SHUT = 0.8


def channel_weight(codec: MotionCodec) -> torch.Tensor:
    """Return loss weights [K, 1, G, G]: components count by their size, mouth cells double.

    Lids and brows move few pixels and would be drowned by the mouth without weights of their own.
    """
    scale_KGG = codec.motion.scale_GGK.permute(2, 0, 1)
    weight = scale_KGG / scale_KGG.square().mean().sqrt()
    weight = weight.clone()
    weight[:, 4:7, 2:6] *= 2.0
    weight[:, EYE_ROW, 1:7] *= 8.0
    weight[:, BROW_ROW, 1:7] *= 3.0
    return weight[:, None]


def event_weight(clips: LatentClips, index: torch.Tensor, grid: int) -> torch.Tensor:
    """Return [B, 1, L, G, G]: what is brief but seen at once counts for more.

    Eyes count more while they blink, the mouth while lips press for p, b and m.
    """
    closing_BL = _strongest(clips.behaviour_N3T[index, 0])
    pressing_BL = _strongest(clips.visemes_NVT[index, PRESS])
    weight = torch.ones(*closing_BL.shape, grid, grid)
    weight[:, :, EYE_ROW] += (BLINK_WEIGHT - 1.0) * closing_BL[:, :, None]
    weight[:, :, 4:7, 2:6] += (PRESS_WEIGHT - 1.0) * pressing_BL[:, :, None, None]
    return weight[:, None]


def _strongest(track_BT: torch.Tensor) -> torch.Tensor:
    """Return the largest of the four frames of each latent."""
    return track_BT.reshape(len(track_BT), -1, 4).amax(dim=2)


def prior_loss(predicted: torch.Tensor, truth: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the weighted squared error of latents and of their change from latent to latent.

    `weight` broadcasts to latents [B, K, L, G, G] and has their L.
    """
    error = predicted - truth
    change = error[:, :, 1:] - error[:, :, :-1]
    return (error.square() * weight).mean() + 0.5 * (change.square() * weight[:, :, 1:]).mean()


def opening_probe(clips: LatentClips) -> torch.Tensor:
    """Fit a linear reading of mouth opening (px, 4 per latent) from true latents: [D + 1, 4]."""
    inputs = probe_inputs(clips.local_NKLGG.float(), clips.ref_openness_N)
    target = clips.openness_NT.reshape(-1, 4)
    gram = inputs.T @ inputs + 1e-1 * torch.eye(inputs.shape[1])
    solution: torch.Tensor = torch.linalg.solve(gram, inputs.T @ target)
    return solution


def probe_inputs(local_NKLGG: torch.Tensor, ref_openness_N: torch.Tensor) -> torch.Tensor:
    """Return mouth cells, the portrait's own opening and a constant as rows [N * L, D + 1]."""
    mouth = local_NKLGG[:, :, :, 4:7, 2:6].permute(0, 2, 1, 3, 4).flatten(2)
    ref = ref_openness_N[:, None, None].expand(-1, mouth.shape[1], 1)
    return torch.cat((mouth, ref, torch.ones_like(ref)), dim=-1).flatten(0, 1)


def opening_figures(
    probe: torch.Tensor, local_NKLGG: torch.Tensor, clips: LatentClips
) -> dict[str, float]:
    """Return how mouth opening follows the truth, over clips in which the mouth moves.

    `corr` is the mean over clips of the correlation over a clip's frames, `amplitude` the median
    ratio of standard deviations, `closed_px` the mean opening where it should be none.
    """
    read = (probe_inputs(local_NKLGG, clips.ref_openness_N) @ probe).reshape(len(clips), -1)
    truth = clips.openness_NT
    moves = truth.std(dim=1) > MOVING_PX
    a, b = (x - x.mean(dim=1, keepdim=True) for x in (read[moves], truth[moves]))
    norms = a.square().mean(dim=1).sqrt() * b.square().mean(dim=1).sqrt()
    return {
        "corr": float(((a * b).mean(dim=1) / norms.clamp_min(1e-6)).mean()),
        "amplitude": float((a.std(dim=1) / b.std(dim=1)).median()),
        "closed_px": float(read[truth < CLOSED_PX].mean()),
    }


def blink_kept(local_BKLGG: torch.Tensor, clips: LatentClips) -> float:
    """Return how much of the eyes' motion in blinks is there: 1 as in the truth, 0 none."""
    shut_BL = _strongest(clips.behaviour_N3T[:, 0]) > LIDS_SHUT
    made, truth = (
        x.float()[:, :, :, EYE_ROW, 2:6].permute(0, 2, 1, 3)[shut_BL]
        for x in (local_BKLGG, clips.local_NKLGG)
    )
    return float((made * truth).sum() / truth.square().sum().clamp_min(1e-6))


def evaluate(
    codec: MotionCodec, prior: MotionPrior, clips: LatentClips, probe: torch.Tensor
) -> dict[str, float]:
    """Return opening figures of the prior on held-out clips, with their own and other sound."""
    with torch.inference_mode():
        reference = codec.identity(clips.portraits(torch.arange(len(clips))))[:, :, None]
        results = {}
        for name, shift in (("own", 0), ("other", 1)):
            drive = torch.cat((clips.audio_NCT.roll(shift, 0), clips.behaviour_N3T), dim=1)
            past = prior.initial_past(len(clips), drive)
            local = prior(drive, reference, past)[:, POSE_CHANNELS:]
            for key, value in opening_figures(probe, local, clips).items():
                results[f"{name}_{key}"] = round(value, 4)
            results[f"{name}_blinks"] = round(blink_kept(local, clips), 4)
        truth = opening_figures(probe, clips.local_NKLGG.float(), clips)
        results |= {f"probe_{key}": round(value, 4) for key, value in truth.items()}
    return results


def run(args: argparse.Namespace) -> None:
    """Run a slice of prior training and export prior.safetensors and the completed codec."""
    torch.manual_seed(args.seed)
    codec = MotionCodec(MotionCodecConfig())
    load_weights(codec, args.codec)
    codec.requires_grad_(False)
    codec.identity.requires_grad_(True)
    prior = MotionPrior(POCKET_PRIOR)
    if args.init is not None:
        load_weights(prior, args.init)
    trainer = Trainer(
        folder=args.run,
        modules=nn.ModuleDict({"prior": prior, "codec": codec}),
        total=args.steps,
        peak_rate=args.rate,
    )
    clips = LatentClips.load(args.latents)
    weight = channel_weight(codec)
    for step in run_until(trainer, args.minutes):
        rng, draw = step_generator(args.seed, step), seed_step(args.seed, step)
        pick = torch.randint(len(clips), (args.batch,), generator=draw)
        truth = clips.local_NKLGG[pick].float()
        portraits = recolour(clips.portraits(pick)[:, None], rng)[:, 0]
        reference = codec.identity(portraits)[:, :, None]
        drive = clips.drives(pick)
        past = prior.initial_past(len(pick), drive)
        predicted = prior(drive, reference, past)[:, POSE_CHANNELS:]
        loss = prior_loss(predicted, truth, weight * event_weight(clips, pick, 8))
        trainer.update(loss, {"loss": float(loss.detach())})
    trainer.modules.load_state_dict(trainer.averaged())
    if args.held_out is not None:
        held_out = LatentClips.load(args.held_out)
        trainer.held_out(evaluate(codec, prior, held_out, opening_probe(clips)))
    if args.out is not None:
        export(trainer.modules.state_dict(), "prior.", args.out / "prior.safetensors")
        export(trainer.modules.state_dict(), "codec.", args.out / "codec.safetensors")


if __name__ == "__main__":
    from training.commands import main

    main("train", "prior")
