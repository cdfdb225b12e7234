"""Adapters beside the weights: the merged network's output, and the bare one's when off."""

import threading

import pytest
import torch
from torch import nn

from tests.support.small_chain import CONFIG, denoiser
from video.dit import SpeechToVideoDiT
from video.errors import WeightsError
from video.lora import LoraSwitch, adapter_targets, merge_into, merged_copy
from video.lora_file import LoraFile, random_factors, read_lora, write_lora

pytestmark = pytest.mark.unit

LIMIT = 1e-5


@pytest.fixture(scope="module")
def loras(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LoraFile]:
    folder, network = tmp_path_factory.mktemp("adapters"), denoiser().network
    for seed, name in enumerate(("motion", "fidelity")):
        factors = random_factors(network, adapter_targets(network), rank=3, seed=seed, size=0.3)
        write_lora(folder / f"{name}.safetensors", factors, alpha=3.0)
    return {name: read_lora(folder / f"{name}.safetensors") for name in ("motion", "fidelity")}


def velocity(network: SpeechToVideoDiT) -> torch.Tensor:
    """Of a clip of two chunks, with everything that adapters change in use."""
    g = torch.Generator().manual_seed(2)
    x, cond = (torch.randn(1, 4, 6, 4, 6, generator=g) for _ in range(2))
    audio = torch.randn(1, 1, CONFIG.audio_dim, 24, generator=g)
    reference = torch.randn(1, 4, 1, 4, 6, generator=g)
    times = torch.full((1, 6), 700.0)
    with torch.inference_mode():
        return network.forward_full(x, times, audio, reference, cond=cond)


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return float((a - b).abs().max() / b.abs().max())


def test_merged_and_beside_give_the_same(loras: dict[str, LoraFile]) -> None:
    network = denoiser().network
    switch = LoraSwitch(network)
    outputs = {}
    for name, lora in loras.items():
        switch.add(name, lora)
        with switch.active(name):
            outputs[name] = velocity(network)
        merged = velocity(merged_copy(network, lora))
        assert apart(outputs[name], merged) < LIMIT
        assert apart(outputs[name], velocity(network)) > 0.01
    assert apart(outputs["motion"], outputs["fidelity"]) > 0.01


def test_off_is_the_bare_network_bit_for_bit(loras: dict[str, LoraFile]) -> None:
    network = denoiser().network
    before = velocity(network)
    switch = LoraSwitch(network)
    switch.add("motion", loras["motion"])
    with switch.active("motion"):
        assert not torch.equal(velocity(network), before)
    with switch.active(None):
        assert torch.equal(velocity(network), before)
    assert torch.equal(velocity(network), before)
    assert not any(module._forward_hooks for module in network.modules())


def test_an_adapter_is_gone_after_a_failure(loras: dict[str, LoraFile]) -> None:
    network = denoiser().network
    before, switch = velocity(network), LoraSwitch(network)
    switch.add("motion", loras["motion"])
    with pytest.raises(RuntimeError, match="on the way"), switch.active("motion"):
        raise RuntimeError("on the way")
    assert torch.equal(velocity(network), before)


def test_two_adapters_are_never_summed(loras: dict[str, LoraFile]) -> None:
    network = denoiser().network
    switches = [LoraSwitch(network), LoraSwitch(network)]
    for switch in switches:
        for name, lora in loras.items():
            switch.add(name, lora)
    for switch in switches:
        with (
            switches[0].active("motion"),
            pytest.raises(ValueError, match="'fidelity' while 'motion' is at work: one at a time"),
            switch.active("fidelity"),
        ):
            pytest.fail("two at once")
    with switches[1].active("fidelity"):
        pass


def test_an_adapter_works_in_its_own_thread_alone(loras: dict[str, LoraFile]) -> None:
    network = denoiser().network
    before, switch = velocity(network), LoraSwitch(network)
    switch.add("motion", loras["motion"])
    elsewhere = []
    with switch.active("motion"):
        thread = threading.Thread(target=lambda: elsewhere.append(velocity(network)))
        thread.start()
        thread.join()
        assert not torch.equal(velocity(network), before)
    assert torch.equal(elsewhere[0], before)


def test_a_merged_copy_leaves_the_network_alone_and_shares_what_is_not_adapted(
    loras: dict[str, LoraFile],
) -> None:
    network = denoiser().network
    before = {name: tensor.clone() for name, tensor in network.named_parameters()}
    merged = merged_copy(network, loras["motion"])
    adapted = {f"{name}.weight" for name in loras["motion"].layers}
    for name, tensor in merged.named_parameters():
        assert torch.equal(network.get_parameter(name), before[name])
        assert (tensor is network.get_parameter(name)) == (name not in adapted)
        assert torch.equal(tensor, before[name]) == (name not in adapted)


def test_an_adapter_of_another_network_changes_nothing(loras: dict[str, LoraFile]) -> None:
    other = nn.ModuleDict({"q": nn.Linear(6, 8)})
    before = other.get_parameter("q.weight").clone()
    for attempt in (
        lambda: merge_into(other, loras["motion"]),
        lambda: merged_copy(other, loras["motion"]),
        lambda: LoraSwitch(other).add("motion", loras["motion"]),
    ):
        with pytest.raises(WeightsError, match=r"motion\.safetensors does not fit ModuleDict"):
            attempt()
    assert torch.equal(other.get_parameter("q.weight"), before)
