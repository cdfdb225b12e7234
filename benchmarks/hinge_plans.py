"""What low steps cost the pocket model and what they save: plans of two resolutions, both routes.

    python -m benchmarks.hinge_plans SAMPLES [--seconds 6] [--seeds 0 1] > result.json

SAMPLES holds recordings (`*.wav`). Each plan makes the same speech from the same seed as the plain
plan of four full steps. Pictures and lips are read at the portrait's own head pose, because heads
move by the noise, and noise on another grid is other noise. The plain plan with another seed is the
control: what differs by chance alone.

Shape legend: T = video frames, N = frames read.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from audio.align import num_frames
from audio.chunk import AudioChunk
from audio.envelope import band_power, voiced_envelope
from audio.source import FileSource
from pipeline.chain import LocalChain
from pipeline.curves import correlation
from pipeline.generator import AvatarGenerator
from pipeline.model import Model, load_model
from pipeline.plan import Plan, StageSpec, Step
from pipeline.route import ShortRoute
from pipeline.stage import Stage
from video.codec import DecoderState
from video.crop import parse_crop
from video.face_reader import FaceReader
from video.hinge import level_before
from video.motion_codec import MotionCodec
from video.reference import load_portrait
from video.rope import RopeKind

LEVELS = (1.0, 0.95, 0.85, 0.65, 0.0)  # those of the plan `pocket`
PORTRAITS = ("ada", "kofi", "chioma")
PEAK = 2.0  # pictures lie in [-1, 1]


def plan(
    num_low: int,
    route: str = "euler",
    rope: RopeKind = "native",
    short: ShortRoute | None = None,
    levels: tuple[float, ...] = LEVELS,
) -> Plan:
    """The plan `pocket` with its first steps at half the resolution.

    The levels of low steps are those that grow into its own.
    """
    steps = []
    for index in range(len(levels) - 1):
        sigma_in, sigma_out = levels[index : index + 2]
        is_low, crosses = index < num_low, index == num_low - 1
        rule = "renoise" if crosses and route == "renoise" else "euler"
        if is_low:
            sigma_in = level_before(sigma_in, 2)
            sigma_out = sigma_out if rule == "renoise" else level_before(sigma_out, 2)
        resolution = 0.5 if is_low else 1.0
        steps.append(
            Step(sigma_in=sigma_in, sigma_out=sigma_out, rule=rule, resolution=resolution)  # type: ignore[arg-type]  # one of the two
        )
    stage = StageSpec(name="denoise", steps=tuple(steps))
    return Plan(name="hinge", stages=(stage,), rope=rope, short=short)


def plans() -> dict[str, Plan]:
    """What is compared, by name."""
    made = {"plain": plan(0)}
    for num_low in (1, 2, 3):
        for route in ("euler", "renoise"):
            made[f"{num_low} low, {route}"] = plan(num_low, route)
    ropes: tuple[RopeKind, ...] = ("positions", "ntk")
    for rope in ropes:
        made[f"2 low, euler, {rope}"] = plan(2, "euler", rope)
        made[f"3 low, euler, {rope}"] = plan(3, "euler", rope)
    made["plain, then 0+3"] = plan(0, short=ShortRoute(steps=(0, 3)))
    made["2 low, then 0+2"] = plan(2, short=ShortRoute(steps=(0, 2)))
    made["2 low, then 0+3"] = plan(2, short=ShortRoute(steps=(0, 3)))
    made["2 low, then 0+1+3"] = plan(2, short=ShortRoute(steps=(0, 1, 3)))
    return made


@dataclass(slots=True)
class Timed:
    """A stage, and the processor seconds of each of its chunks."""

    stage: Stage[Any]
    seconds: list[float] = field(default_factory=list)

    def process(self, work: Any) -> Any:
        """Do the stage's share."""
        began = time.process_time()
        made = self.stage.process(work)
        self.seconds.append(time.process_time() - began)
        return made

    def __getattr__(self, name: str) -> Any:
        """Whatever else the stage can do."""
        return getattr(self.stage, name)


@dataclass(slots=True)
class LatentsOnly:
    """The codec, except that it shows its latents and makes black pictures of two pixels."""

    codec: MotionCodec
    on_latents: Callable[[torch.Tensor], None]

    def decode(self, latents_BCTHW: torch.Tensor, _state: DecoderState) -> torch.Tensor:
        """Show the latents."""
        self.on_latents(latents_BCTHW)
        num_pictures = latents_BCTHW.shape[2] * self.codec.frames_per_latent
        return latents_BCTHW.new_full((1, 3, num_pictures, 2, 2), -1.0)

    def __getattr__(self, name: str) -> Any:
        """Whatever else the codec can do."""
        return getattr(self.codec, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What one plan made of one clip; pictures at the portrait's own pose."""

    opening_T: npt.NDArray[np.float64]
    pictures_N3HW: torch.Tensor
    chunk_ms: float


def heard(path: Path, seconds: float) -> tuple[list[AudioChunk], int]:
    """The first seconds of a recording, and its rate."""
    source = FileSource(path)
    chunks: Iterator[AudioChunk] = source.chunks()
    end = int(seconds * source.sample_rate)
    return [chunk for chunk in chunks if chunk.pts < end], source.sample_rate


def show(
    model: Model,
    tried: Plan,
    image_BCHW: torch.Tensor,
    sound: list[AudioChunk],
    rate: int,
    seed: int,
) -> Shown:
    """Generate a clip and read it."""
    codec = model.parts.codec
    if not isinstance(codec, MotionCodec):
        raise TypeError("faces are read from a motion codec: use the pocket model")
    reader, parts, pictures = FaceReader(codec, image_BCHW), [], []

    def read(latents_BCTHW: torch.Tensor) -> None:
        frames = reader.frames(latents_BCTHW)
        parts.append(reader.read_frames(frames).opening_px_N)
        pictures.append(frames.pictures_N3HW.half())

    chain = LocalChain.from_plan(tried, model.denoiser(tried), LatentsOnly(codec, read))
    timed: dict[int, Timed] = {}

    def around(index: int, stage: Stage[Any]) -> Any:
        timed[index] = Timed(stage)
        return timed[index]

    chain.wrap(around)
    session = AvatarGenerator(model, tried, image_BCHW, sample_rate=rate, seed=seed, chain=chain)
    for _ in session.run(sound):
        pass
    return Shown(
        opening_T=torch.cat(parts).double().numpy(),
        pictures_N3HW=torch.cat(pictures),
        chunk_ms=1000 * float(np.median(timed[0].seconds[2:])),
    )


def psnr(made: Shown, wanted: Shown) -> float:
    """Decibels of all pictures together."""
    error = (made.pictures_N3HW.float() - wanted.pictures_N3HW.float()).square().mean()
    return float(10 * torch.log10(PEAK**2 / error.clamp_min(1e-12)))


def envelope_of(sound: list[AudioChunk], rate: int, model: Model) -> npt.NDArray[np.float64]:
    """Loudness of the voice by video frame."""
    samples_S = np.concatenate([chunk.samples_T for chunk in sound])
    count = num_frames(len(samples_S), rate, model.fps)
    return voiced_envelope(band_power(samples_S, rate, model.fps, count))


def figures(made: Shown, wanted: Shown, envelope_T: npt.NDArray[np.float64]) -> dict[str, float]:
    """One clip's figures beside the plain plan's."""
    count = len(envelope_T)
    return {
        "psnr_db": psnr(made, wanted),
        "opening_corr": correlation(made.opening_T, wanted.opening_T),
        "opening_std_px": float(made.opening_T.std()),
        "envelope_corr": correlation(made.opening_T[:count], envelope_T),
        "chunk_ms": made.chunk_ms,
    }


@torch.inference_mode()
def measure(samples: Path, seconds: float, seeds: list[int]) -> dict[str, dict[str, float]]:
    """Means over all clips and seeds, by plan."""
    model = load_model("pocket")
    rows: dict[str, list[dict[str, float]]] = {}
    for portrait, path in zip(PORTRAITS, sorted(samples.glob("*.wav")) * 2, strict=False):
        folder = Path(__file__).parents[1] / "configs" / "models" / "pocket" / "portraits"
        loaded = load_portrait(
            folder / f"{portrait}.png", size=model.config.native_size, crop=parse_crop("auto")
        )
        image_BCHW = loaded.image_CHW[None]
        sound, rate = heard(path, seconds)
        envelope_T = envelope_of(sound, rate, model)
        for seed in seeds:
            plain = show(model, plan(0), image_BCHW, sound, rate, seed)
            other = show(model, plan(0), image_BCHW, sound, rate, seed + 1000)
            rows.setdefault("plain, another seed", []).append(figures(other, plain, envelope_T))
            for name, tried in plans().items():
                made = (
                    plain if name == "plain" else show(model, tried, image_BCHW, sound, rate, seed)
                )
                row = figures(made, plain, envelope_T)
                rows.setdefault(name, []).append(row)
                print(portrait, path.name, seed, name, row, file=sys.stderr, flush=True)
    return {
        name: {key: float(np.mean([row[key] for row in all_rows])) for key in all_rows[0]}
        for name, all_rows in rows.items()
    }


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("samples", type=Path)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(measure(options.samples, options.seconds, options.seeds), indent=2))


if __name__ == "__main__":
    main()
