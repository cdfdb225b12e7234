"""Devices as people write them: what is meant, and one line for what is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.device import GIB, Cluster, parse_devices, standard_device
from pipeline.errors import PlanError

pytestmark = pytest.mark.unit


def test_a_list_of_devices_is_read_with_nodes_counts_memory_and_rates() -> None:
    cluster = parse_devices("cuda:80GiB@461 x2, cpu:3:8GiB / cuda:141GB")
    names = [(d.node, d.name, d.memory_bytes) for d in cluster.devices]
    assert names == [
        ("node0", "cuda:0", 80 * GIB),
        ("node0", "cuda:1", 80 * GIB),
        ("node0", "cpu:0", 8 * GIB),
        ("node0", "cpu:1", 8 * GIB),
        ("node0", "cpu:2", 8 * GIB),
        ("node1", "cuda:0", 141 * 10**9),
    ]
    assert cluster.devices[0].flops == 461e12
    assert cluster.find("node1/cuda:0").node == "node1"
    assert cluster.find("cuda:1").node == "node0"
    assert cluster.devices[2].torch_name == "cpu"


@pytest.mark.parametrize(
    "text",
    ["", "cuda", "tpu:3", "cpu:0", "cuda:0GiB", "cuda:80GiB x9999", "cpu:2 x", "cuda:80 x5",
     "cuda:80GiB@0", "cpu:2,", "/", "cpu:2:8GiB:1", "cuda:80GiB x5 / ", "\0", "x" * 5000],
)  # fmt: skip
def test_what_is_no_list_of_devices_is_refused_in_one_short_line(text: str) -> None:
    with pytest.raises(PlanError) as caught:
        parse_devices(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


@given(st.text(max_size=40))
def test_any_text_is_a_cluster_or_a_plan_error(text: str) -> None:
    try:
        cluster = parse_devices(text)
    except PlanError:
        return
    assert cluster.devices


def test_a_device_that_is_not_there_is_named_with_those_that_are() -> None:
    cluster = parse_devices("cpu:2 / cpu:1")
    with pytest.raises(PlanError, match=r"'cuda:1' is not there.*2 x cpu"):
        cluster.find("cuda:1")
    with pytest.raises(PlanError, match="several nodes"):
        cluster.find("cpu:0")


def test_two_devices_of_one_name_are_refused() -> None:
    device = standard_device("cpu", 0)
    with pytest.raises(PlanError, match="2 times"):
        Cluster(devices=(device, device))
