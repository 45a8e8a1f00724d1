"""Exporting: what is published, what it was checked on, and that nothing is left when the check fails."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest

from sfiin.data.sensors import SENSORS
from sfiin.export import golden, spectral_fusion
from sfiin.export.exporter import ExportReport, export_model
from sfiin.export.preflight import targets
from sfiin.model import checkpoint
from sfiin.model.network import SFIIN, NetworkConfig
from sfiin.runtime import models
from sfiin.runtime.backends.session import OnnxSession
from sfiin.runtime.check import Gate
from sfiin.runtime.contract import Tile
from sfiin.runtime.errors import (
    CheckFailedError,
    CheckpointError,
    ContractError,
    OutputError,
    UnavailableError,
)
from sfiin.runtime.files import sha256


@pytest.fixture(scope="module")
def report(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    return export_model(
        small_checkpoint,
        tmp_path_factory.mktemp("export") / "model.onnx",
        "matmul",
        Tile(64, 64, 16),
        opset=17,
    )


def test_contract_is_in_the_model_and_true(small_checkpoint: Path, report: ExportReport) -> None:
    contract = models.contract(report.model)
    assert contract == report.contract
    assert (contract.tile, contract.lowering, contract.opset) == (Tile(64, 64, 16), "matmul", 17)
    assert contract.checkpoint == sha256(small_checkpoint)
    assert contract.golden == sha256(report.golden)
    assert contract.network == dataclasses.asdict(NetworkConfig(blocks=1))
    onnx.checker.check_model(onnx.load(report.model), full_check=True)


def test_model_gives_what_the_golden_tiles_say(report: ExportReport) -> None:
    with np.load(report.golden) as tiles, OnnxSession(report.model) as session:
        assert list(tiles["names"]) == ["natural", "half", "constant", "zero", "checkerboard"]
        for ms, pan, expected in zip(tiles["ms"], tiles["pan"], tiles["hrms"], strict=True):
            result = session.run(ms[None].astype(np.float32), pan[None].astype(np.float32))[0]
            assert np.abs(result - expected).max() <= 1e-4 * 2047


def test_golden_tiles_are_what_their_names_say(report: ExportReport) -> None:
    with np.load(report.golden) as tiles:
        pan, ms = tiles["pan"][:, 0], tiles["ms"]
    assert pan[0].min() > 0
    assert pan[0].std() > 50
    assert (pan[1][:, :32] == 0).all()
    assert (pan[1][:, 32:] == pan[0][:, 32:]).all()
    assert (ms[1][:, :, :8] == 0).all()
    assert len(np.unique(pan[2])) == 1
    assert not pan[3].any()
    assert not ms[3].any()
    assert set(np.unique(pan[4])) == {0, 2047}


@pytest.mark.parametrize(("lowering", "opset"), [("matmul", 17), ("matmul", 20), ("dft", 17), ("dft", 20)])
@pytest.mark.parametrize("tile", [Tile(64, 64, 0), Tile(64, 96, 8), Tile(60, 100, 8)])
def test_the_shipped_checkpoint_passes_on_any_tile(
    shipped_checkpoint: Path, tmp_path: Path, lowering: str, opset: int, tile: Tile
) -> None:
    """Squares and rectangles, power of two or not, constant and zero tiles included; trained weights."""
    out = tmp_path / "m.onnx"
    report = export_model(shipped_checkpoint, out, lowering, tile, opset=opset)  # type: ignore[arg-type]
    assert report.float64.within(Gate())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.golden.npz", "m.onnx"]


def test_nothing_is_published_when_the_check_fails(small_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    with pytest.raises(CheckFailedError, match="not published") as failure:
        export_model(small_checkpoint, out, "matmul", Tile(64, 64, 16), opset=17, gate=Gate(1e-12, 1e-12))
    assert failure.value.exit_code == 6
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_refused(small_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"tile\.height: 66 is no multiple"):
        export_model(small_checkpoint, tmp_path / "m.onnx", "matmul", Tile(66, 64, 16), opset=17)
    with pytest.raises(CheckpointError):
        export_model(tmp_path / "none.safetensors", tmp_path / "m.onnx", "matmul", Tile(64, 64, 16), opset=17)
    with pytest.raises(OutputError, match="no folder"):
        export_model(small_checkpoint, tmp_path / "nowhere" / "m.onnx", "matmul", Tile(64, 64, 16), opset=17)


@pytest.mark.parametrize("tile", [Tile(64, 64, 0), Tile(36, 60, 8)])
def test_a_plugin_model_is_checked_and_onnx_runtime_refuses_it(
    shipped_checkpoint: Path, tmp_path: Path, tile: Tile
) -> None:
    out = tmp_path / "m.onnx"
    report = export_model(shipped_checkpoint, out, "plugin", tile, opset=17)
    assert report.float64.within(Gate(2e-6, 1e-5))
    model = onnx.load(out)
    assert [node.op_type for node in model.graph.node].count("SpectralFusion") == 5
    assert {value.name for value in model.graph.value_info} > {"block4/frequency/SpectralFusion"}
    with pytest.raises(UnavailableError, match=r"TensorRT with the plugin.*--fourier matmul") as failure:
        OnnxSession(out)
    assert failure.value.exit_code == 5
    assert "\n" not in str(failure.value)


def test_a_plugin_that_computes_something_else_is_not_published(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(spectral_fusion.ATTRIBUTES, "cut", 0.3)  # type: ignore[misc, unused-ignore]
    with pytest.raises(CheckFailedError, match="not published"):
        export_model(small_checkpoint, tmp_path / "m.onnx", "plugin", Tile(32, 32, 8), opset=17)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "block"), [("ort", 16), ("trt10.3", 1)])
def test_the_target_decides_how_convolutions_are_arranged(
    small_checkpoint: Path, tmp_path: Path, name: str, block: int
) -> None:
    report = export_model(
        small_checkpoint, tmp_path / "m.onnx", "matmul", Tile(32, 32, 8), opset=17, target=targets()[name]
    )
    assert report.contract.block == models.contract(report.model).block == block
    kinds = {node.op_type for node in onnx.load(report.model).graph.node}
    assert ("Transpose" in kinds) == (block > 1)


@pytest.mark.parametrize(("name", "lowerings"), [("ort", {"matmul", "dft"}), ("trt10.3", {"matmul"})])
def test_auto_takes_the_fastest_that_the_target_reads(
    small_checkpoint: Path, tmp_path: Path, name: str, lowerings: set[str]
) -> None:
    report = export_model(
        small_checkpoint, tmp_path / "m.onnx", "auto", Tile(64, 64, 16), opset=17, target=targets()[name]
    )
    assert report.choice is not None
    timed = {
        candidate.lowering: candidate.milliseconds
        for candidate in report.choice.candidates
        if candidate.milliseconds is not None
    }
    assert set(timed) == lowerings
    assert report.choice.lowering == min(timed, key=timed.__getitem__)
    contract = models.contract(report.model)
    assert contract.lowering == report.choice.lowering
    assert contract.lowering_choice == report.choice.figures()
    assert contract.lowering_choice["target"] == name
    assert ("dft.why_not" in contract.lowering_choice) == (name == "trt10.3")


def test_auto_with_nothing_that_will_do_says_why(small_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckFailedError, match=r"no lowering will do.*matmul: outside the gate; dft: DFT"):
        export_model(
            small_checkpoint,
            tmp_path / "m.onnx",
            "auto",
            Tile(32, 32, 8),
            opset=17,
            target=targets()["jetpack5"],
            gate=Gate(1e-12, 1e-12),
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("lowering", ["matmul", "plugin"])
def test_amplitudes_of_another_tile_are_brought_to_those_trained_on(
    small_checkpoint: Path, tmp_path: Path, lowering: str
) -> None:
    """The biases of the amplitude networks are all that differs from a network that has no record of its
    tile."""
    recorded = tmp_path / "recorded.safetensors"
    network = checkpoint.load_sfiin(small_checkpoint)
    checkpoint.save(recorded, checkpoint.Checkpoint(network, {"patch": 128}))
    weights = []
    for source in (small_checkpoint, recorded):
        out = tmp_path / f"{source.stem}.onnx"
        export_model(source, out, lowering, Tile(32, 64, 8), opset=17)  # type: ignore[arg-type]
        tensors = onnx.load(out).graph.initializer
        weights.append({tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in tensors})
    plain, fitted = weights
    biases = {f"blocks.0.frequency.amplitude.{layer}.bias" for layer in (0, 2)}
    assert {name for name in plain if not np.array_equal(plain[name], fitted[name])} == biases
    for name in biases:
        np.testing.assert_allclose(fitted[name], plain[name] * np.sqrt(32 * 64 / 128**2), rtol=1e-6)


@pytest.mark.parametrize(("bands", "ratio"), [(8, 4), (1, 2), (3, 3)])
def test_golden_tiles_of_any_sensor(bands: int, ratio: int) -> None:
    names = tuple(f"b{i}" for i in range(bands))
    sensor = dataclasses.replace(SENSORS["vhr4"].profile, bands=names, ratio=ratio)
    net = SFIIN(NetworkConfig(bands=bands, ratio=ratio, blocks=1), sensor).eval()
    tiles = golden.make(net, (6 * ratio, 8 * ratio))
    assert tiles.ms.shape == (5, bands, 6, 8)
    assert tiles.hrms.shape == (5, bands, 6 * ratio, 8 * ratio)
