"""A million broken inputs into the wire's decoder: each is a message, or refused in one line.

    python benchmarks/fuzz_wire.py [--count 1000000] [--seed 1]

Inputs arrive in pieces of random size. Whatever raises anything but WireError, takes over a tenth
of a second, holds more than was fed, or gives a message that does not come back as it went is kept
in tests/fuzz/corpus/ for the tests to replay, and the program ends with status 1.
"""

import argparse
import contextlib
import gc
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

from report import ROOT, table, write_report
from viva.v1.framing import FrameDecoder, WireError
from viva.v1.messages import AnyMessage, encode, parse
from wire_inputs import MUTATIONS, inputs, seeded

CORPUS = ROOT / "tests" / "fuzz" / "corpus"
MAX_INPUT_S = 0.1
MAX_LINE_CHARS = 300
Decode = Callable[[bytes, random.Random], list[AnyMessage]]


@dataclass(slots=True)
class Tally:
    """What became of the inputs, by what was done to them."""

    tried: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    messages: Counter[str] = field(default_factory=Counter)
    found: list[tuple[str, bytes]] = field(default_factory=list)
    slowest_s: float = 0.0


def decode(data: bytes, rng: random.Random) -> list[AnyMessage]:
    """All messages of a stream that arrives in pieces.

    Raises:
        WireError: the stream breaks the contract somewhere.
        MemoryError: the decoder holds more than it was fed.
    """
    decoder, made = FrameDecoder(), list[AnyMessage]()
    size = rng.choice([1, 7, 64, 64, 64, 4096, 4096, 4096])
    for place in range(0, len(data), size):
        made += map(parse, decoder.feed(data[place : place + size]))
        if decoder.num_held_bytes > len(data):
            raise MemoryError(f"{decoder.num_held_bytes} bytes held of {len(data)} fed")
    decoder.finish()
    return made


def try_all(
    seed: int,
    count: int,
    corpus: list[bytes],
    decode: Decode = decode,
) -> Tally:
    """Feed so many inputs and count what became of them."""
    tally, rng = Tally(), seeded(seed)
    # Walking over all of torch's objects now and then would be taken for a slow input.
    gc.freeze()
    for name, data in inputs(seed, count, corpus):
        tally.tried[name] += 1
        began_s = time.perf_counter()
        try:
            made = decode(data, rng)
            tally.messages[name] += len(made)
            if any(parse_back(message) != message for message in made):
                tally.found.append(("came back as another", data))
        except WireError as error:
            tally.refused[name] += 1
            if "\n" in str(error) or len(str(error)) > MAX_LINE_CHARS:
                tally.found.append(("no short line", data))
        except Exception as error:  # noqa: BLE001  # finding the unexpected is the point
            tally.found.append((type(error).__name__, data))
        took_s = time.perf_counter() - began_s
        if took_s > MAX_INPUT_S:  # its own doing, or that of whatever else runs?
            took_s = min(timed(decode, data, rng) for _ in range(5))
            if took_s > MAX_INPUT_S:
                tally.found.append((f"{took_s:.2f} s", data))
        tally.slowest_s = max(tally.slowest_s, took_s)
    gc.unfreeze()
    return tally


def timed(decode: Decode, data: bytes, rng: random.Random) -> float:
    """How long an input takes, in seconds."""
    began_s = time.perf_counter()
    with contextlib.suppress(Exception):
        decode(data, rng)
    return time.perf_counter() - began_s


def parse_back(message: AnyMessage) -> AnyMessage:
    """The message after a way over the wire."""
    (payload,) = FrameDecoder().feed(encode(message))
    return parse(payload)


def main() -> int:
    """Run, report, keep what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    corpus = [path.read_bytes() for path in sorted(CORPUS.glob("*.bin"))]
    began_s = time.monotonic()
    tally = try_all(arguments.seed, arguments.count, corpus)
    took_s = time.monotonic() - began_s
    for why, data in tally.found:
        print(f"{why}: {data.hex()[:200]}", file=sys.stderr)
        (CORPUS / f"found-{sha256(data).hexdigest()[:12]}.bin").write_bytes(data)
    print(write_report("fuzz_wire", "The wire's decoder under fuzz", body(tally, took_s)))
    return 1 if tally.found else 0


def body(tally: Tally, took_s: float) -> str:
    """The report's tables."""
    rows = [
        [name, str(tally.tried[name]), str(tally.refused[name]), str(tally.messages[name])]
        for name in MUTATIONS
    ]
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return (
        f"{sum(tally.tried.values())} inputs in {took_s:.0f} s: {len(tally.found)} found. Slowest "
        f"{tally.slowest_s * 1e3:.1f} ms, memory at most {peak_mib:.0f} MiB, most of it torch, "
        "which this page's head needs and the wire does not.\n\n"
        + table(["what was done", "inputs", "refused", "messages that came out"], rows)
    )


if __name__ == "__main__":
    sys.exit(main())
