"""The graph against the network: numbers, operators, and what the plain PyTorch export makes of it."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from sfiin.data.simulate import simulate
from sfiin.export.graph import build_graph, in_rows, rows_at_once
from sfiin.model import spectrum
from sfiin.model.network import SFIIN, NetworkConfig
from sfiin.runtime.contract import SensorProfile

FORMS = [("matmul", 17), ("matmul", 21), ("dft", 17), ("dft", 20)]


def network(**changes: object) -> SFIIN:
    torch.manual_seed(0)
    config = NetworkConfig(**{"blocks": 2} | changes)  # type: ignore[arg-type]
    bands = tuple(f"b{i}" for i in range(config.bands))
    return SFIIN(config, SensorProfile("test", bands, config.ratio, 11, 2047.0)).eval()


def inputs(net: SFIIN, tile: tuple[int, int], batch: int = 1) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    ratio, bands = net.config.ratio, net.config.bands
    pan = random.normal(400, 60, (batch, 1, *tile)).cumsum(-1) % 1500
    ms = random.normal(400, 60, (batch, bands, tile[0] // ratio, tile[1] // ratio))
    return ms.astype(np.float32), pan.astype(np.float32)


def run(model: onnx.ModelProto | str, ms: np.ndarray, pan: np.ndarray) -> np.ndarray:
    source = model if isinstance(model, str) else model.SerializeToString()
    session = ort.InferenceSession(source, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"ms": ms, "pan": pan})[0])


def exact(net: SFIIN, ms: np.ndarray, pan: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        tensors = (torch.from_numpy(a).double() for a in (ms, pan))
        return np.asarray(copy.deepcopy(net).double()(*tensors).numpy())


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.parametrize(("lowering", "opset"), FORMS)
@pytest.mark.parametrize("spatial", ["convolution", "invertible"])
@pytest.mark.parametrize("tile", [(32, 32), (32, 64), (36, 20), (28, 44)])
def test_graph_is_the_network(lowering: str, opset: int, spatial: str, tile: tuple[int, int]) -> None:
    net = network(spatial=spatial)
    ms, pan = inputs(net, tile)
    result = run(build_graph(net, tile, lowering, opset), ms, pan)  # type: ignore[arg-type]
    expected = exact(net, ms, pan)
    assert distance(result, expected) <= 1e-5
    assert np.abs(result - expected).max() <= 1e-4 * 2047


@pytest.mark.parametrize(
    "changes", [{"bands": 8}, {"ratio": 2}, {"bands": 1, "ratio": 3}, {"channels": 4}, {"blocks": 1}]
)
def test_any_configuration(changes: dict[str, int]) -> None:
    net = network(**changes)
    side = 12 * net.config.ratio
    ms, pan = inputs(net, (side, side))
    assert distance(run(build_graph(net, (side, side), "matmul", 17), ms, pan), exact(net, ms, pan)) <= 1e-5


OPTIONS = [
    {"normalise": "local"},
    {"inject": "gsa"},
    {"inject": "regression", "normalise": "local"},
    {"inject": "mixed", "normalise": "local"},
    {"inject": "mixed", "normalise": "local", "bands": 8},
    {"inject": "mixed", "normalise": "local", "bands": 3, "ratio": 2},
    {"inject": "mixed", "normalise": "local", "bands": 1, "ratio": 3},
]


@pytest.mark.parametrize(("lowering", "opset"), [("matmul", 17), ("matmul", 21), ("dft", 20)])
@pytest.mark.parametrize("changes", OPTIONS, ids=lambda changes: "-".join(map(str, changes.values())))
def test_local_statistics_and_proposals(lowering: str, opset: int, changes: dict[str, Any]) -> None:
    """Neighbourhoods of a natural scene, of one without contrast, and of a border of nodata."""
    net = network(blocks=1, **changes)
    height, width = 12 * net.config.ratio, 16 * net.config.ratio
    scene = simulate(96, 96, 4, ratio=net.config.ratio)
    ms = scene.ms[np.arange(net.config.bands) % 4][None, :, :12, :16].astype(np.float32)
    pan = scene.pan[None, None, :height, :width].astype(np.float32)
    graph = build_graph(net, (height, width), lowering, opset)  # type: ignore[arg-type]
    half_ms, half_pan = ms.copy(), pan.copy()
    half_ms[..., :8], half_pan[..., : width // 2] = 0, 0
    for tile in ((ms, pan), (half_ms, half_pan), (0 * ms + 300, 0 * pan + 500)):
        assert distance(run(graph, *tile), exact(net, *tile)) <= 1e-5


@pytest.mark.parametrize("block", [2, 8, 16])
@pytest.mark.parametrize(
    "changes", [{}, {"spatial": "invertible"}, {"ratio": 3, "bands": 1}, {"channels": 4}]
)
@pytest.mark.parametrize("lines", [12, 13, 14])
def test_convolutions_in_rows_change_nothing(block: int, changes: dict[str, Any], lines: int) -> None:
    net = network(**changes)
    tile = (lines * net.config.ratio, 12 * net.config.ratio)
    ms, pan = inputs(net, tile, 2)
    model = build_graph(net, tile, "matmul", 17, block)
    assert distance(run(model, ms, pan), exact(net, ms, pan)) <= 1e-6


def test_convolutions_in_rows_fill_the_block() -> None:
    model = build_graph(network(), (32, 32), "matmul", 17, 16)
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    kernels = {weights[node.input[1]] for node in model.graph.node if node.op_type == "Conv"}
    assert {shape[0] for shape in kernels if len(shape) == 4 and shape[2] > 3 and shape[3] == 3} == {16}
    assert not [shape for shape in kernels if shape[2:] == (3, 3)]


@pytest.mark.parametrize(
    ("block", "channels", "height", "rows"),
    [(1, 8, 128, 1), (16, 8, 128, 2), (16, 4, 128, 4), (16, 4, 126, 3), (16, 5, 127, 1), (16, 32, 128, 1)],
)
def test_rows_at_once_fit_block_and_tile(block: int, channels: int, height: int, rows: int) -> None:
    assert rows_at_once(block, channels, height) == rows


def test_a_kernel_in_rows_is_the_kernel_at_each_row() -> None:
    random = np.random.default_rng(0)
    kernel, x = random.normal(size=(5, 3, 3, 3)), torch.from_numpy(random.normal(size=(1, 3, 12, 7)))
    plain = torch.nn.functional.conv2d(x, torch.from_numpy(kernel), padding=1)
    wide = torch.nn.functional.conv2d(x, torch.from_numpy(in_rows(kernel, 4)), stride=(4, 1), padding=1)
    torch.testing.assert_close(wide.reshape(1, 5, 4, 3, 7).transpose(2, 3).reshape(plain.shape), plain)


@pytest.mark.parametrize("value", [0, 300, 2047])
@pytest.mark.parametrize(("lowering", "opset"), FORMS)
def test_constant_tiles(lowering: str, opset: int, value: int) -> None:
    net = network()
    ms = np.full((1, 4, 8, 8), value, np.float32)
    pan = np.full((1, 1, 32, 32), value, np.float32)
    result = run(build_graph(net, (32, 32), lowering, opset), ms, pan)  # type: ignore[arg-type]
    assert np.abs(result - exact(net, ms, pan)).max() <= 1e-4 * 2047


def test_batches_are_free() -> None:
    net = network()
    model = build_graph(net, (32, 32), "matmul", 17)
    ms, pan = inputs(net, (32, 32), 3)
    assert distance(run(model, ms, pan), exact(net, ms, pan)) <= 1e-5


@pytest.mark.parametrize(("lowering", "opset"), FORMS)
def test_no_constant_subgraphs_and_only_known_operators(lowering: str, opset: int) -> None:
    """Every node depends on an input; nothing is computed that could have been computed beforehand."""
    model = build_graph(network(spatial="invertible"), (32, 32), lowering, opset)  # type: ignore[arg-type]
    alive = {value.name for value in model.graph.input}
    for node in model.graph.node:
        assert node.op_type != "Constant"
        assert alive & set(node.input), node.name
        alive |= set(node.output)
    kinds = {node.op_type for node in model.graph.node}
    assert ("DFT" in kinds) == (lowering == "dft")
    assert not kinds & {"Resize", "Atan2", "STFT", "If", "Loop", "Where", "Shape", "Transpose"}
    used = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= used


def test_graph_is_the_same_every_time() -> None:
    net = network()
    first, second = (build_graph(net, (32, 32), "matmul", 17).SerializeToString() for _ in range(2))
    assert first == second


def test_the_plain_export_is_off_where_ours_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shipped_checkpoint: Path
) -> None:
    """Trained weights, exported by PyTorch with the plain angle and the plain inverse, against PyTorch
    itself."""
    from sfiin.model import checkpoint

    net = checkpoint.load(shipped_checkpoint).network
    assert isinstance(net, SFIIN)
    ms, pan = inputs(net, (64, 64))
    ours = distance(run(build_graph(net, (64, 64), "matmul", 17), ms, pan), exact(net, ms, pan))

    def plain_analyse(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = torch.fft.rfft2(x)
        return z.abs(), z.angle()

    def plain_synthesise(amplitude: torch.Tensor, phase: torch.Tensor, width: int) -> torch.Tensor:
        z = torch.complex(amplitude * phase.cos(), amplitude * phase.sin())
        return torch.fft.irfft2(z, s=(amplitude.shape[-2], width))

    monkeypatch.setattr(spectrum, "analyse", plain_analyse)
    monkeypatch.setattr(spectrum, "synthesise", plain_synthesise)
    path = str(tmp_path / "plain.onnx")
    tensors = torch.from_numpy(ms), torch.from_numpy(pan)
    with warnings.catch_warnings():  # the exporter warns of its own deprecations
        warnings.simplefilter("ignore")
        torch.onnx.export(net, tensors, path, dynamo=True, verbose=False, input_names=["ms", "pan"])
    with torch.no_grad():
        plain = distance(run(path, ms, pan), net(*tensors).numpy())
    assert ours <= 1e-5
    assert plain >= 2e-4
    assert plain >= 20 * ours
