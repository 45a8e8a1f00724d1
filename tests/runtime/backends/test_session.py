"""The ONNX Runtime session: what it runs and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from sfiin.export.vouched import with_contract
from sfiin.runtime import models
from sfiin.runtime.backends.session import OnnxSession, import_onnxruntime, session_options
from sfiin.runtime.contract import Tile
from sfiin.runtime.errors import ContractError, InputError, UnavailableError


def test_the_shipped_model_runs_batches() -> None:
    with OnnxSession(models.choose(4, 4), threads=1) as session:
        tile = session.contract.tile
        ms = np.full((2, 4, tile.height // 4, tile.width // 4), 400, np.float32)
        pan = np.full((2, 1, tile.height, tile.width), 400, np.float32)
        result = session.run(ms, pan)
    assert result.shape == (2, 4, tile.height, tile.width)
    assert result.dtype == np.float32
    assert np.abs(result - 400).mean() < 40


@pytest.fixture(scope="module")
def dft_model(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small network with ONNX DFT."""
    from sfiin.export.exporter import export_model

    path = tmp_path_factory.mktemp("dft") / "dft.onnx"
    export_model(small_checkpoint, path, "dft", Tile(32, 32, 8), opset=20)
    return path


@pytest.mark.parametrize("version", ["1.23.2", "1.24.1", "1.25.0", "1.26.2"])
def test_versions_that_missize_the_inverse_are_refused_for_models_that_have_one(
    monkeypatch: pytest.MonkeyPatch, version: str, dft_model: Path, small_model: Path
) -> None:
    monkeypatch.setattr(onnxruntime, "__version__", version)
    with pytest.raises(UnavailableError, match=f"onnxruntime {version} refuses or gets wrong") as failure:
        OnnxSession(dft_model)
    assert failure.value.exit_code == 5
    with OnnxSession(small_model) as session:
        assert session.contract.lowering == "matmul"


@pytest.mark.parametrize("version", ["1.14.0", "1.22.1"])
def test_versions_that_were_never_tried_are_refused(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(onnxruntime, "__version__", version)
    with pytest.raises(UnavailableError, match=f"onnxruntime {version} is too old") as failure:
        import_onnxruntime()
    assert failure.value.exit_code == 5


@pytest.mark.parametrize("version", ["1.23.2", "1.27.0", "1.32.0", "2.0.1"])
def test_later_versions_are_taken(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(onnxruntime, "__version__", version)
    assert import_onnxruntime() is onnxruntime


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such model"):
        OnnxSession(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(InputError, match="no ONNX model, or a damaged one"):
        OnnxSession(tmp_path / "text.onnx")
    data = models.choose(4, 4).read_bytes()
    (tmp_path / "short.onnx").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="no ONNX model, or a damaged one"):
        OnnxSession(tmp_path / "short.onnx")


def test_a_model_that_onnxruntime_refuses_is_refused(tmp_path: Path) -> None:
    model = onnx.load(models.choose(4, 4))
    model.graph.node[-1].op_type = "NoSuchOperator"
    with_contract(model, models.contract(models.choose(4, 4)))
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(InputError, match=r"ONNX Runtime cannot load it: .*NoSuchOperator"):
        OnnxSession(tmp_path / "odd.onnx")


def test_blocks_of_channels_are_for_models_that_fill_them() -> None:
    levels = onnxruntime.GraphOptimizationLevel
    assert session_options(onnxruntime).graph_optimization_level == levels.ORT_ENABLE_EXTENDED
    assert session_options(onnxruntime, block=16).graph_optimization_level == levels.ORT_ENABLE_ALL


def test_a_model_without_or_with_a_wrong_contract_is_refused(tmp_path: Path) -> None:
    model = onnx.load(models.choose(4, 4))
    for properties, text in (
        ({}, "no sfiin contract"),
        ({"sfiin.contract": "{}"}, r"contract\.sensor: missing"),
    ):
        onnx.helper.set_model_props(model, properties)
        onnx.save(model, tmp_path / "m.onnx")
        with pytest.raises(ContractError, match=text):
            OnnxSession(tmp_path / "m.onnx")


def test_a_provider_that_is_not_there_is_refused() -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime here has CUDA")
    with pytest.raises(UnavailableError, match="CUDAExecutionProvider"):
        OnnxSession(models.choose(4, 4), "cuda")
