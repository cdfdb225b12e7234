"""The wire's corpus is replayed, and the fuzz program finds what is planted."""

import random
from pathlib import Path

import fuzz_wire
import pytest
from viva.v1.framing import WireError
from viva.v1.messages import AnyMessage
from wire_inputs import MUTATIONS, inputs, seeded

pytestmark = pytest.mark.unit

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.bin"))


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_a_kept_input_is_refused_or_taken_as_its_name_says(path: Path) -> None:
    data = path.read_bytes()
    for seed in range(3):
        if path.stem.startswith("good-"):
            fuzz_wire.decode(data, seeded(seed))
        else:
            with pytest.raises(WireError):
                fuzz_wire.decode(data, seeded(seed))


def test_a_short_run_finds_nothing_and_tries_everything() -> None:
    tally = fuzz_wire.try_all(3, 6000, [path.read_bytes() for path in CORPUS])
    assert not tally.found
    assert set(tally.tried) == set(MUTATIONS)
    assert tally.messages["good"] > 500
    assert all(tally.refused[name] for name in MUTATIONS if name != "good")


def test_inputs_are_the_same_for_the_same_seed() -> None:
    assert list(inputs(5, 200, [])) == list(inputs(5, 200, []))
    assert list(inputs(5, 200, [])) != list(inputs(6, 200, []))


def test_a_decoder_that_lets_errors_through_is_found() -> None:
    def careless(data: bytes, rng: random.Random) -> list[AnyMessage]:
        if b"\xc1" in data:
            raise KeyError("planted")
        return fuzz_wire.decode(data, rng)

    found = fuzz_wire.try_all(3, 2000, [], careless).found
    assert {why for why, _ in found} == {"KeyError"}
