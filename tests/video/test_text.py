"""The umT5 encoder against the reference's states."""

import pytest
import torch

from tests.support.goldens import GoldenSet
from video.text import RelativePositions, TextEncoder, TextEncoderConfig

pytestmark = pytest.mark.unit

TINY = TextEncoderConfig(
    vocab_size=20, dim=8, attention_dim=12, ffn_dim=16, num_heads=3, num_layers=2
)


@pytest.mark.golden
def test_states_of_the_reference(golden_set: GoldenSet) -> None:
    golden = golden_set.tensors("misc")
    encoder = TextEncoder(TextEncoderConfig.from_dict(golden_set.config("t5")))
    encoder.load_state_dict(golden_set.weights("misc", "t5.w."))
    states = encoder.encode(golden["t5.ids"], golden["t5.mask"])
    torch.testing.assert_close(torch.stack(states), golden["t5.out"], atol=1e-4, rtol=0)


def test_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    encoder = TextEncoder(TINY)
    ids = torch.randint(2, 20, (2, 9))
    mask = torch.ones_like(ids)
    mask[0, 5:] = 0
    padded = encoder.encode(ids, mask)
    alone = encoder.encode(ids[:1, :5], mask[:1, :5])[0]
    assert [len(states) for states in padded] == [5, 9]
    torch.testing.assert_close(padded[0], alone, atol=1e-6, rtol=0)


def test_position_buckets_are_exact_near_and_saturate_far() -> None:
    positions = RelativePositions(TINY)
    distance = torch.tensor([0, 1, -1, 7, -7, 8, 127, 128, 10_000, -10_000])
    buckets = positions.buckets(distance).tolist()
    assert buckets == [0, 17, 1, 23, 7, 24, 31, 31, 31, 15]


def test_order_of_tokens_matters() -> None:
    torch.manual_seed(0)
    encoder = TextEncoder(TINY)
    ids = torch.tensor([[3, 4, 5]])
    mask = torch.ones_like(ids)
    forward = encoder.encode(ids, mask)[0]
    backward = encoder.encode(ids.flip(1), mask)[0].flip(0)
    assert (forward - backward).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dim_attn": 10, "num_heads": 3}, "attention_dim 10 must be a multiple of num_heads 3"),
        ({"heads": 4}, "unknown text encoder fields \\['heads'\\]"),
    ],
)
def test_contradictory_configuration_is_refused(values: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TextEncoderConfig.from_dict(values)
