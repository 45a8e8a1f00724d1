"""The cost of a graph against counts by hand."""

from __future__ import annotations

import pytest
import torch

from sfiin.data.sensors import SENSORS
from sfiin.export.cost import Cost, cost, total
from sfiin.export.fourier import MatMulFourier
from sfiin.export.graph import build_graph
from sfiin.export.graph_builder import GraphBuilder
from sfiin.model.network import SFIIN, NetworkConfig


def test_a_convolution_and_a_product_by_hand() -> None:
    import numpy as np

    graph = GraphBuilder(17)
    weight = graph.constant("w", np.zeros((6, 3, 3, 3)))
    x = graph.op("Conv", "x", weight, kernel_shape=(3, 3), pads=[1] * 4)
    y = graph.op("MatMul", graph.op("Relu", x), graph.constant("m", np.zeros((8, 10))))
    model = graph.model({"x": ("batch", 3, 5, 8)}, ("y", y, ("batch", 6, 5, 10)), "test")
    found = cost(model, batch=2)
    assert found["Conv"] == Cost(2 * 6 * 5 * 8 * 27, 4 * (2 * 3 * 40 + 6 * 27 + 2 * 6 * 40))
    assert found["MatMul"] == Cost(2 * 6 * 5 * 10 * 8, 4 * (2 * 6 * 40 + 80 + 2 * 6 * 50))
    assert found["Relu"] == Cost(0, 4 * 2 * 2 * 6 * 40)
    assert "Identity" not in found
    assert total(found).macs == found["Conv"].macs + found["MatMul"].macs


@pytest.mark.parametrize(
    ("size", "per_map"),
    [((128, 128), 65 * 128 * 128 + 4 * 128 * 65 * 24), ((128, 63), 64 * 128 * 63 + 4 * 128 * 32 * 24)],
)
def test_the_matmul_lowering_costs_what_its_table_says(size: tuple[int, int], per_map: int) -> None:
    graph = GraphBuilder(17)
    parts = MatMulFourier(*size).forward(graph, "x")
    both = graph.op("Concat", *parts, axis=2)
    model = graph.model({"x": (1, 3, *size)}, ("y", both, (1, 3, 2 * size[0] * (size[1] // 2 + 1))), "test")
    assert cost(model)["MatMul"].macs == 3 * per_map


def test_a_network_costs_no_less_than_its_convolutions() -> None:
    torch.manual_seed(0)
    network = SFIIN(NetworkConfig(blocks=1), SENSORS["vhr4"].profile)
    found = cost(build_graph(network, (32, 32), "matmul", 17))
    merge = 8 * 16 * 9 * 32 * 32
    assert found["Conv"].macs > merge
    assert total(found).moved > sum(parameter.numel() * 4 for parameter in network.parameters())
