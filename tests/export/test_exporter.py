"""Exporting: what is published, what it was checked on, and that nothing is left when the check fails."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest

from export import golden
from export.check import Gate
from export.exporter import ExportReport, export_model
from runtime import models
from runtime.contract import Tile
from runtime.errors import CheckFailedError, CheckpointError, ContractError, OutputError
from runtime.files import sha256
from runtime.session import OnnxSession
from sfiin.network import SFIIN, NetworkConfig
from sfiin.sensors import SENSORS


@pytest.fixture(scope="module")
def report(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    return export_model(
        small_checkpoint, tmp_path_factory.mktemp("export") / "model.onnx", "matmul", Tile(64, 64, 16), opset=17
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


@pytest.mark.parametrize(("bands", "ratio"), [(8, 4), (1, 2), (3, 3)])
def test_golden_tiles_of_any_sensor(bands: int, ratio: int) -> None:
    names = tuple(f"b{i}" for i in range(bands))
    sensor = dataclasses.replace(SENSORS["vhr4"].profile, bands=names, ratio=ratio)
    net = SFIIN(NetworkConfig(bands=bands, ratio=ratio, blocks=1), sensor).eval()
    tiles = golden.make(net, (6 * ratio, 8 * ratio))
    assert tiles.ms.shape == (5, bands, 6, 8)
    assert tiles.hrms.shape == (5, bands, 6 * ratio, 8 * ratio)
