"""What lower precision costs: figures against hand-made ones, and what the gates let through."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from sfiin.data.pairs import Pair
from sfiin.data.simulate import simulate
from sfiin.export.graph import build_graph
from sfiin.export.precision_loss import Distance, DistanceGate, Figures, Loss, LossGate, distance, loss
from sfiin.model.network import SFIIN, NetworkConfig
from sfiin.runtime.contract import Contract, SensorProfile, Tile
from sfiin.runtime.errors import CheckFailedError

SENSOR = SensorProfile("test", ("a", "b", "c", "d"), 4, 11, 2047.0)
CONTRACT = Contract(SENSOR, Tile(32, 32, 8), "matmul", "fp16", 17, {}, "c", "g", {})


def test_distance_is_that_of_its_definition() -> None:
    reference = np.full((2, 4, 8, 8), 100.0)
    reference[1] = 0.0  # a dark tile has no angle and no mean, and must not be asked for them
    output = reference.copy()
    output[0, 2] += 3.0
    output[1, 1, 0, 0] -= 5.0
    found = distance(("natural", "zero"), output, reference, CONTRACT)
    mse = (9 * 64 + 25) / (2 * 4 * 64)
    assert found.psnr == pytest.approx(10 * math.log10(2047**2 / mse))
    cosine = (3 * 100**2 + 100 * 103) / (200 * math.sqrt(3 * 100**2 + 103**2))
    assert found.sam == pytest.approx(math.degrees(math.acos(cosine)), rel=1e-6)
    assert found.ergas == pytest.approx(100 / 4 * math.sqrt(0.03**2 / 4))
    assert (found.shift, found.largest) == (pytest.approx(3.0), pytest.approx(5.0))


NEAR = Distance(80.0, 0.01, 0.01, 0.01, 1.0)
GOOD = Figures(44.0, 1.5, 1.3, 0.4)


@pytest.mark.parametrize(
    "flaw", [{"psnr": 64.9}, {"sam": 0.16}, {"ergas": 0.16}, {"shift": 0.11}, {"psnr": math.nan}]
)
def test_a_distance_beyond_the_gate_is_refused(flaw: dict[str, float]) -> None:
    NEAR.require("it", DistanceGate())
    with pytest.raises(
        CheckFailedError, match=r"it against FP32 on the golden tiles: PSNR .* not published; try"
    ):
        dataclasses.replace(NEAR, **flaw).require("it", DistanceGate())


@pytest.mark.parametrize(
    ("flaw", "text"),
    [
        ({"psnr": 43.94}, "PSNR 43.940 for 44.000 dB"),
        ({"sam": 1.511}, "SAM 1.5110 for 1.5000 deg"),
        ({"ergas": 1.314}, "ERGAS 1.3140 for 1.3000"),
        ({"psnr": math.nan}, "PSNR nan"),
        ({}, "shift 0.200 DN"),
    ],
)
def test_a_loss_beyond_the_gate_is_refused(flaw: dict[str, float], text: str) -> None:
    kept = Loss(3, GOOD, Figures(43.96, 1.509, 1.312, 0.5), 0.05, 3.0)
    kept.require("it", LossGate())
    Loss(3, GOOD, Figures(46.0, 1.0, 1.0, 0.5), 0.05, 3.0).require("it", LossGate())  # better is not worse
    bad = dataclasses.replace(kept, lower=dataclasses.replace(GOOD, **flaw), shift=0.05 if flaw else 0.2)
    with pytest.raises(CheckFailedError, match="3 pairs with truth") as failure:
        bad.require("it", LossGate())
    assert text in str(failure.value)
    assert failure.value.exit_code == 6


def model() -> onnx.ModelProto:
    torch.manual_seed(0)
    return build_graph(SFIIN(NetworkConfig(blocks=1), SENSOR).eval(), (32, 32), "matmul", 17)


def brighter(model: onnx.ModelProto, dn: float) -> onnx.ModelProto:
    """The model with so many DN added to its last band."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    graph.initializer.append(
        numpy_helper.from_array(np.array([[[0]], [[0]], [[0]], [[dn]]], np.float32)[None], "shift")
    )
    last = graph.node[-1]
    graph.node.insert(
        len(graph.node) - 1, helper.make_node("Add", [last.input[0], "shift"], ["shifted"], "shifting")
    )
    graph.node[-1].input[0] = "shifted"
    return result


def pairs() -> list[Pair]:
    scenes = [simulate(64, 64, seed, 11, 4) for seed in (1, 2)]
    return [
        Pair(
            f"p{i}",
            scene.pan[None].astype(np.float32),
            scene.ms.astype(np.float32),
            scene.truth.astype(np.float32),
            {},
        )
        for i, scene in enumerate(scenes)
    ]


def test_loss_is_seen_where_it_is() -> None:
    """A shift of one band by 3 DN: all of it is shift, and bias changes by up to 3 / 4 of it."""
    first = model()
    none = loss(first, first, CONTRACT, pairs())
    assert none.single == none.lower
    assert (none.pairs, none.shift, none.largest) == (2, 0.0, 0.0)
    found = loss(first, brighter(first, 3.0), CONTRACT, pairs())
    assert found.single == none.single
    assert found.lower != found.single
    assert found.shift == pytest.approx(3.0, rel=1e-4)
    assert found.largest == pytest.approx(3.0, rel=1e-3)
    assert abs(found.lower.bias - found.single.bias) <= 0.76
    with pytest.raises(CheckFailedError, match=r"shift 3\.000 DN"):
        found.require("it", LossGate())


def test_what_is_not_finite_fails_and_does_not_crash() -> None:
    first = model()
    found = loss(first, brighter(first, np.inf), CONTRACT, pairs())
    assert math.isnan(found.lower.psnr)
    with pytest.raises(CheckFailedError, match="PSNR nan"):
        found.require("it", LossGate())
    output = np.full((1, 4, 8, 8), np.nan)
    with pytest.raises(CheckFailedError, match="PSNR nan"):
        distance(("natural",), output, np.ones((1, 4, 8, 8)), CONTRACT).require("it", DistanceGate())
