"""Train the speech encoder on exact visemes: `viva train speech`.

Heards come with their viseme tracks from the synthesiser's phoneme times; each is changed as
recordings differ (noise, room, equaliser, voice) before the network hears it.

Shape legend: B = utterances in the batch, M = mel bands, V = visemes, T = frames at 100 Hz.
"""

import argparse

import numpy as np
import torch
from torch import nn

from audio.features import log_mel
from audio.mel_encoder import VISEME_NAMES, MelEncoderConfig, MelEncoderNet
from training.augment import augment
from training.corpus import Heard, read_corpus
from training.loop import Trainer, export, run_until, step_generator
from training.stored import load_weights

SAMPLES = 48000  # three seconds at 16 kHz
FRAMES = 300
AUGMENTED_SHARE = 0.6
VISEME_WEIGHT = (1.0, 1.0, 1.0, 1.5, 2.0, 0.7)


def excerpt(utterance: Heard, rng: np.random.Generator, changed: bool) -> Heard:
    """Return three seconds of sound [48000] and visemes [6, 300] from a random place."""
    samples_T, visemes_VT = utterance
    lead = int(rng.integers(0, 60)) if changed else 0
    samples_T = np.pad(samples_T, (lead * 160, SAMPLES))
    visemes_VT = np.pad(visemes_VT, ((0, 0), (lead, FRAMES)))
    last = max(1, visemes_VT.shape[1] - 2 * FRAMES + 100)
    start = int(rng.integers(0, last)) if changed else 0
    sound = samples_T[start * 160 : start * 160 + SAMPLES]
    if changed and rng.random() < AUGMENTED_SHARE:
        sound = augment(sound.astype(np.float32), rng)
    return sound.astype(np.float32), visemes_VT[:, start : start + FRAMES].astype(np.float32)


def batch_of(
    utterances: list[Heard], rng: np.random.Generator, size: int, changed: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mel [B, M, 300] and visemes [B, 6, 300] of `size` random excerpts."""
    picks = rng.integers(0, len(utterances), size)
    pairs = [excerpt(utterances[pick], rng, changed) for pick in picks]
    sound = torch.from_numpy(np.stack([pair[0] for pair in pairs]))
    mel = log_mel(sound)[..., :FRAMES]
    return mel, torch.from_numpy(np.stack([pair[1] for pair in pairs]))


def viseme_loss(predicted_BVT: torch.Tensor, truth_BVT: torch.Tensor) -> torch.Tensor:
    """Return the weighted squared error of visemes and of their changes over 50 ms."""
    weight = predicted_BVT.new_tensor(VISEME_WEIGHT)[:, None]
    change = predicted_BVT[..., 5:] - predicted_BVT[..., :-5]
    true_change = truth_BVT[..., 5:] - truth_BVT[..., :-5]
    direct = ((predicted_BVT - truth_BVT).square() * weight).mean()
    return direct + 0.5 * ((change - true_change).square() * weight).mean()


def evaluate(net: MelEncoderNet, utterances: list[Heard]) -> dict[str, float]:
    """Return the correlation of each viseme over all frames of clean held-out utterances."""
    net.eval()
    predicted, truth = [], []
    with torch.inference_mode():
        for utterance in utterances:
            samples_T, visemes_VT = utterance
            out = net(log_mel(torch.from_numpy(samples_T)[None]))[1][0]
            length = min(out.shape[-1], visemes_VT.shape[1])
            predicted.append(out[:, :length].numpy())
            truth.append(visemes_VT[:, :length])
    net.train()
    joined, expected = np.concatenate(predicted, axis=1), np.concatenate(truth, axis=1)
    return {
        name: round(float(np.corrcoef(joined[row], expected[row])[0, 1]), 4)
        for row, name in enumerate(VISEME_NAMES)
    }


def run(args: argparse.Namespace) -> None:
    """Run a slice of speech-encoder training, report held-out correlations, export the weights."""
    torch.manual_seed(args.seed)
    net = MelEncoderNet(MelEncoderConfig())
    if args.init is not None:
        load_weights(net, args.init)
    trainer = Trainer(
        folder=args.run,
        modules=nn.ModuleDict({"speech": net}),
        total=args.steps,
        peak_rate=args.rate,
    )
    utterances = read_corpus(args.corpus)
    for step in run_until(trainer, args.minutes):
        mel, visemes = batch_of(utterances, step_generator(args.seed, step), args.batch)
        loss = viseme_loss(net(mel)[1], visemes)
        trainer.update(loss, {"loss": float(loss.detach())})
    trainer.modules.load_state_dict(trainer.averaged())
    if args.held_out is not None:
        trainer.held_out(evaluate(net, read_corpus(args.held_out)))
    if args.out is not None:
        export(trainer.averaged(), "speech.", args.out)


if __name__ == "__main__":
    from training.commands import main

    main("train", "speech")
