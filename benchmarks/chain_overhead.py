"""What the chain itself takes: stages that do nothing, one chunk under way at a time.

End to end is from handing a chunk in to having its pictures. A hop is from the end of one stage's
work to the beginning of the next one's: log, threads, link and inbox, both threads' waking up.
"""

from chain_load import ray_chain, round_trips_ms
from chain_stages import blank_inputs, blank_work, sleep_recipes
from chain_stats import Check, Section, hops_ms, percentile
from report import table

from pipeline.staged_chain import StagedChain

TRIP_P99_MS = 10.0
HOP_MEDIAN_MS = 1.0
NUM_ACTORS = 4
WARM_UP_CHUNKS = 20
MIB = 1 << 20
# Bytes of a chunk: the pocket model's, and the size for which the limit of a hop is set.
CHUNKS = (("48 KB", 48 << 10), ("1 MB", MIB))
PICTURES = (12, 256, 256, 3)


def measure(transports: list[str], *, num_chunks: int) -> Section:
    """Trips and hops of the pocket model's chunks and of 1 MB, by transport."""
    rows: list[list[str]] = []
    checks: list[Check] = []
    for transport in transports:
        with ray_chain(sleep_recipes([0.0] * NUM_ACTORS, PICTURES), transport=transport) as chain:
            for what, num_bytes in CHUNKS:
                trips, hops = _trips_and_hops(chain, what, num_bytes, num_chunks)
                rows.append([transport, what, *(f"{v:.2f}" for v in _summary(trips, hops))])
                checks += _checks(f"{what}, {transport}", num_bytes, trips, hops)
    head = ["link", "chunk", "trip median ms", "p99", "worst", "hop median ms", "p99"]
    body = (
        f"{NUM_ACTORS} actors that do nothing; the last one puts 12 pictures of 256x256 (2.4 MB) "
        f"into the ring, the driver copies them out. {num_chunks} chunks, one at a time.\n\n"
        f"{table(head, rows)}"
    )
    return Section(title="Overhead of the chain", body=body, checks=tuple(checks))


def _trips_and_hops(
    chain: StagedChain, session: str, num_bytes: int, num_chunks: int
) -> tuple[list[float], list[float]]:
    """Milliseconds of all trips and of all hops, the first chunks left out."""
    chain.prepare(blank_inputs(session, PICTURES[1]))
    chain.controller.spans()
    work = blank_work(session, num_bytes)
    trips = round_trips_ms(chain, work, num_chunks + WARM_UP_CHUNKS)[WARM_UP_CHUNKS:]
    hops = hops_ms(chain.controller.spans(), WARM_UP_CHUNKS)
    chain.reset(session)
    return trips, hops


def _summary(trips: list[float], hops: list[float]) -> list[float]:
    """What a row shows."""
    return [
        percentile(trips, 50),
        percentile(trips, 99),
        max(trips),
        percentile(hops, 50),
        percentile(hops, 99),
    ]


def _checks(name: str, num_bytes: int, trips: list[float], hops: list[float]) -> list[Check]:
    """The limits: of a trip for the model's chunk, of a hop for 1 MB."""
    if num_bytes == MIB:
        named, value, limit = "hop median", percentile(hops, 50), HOP_MEDIAN_MS
    else:
        named, value, limit = "end to end p99", percentile(trips, 99), TRIP_P99_MS
    return [Check(name=f"{named}, {name}", value=value, limit=limit, at_least=False, unit="ms")]
