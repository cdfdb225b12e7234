"""A plan and a chain's work in round figures, for tests of where things run."""

from itertools import pairwise

from pipeline.chain_work import ChainWork, DecodeWork
from pipeline.dit_work import StepWork
from pipeline.plan import Plan, StageSpec, Step

TERA, GIGA = 1e12, 10**9


def plan_of(num_steps: int, **stage: str) -> Plan:
    """A plan of one stage with so many even steps."""
    edges = [1.0 - index / num_steps for index in range(num_steps)] + [0.0]
    steps = tuple(Step(sigma_in=a, sigma_out=b) for a, b in pairwise(edges))
    return Plan(name="even", stages=(StageSpec(name="all", steps=steps, **stage),))


def work_of(num_steps: int, flops: float = 40 * TERA) -> ChainWork:
    """Steps of 100 ms on a card, 2 GB of lanes and 1 GB of sink a session, 16 GB of weights."""
    step = StepWork(
        flops=flops, num_layers=0, lane_values=GIGA, sink_values=GIGA // 2, scratch_values=0
    )
    return ChainWork(
        steps=(step,) * num_steps,
        decode=DecodeWork(flops=flops / 4, weight_values=0, state_values=GIGA // 4),
        network_values=8 * GIGA,
        latent_values=1000,
        sink_flops=flops,
        pictures=12,
    )
