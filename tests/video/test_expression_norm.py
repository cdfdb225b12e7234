"""Heard speech with the statistics of a base: in a function, in an injector, in the network."""

from dataclasses import replace
from unittest import mock

import pytest
import torch

from video import audio_tokens
from video.audio_tokens import AudioInjector
from video.dit import SpeechToVideoDiT
from video.dit_block import TransformerBlock
from video.dit_config import DiTConfig
from video.expression_norm import base_of, matched

pytestmark = pytest.mark.unit

PLAIN = DiTConfig(
    dim=24, ffn_dim=32, num_heads=2, num_layers=2, in_dim=4, out_dim=4, freq_dim=16, audio_dim=6,
    num_audio_layers=1, num_audio_token=2, audio_inject_layers=(0, 1),
)  # fmt: skip
NORMALISED = replace(PLAIN, audio_norm="expression")


def tokens(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(config: DiTConfig) -> SpeechToVideoDiT:
    torch.manual_seed(0)
    net = SpeechToVideoDiT(config).eval().requires_grad_(False)
    for parameter in net.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return net


def velocity(net: SpeechToVideoDiT, loudness: float = 1.0, *, causal: bool = True) -> torch.Tensor:
    text = tokens(9, 2, 4, net.config.text_dim) if net.config.text_dim else None
    return net.forward_full(
        tokens(1, 2, 4, 6, 4, 6), torch.full((2, 6), 600.0), loudness * tokens(2, 2, 1, 6, 24),
        tokens(3, 2, 4, 1, 4, 6), context=text, causal=causal,
    )  # fmt: skip


def test_what_was_heard_gets_the_statistics_of_the_base_chunk_by_chunk() -> None:
    heard, base = 7 * tokens(1, 2, 12, 5) - 3, tokens(2, 2, 12, 5) * tokens(3, 2, 12, 1) + 0.4
    made = torch.unflatten(matched(heard, base, 3), 1, (3, 4)).flatten(2)
    wanted = torch.unflatten(base, 1, (3, 4)).flatten(2)
    torch.testing.assert_close(made.mean(-1), wanted.mean(-1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(made.std(-1), wanted.std(-1), atol=1e-4, rtol=1e-4)
    assert len({round(float(value), 4) for value in made.std(-1).flatten()}) == 6


def test_a_chunk_does_not_depend_on_those_beside_it() -> None:
    heard, base = tokens(1, 2, 12, 5), tokens(2, 2, 12, 5)
    made = matched(heard, base, 3)
    alone = matched(heard[1:, 4:8], base[1:, 4:8], 1)
    torch.testing.assert_close(made[1:, 4:8], alone, atol=1e-6, rtol=1e-6)


def test_speech_that_says_nothing_moves_all_alike() -> None:
    base = tokens(2, 1, 4, 5)
    made = matched(torch.zeros(1, 4, 5), base, 1)
    torch.testing.assert_close(made, base.mean().expand(1, 4, 5))


def test_precision_of_the_tokens_stays() -> None:
    assert matched(tokens(1, 1, 4, 5).bfloat16(), tokens(2, 1, 4, 5), 1).dtype is torch.bfloat16


@pytest.mark.parametrize("text_dim", [0, 9])
def test_in_the_network_added_speech_is_as_strong_as_its_base(text_dim: int) -> None:
    net = network(replace(NORMALISED, text_dim=text_dim, text_len=5, audio_scale=0.5))
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def note(heard: torch.Tensor, base: torch.Tensor, num_chunks: int) -> torch.Tensor:
        assert num_chunks == 2
        seen.append((base, matched(heard, base, num_chunks)))
        return seen[-1][1]

    with mock.patch.object(audio_tokens, "matched", note):
        velocity(net)
    assert len(seen) == len(PLAIN.audio_inject_layers)
    for base, made in seen:
        for chunk in (slice(0, 18), slice(18, 36)):
            ratio = made[:, chunk].flatten(1).std(-1) / base[:, chunk].flatten(1).std(-1)
            torch.testing.assert_close(ratio, torch.ones(2), atol=1e-3, rtol=0)


def test_the_base_is_the_prompt_where_there_is_one_and_else_what_the_layer_added() -> None:
    block = TransformerBlock(0, 24, 32, 2, has_text=True, eps=1e-6).requires_grad_(False)
    before, after = tokens(1, 1, 3, 4, 24), tokens(2, 1, 3, 4, 24)
    text = block.text_keys_values(tokens(3, 1, 5, 24))
    assert torch.equal(base_of(block, before, after, None), after - before)
    assert torch.equal(base_of(block, before, after, text), block.read_text(after, *text))


def test_off_is_the_network_without_it_bit_for_bit() -> None:
    net = network(PLAIN)
    wanted = velocity(net)
    injector = net.audio_injector
    assert injector is not None

    def as_before(
        layer: int, x: torch.Tensor, heard: object, frame_shape: tuple[int, int, int], *_: object
    ) -> torch.Tensor:
        flat = x.flatten(1, 2)
        noisy = torch.unflatten(flat, 1, (frame_shape[0] * frame_shape[1], frame_shape[2]))
        added: torch.Tensor = injector(layer, noisy, heard)
        return (flat + added.flatten(1, 2)).view(x.shape)

    with mock.patch.object(AudioInjector, "into", side_effect=as_before):
        assert torch.equal(velocity(net), wanted)
    assert not torch.equal(velocity(network(NORMALISED)), wanted)
    assert network(NORMALISED).state_dict().keys() == net.state_dict().keys()


def test_how_strong_an_injector_has_become_makes_no_difference() -> None:
    """The point of it: an injector trained to shout is brought down to the base."""
    nets = [network(replace(NORMALISED, audio_scale=1.0)) for _ in range(2)]
    injector = nets[1].audio_injector
    assert injector is not None
    for module in injector.injector:
        module.get_parameter("o.weight").mul_(50)
        module.get_parameter("o.bias").mul_(50)
    torch.testing.assert_close(velocity(nets[0]), velocity(nets[1]), atol=1e-3, rtol=1e-3)


def test_a_clip_seen_jointly_is_one_sample() -> None:
    net = network(NORMALISED)
    assert torch.isfinite(velocity(net, causal=False)).all()
    with mock.patch.object(audio_tokens, "matched", wraps=matched) as calls:
        velocity(net, causal=False)
    assert [call.args[2] for call in calls.call_args_list] == [1, 1]


def test_it_can_be_trained_through() -> None:
    net = network(NORMALISED).requires_grad_(True)
    torch.autograd.backward(velocity(net).square().mean())
    assert net.audio_injector is not None
    gradient = net.audio_injector.injector[0].get_parameter("q.weight").grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"audio_norm": "loud"}, "must be 'none' or 'expression'"),
        ({"audio_scale": 0.5}, "audio_scale 0.5 is for audio_norm 'expression'"),
        ({"audio_norm": "expression", "audio_scale": -1.0}, "must lie in 0..100"),
    ],
)
def test_switches_that_make_no_sense_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiTConfig.from_dict({"dim": 24, "ffn_dim": 8, "num_heads": 2, "num_layers": 1, **changes})
