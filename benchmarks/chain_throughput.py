"""How much faster two single-thread actors are than one single-thread process, pocket model.

The plan is cut where both halves take as long, by processor time measured in the same run. Two
cases: real pictures, where the second half is the rest of the steps and the decoder; and latents
alone, where the halves are halves of the steps. Repeats alternate between the two ways to run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from time import process_time, sleep

import torch
from chain_load import Spending, Stream, ray_chain, stream_local, stream_staged
from chain_stages import JoinedRecipe, ShowStage, SleepRecipe
from chain_stats import Check, Section, best_possible, ceiling, median_ratio, steps_of_first_half
from report import table

from pipeline.catalog import model_path
from pipeline.chain import LocalChain
from pipeline.cuts import cut_at
from pipeline.decode_stage import DecodeStage
from pipeline.model import Model, load_model
from pipeline.plan import Plan, StageSpec, Step
from pipeline.recipe import DecodeRecipe, DenoiseRecipe, Recipe
from pipeline.sampler import pure_noise
from pipeline.stage import ChunkWork, SessionInputs, Stage
from video.reference import load_portrait

LIMIT = 1.8
# Chunks before and after those that count: the chain fills up, then runs empty.
WARM_UP_CHUNKS = 4
RUN_OUT_CHUNKS = 5
COST_CHUNKS = 6
IDLE_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A model, a plan of one stage, a session and its chunks."""

    model: Model
    plan: Plan
    inputs: SessionInputs
    works: list[ChunkWork]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A way to measure: the plan cut in two, and whether pictures are decoded."""

    name: str
    plan: Plan
    shows: bool
    halves_s: tuple[float, float]

    def recipes(self, model: str) -> list[Recipe]:
        """Two actors' recipes."""
        first, rest = (DenoiseRecipe(model=model, plan=self.plan, index=i) for i in (0, 1))
        end: Recipe = DecodeRecipe(model=model)
        if not self.shows:
            end = SleepRecipe(index=2, shows=True)
        return [first, JoinedRecipe(parts=(rest, end))]

    def local(self, model: Model) -> LocalChain:
        """The same stages in this process."""
        if self.shows:
            return model.local_chain(self.plan)
        recipes = (DenoiseRecipe(model=str(model.folder), plan=self.plan, index=i) for i in (0, 1))
        show: Stage[object] = ShowStage(0.0, None)
        return LocalChain([recipe.build() for recipe in recipes], show)  # type: ignore[arg-type]  # it makes pictures


def long_plan(num_steps: int) -> Plan:
    """So many Euler steps of equal width, in one stage; the steps cost what any step costs."""
    sigmas = [1.0 - index / num_steps for index in range(num_steps)] + [0.0]
    steps = tuple(
        Step(sigma_in=sigmas[i], sigma_out=sigmas[i + 1], rule="euler") for i in range(num_steps)
    )
    return Plan(name=f"euler{num_steps}", stages=(StageSpec(name="all", steps=steps),))


def make_bench(model_name: str, num_steps: int, num_chunks: int) -> Bench:
    """A session of the model's first portrait that hears something in every chunk."""
    model = load_model(model_name)
    portrait = min((model_path(model_name) / "portraits").glob("*.png"))
    image_BCHW = load_portrait(portrait, size=model.config.native_size).image_CHW[None]
    inputs = model.session_inputs(image_BCHW, session="bench", seed=0, fps=model.fps)
    conditioner, encoder = model.conditioner(inputs), model.speech_encoder()
    noise = torch.Generator().manual_seed(0)
    works = []
    for index in range(num_chunks):
        shape = (encoder.num_layers, encoder.channels, 3 * model.codec.frames_per_latent)
        audio_LCT = torch.randn(shape, generator=noise)
        cond_CTHW = conditioner.push(audio_LCT)
        latent = pure_noise(0, index, 3 * index, cond_CTHW)
        works.append(
            ChunkWork(session="bench", latent=latent, audio_LCT=audio_LCT, cond_CTHW=cond_CTHW)
        )
    return Bench(model=model, plan=long_plan(num_steps), inputs=inputs, works=works)


def measured_costs(bench: Bench) -> tuple[float, float]:
    """Processor seconds of one step and of decoding one chunk, the first chunks left out."""
    folder = str(bench.model.folder)
    steps = DenoiseRecipe(model=folder, plan=bench.plan, index=0).build()
    decoder: DecodeStage = DecodeRecipe(model=folder).build()
    for stage in (steps, decoder):
        stage.prepare(bench.inputs)
    step_s, decode_s = [], []
    for work in bench.works[:COST_CHUNKS]:
        began_s = process_time()
        made = steps.process(work)
        between_s = process_time()
        decoder.process(made)
        step_s.append((between_s - began_s) / len(bench.plan.steps))
        decode_s.append(process_time() - between_s)
    return median(step_s[2:]), median(decode_s[2:])


def cases(bench: Bench, step_s: float, decode_s: float) -> list[Case]:
    """With pictures and without, each cut into equal halves."""
    made = []
    num_steps = len(bench.plan.steps)
    for name, rest_s in (("steps and decoder", decode_s), ("steps alone", 0.0)):
        first = steps_of_first_half(num_steps, step_s, rest_s)
        made.append(
            Case(
                name=name,
                plan=cut_at(bench.plan, [first]),
                shows=rest_s > 0,
                halves_s=(first * step_s, (num_steps - first) * step_s + rest_s),
            )
        )
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A case and its runs, in pairs made one after the other.

    `idle_share` is what the chain costs without any chunk, in processor seconds a second.
    """

    case: Case
    local: list[Stream]
    ray: list[Stream]
    idle_share: float

    def chunk_ms(self, streams: Sequence[Stream]) -> list[float]:
        """Milliseconds a chunk in each run, of the chunks that count."""
        last = streams[0].num_chunks - 1 - RUN_OUT_CHUNKS
        return [1e3 * stream.chunk_s(WARM_UP_CHUNKS - 1, last) for stream in streams]

    def cpu_ms(self, streams: Sequence[Stream]) -> list[float]:
        """Processor milliseconds a chunk, median over runs, by process."""
        return [
            1e3 * median(v) / streams[0].num_chunks
            for v in zip(*(s.spent_s for s in streams), strict=True)
        ]

    @property
    def ratio(self) -> float:
        """The speed-up."""
        return median_ratio(self.chunk_ms(self.local), self.chunk_ms(self.ray))

    @property
    def is_identical(self) -> bool:
        """Whether all runs made the same pictures."""
        return len({stream.digest for stream in (*self.local, *self.ray)}) == 1


def run_case(bench: Bench, case: Case, num_repeats: int) -> Outcome:
    """Alternate between the process and the actors."""
    local_chain = case.local(bench.model)
    local, ray = [], []
    with ray_chain(case.recipes(str(bench.model.folder))) as chain:
        spending = Spending(chain)
        sleep(IDLE_S)
        idle_share = sum(spending.taken()) / IDLE_S
        for _ in range(num_repeats):
            local_chain.prepare(bench.inputs)
            local.append(stream_local(local_chain, bench.works))
            local_chain.reset(bench.inputs.session)
            chain.prepare(bench.inputs)
            ray.append(stream_staged(chain, bench.works, spending))
            chain.reset(bench.inputs.session)
    return Outcome(case=case, local=local, ray=ray, idle_share=idle_share)


def describe(outcome: Outcome, cores: int = 2) -> Section:
    """The outcome as Markdown and its limit."""
    case = outcome.case
    local_ms, ray_ms = outcome.chunk_ms(outcome.local), outcome.chunk_ms(outcome.ray)
    (alone_ms,) = outcome.cpu_ms(outcome.local)
    *actors_ms, driver_ms, others_ms = outcome.cpu_ms(outcome.ray)
    all_ms = sum(actors_ms) + driver_ms + others_ms
    rows = [
        ["one process", _ms(median(local_ms)), _ms(alone_ms), "", "", "", _ms(alone_ms)],
        [
            "two actors",
            _ms(median(ray_ms)),
            *(map(_ms, actors_ms)),
            _ms(driver_ms),
            _ms(others_ms),
            _ms(all_ms),
        ],
    ]
    head = ["", "ms a chunk", "processor ms: 1st", "2nd", "driver", "Ray", "all"]
    busy_ms = all_ms - outcome.idle_share * median(ray_ms)
    at_most = ceiling(alone_ms, busy_ms, outcome.idle_share, cores)
    each = ", ".join(f"{a / b:.2f}" for a, b in zip(local_ms, ray_ms, strict=True))
    sizes = [len(stage.steps) for stage in case.plan.stages]
    body = (
        f"{sum(sizes)} steps cut {sizes[0]} + {sizes[1]}"
        f"{' and the decoder' if case.shows else ''}: halves of "
        f"{1e3 * case.halves_s[0]:.0f} and {1e3 * case.halves_s[1]:.0f} processor ms, which allow "
        f"{best_possible(case.halves_s):.2f} at most.\n\n{table(head, rows)}\n\n"
        f"**Speed-up {outcome.ratio:.2f}** (median of {each}); pictures identical: "
        f"{'yes' if outcome.is_identical else 'NO'}. The chain costs "
        f"{1e3 * outcome.idle_share:.0f} processor ms a second whatever it does, and beside that "
        f"{busy_ms:.1f} ms a chunk, **{busy_ms / alone_ms:.3f}** of the one process's: "
        f"{cores} cores allow {at_most:.2f}."
    )
    checks = (
        Check(name=f"speed-up, {case.name}", value=outcome.ratio, limit=LIMIT, at_least=True),
        Check(
            name=f"identical pictures, {case.name}",
            value=float(outcome.is_identical),
            limit=1.0,
            at_least=True,
        ),
    )
    return Section(title=f"Throughput: {case.name}", body=body, checks=checks)


def _ms(value: float) -> str:
    return f"{value:.1f}"


def measure(model: str, *, num_steps: int, num_chunks: int, num_repeats: int) -> list[Section]:
    """Both cases, `num_chunks` of which count in each of `num_repeats` runs."""
    torch.set_num_threads(1)
    bench = make_bench(model, num_steps, WARM_UP_CHUNKS + num_chunks + RUN_OUT_CHUNKS)
    step_s, decode_s = measured_costs(bench)
    return [describe(run_case(bench, case, num_repeats)) for case in cases(bench, step_s, decode_s)]
