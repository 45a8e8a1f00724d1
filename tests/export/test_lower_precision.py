"""Publishing in lower precision: what lies beside the model and inside it, and what keeps one from being
published."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from sfiin.data.simulate import simulate
from sfiin.export.exporter import ExportReport, export_model, report_beside
from sfiin.export.lower_precision import PrecisionOptions
from sfiin.export.precision_loss import DistanceGate, LossGate
from sfiin.runtime.backends.session import OnnxSession
from sfiin.runtime.commands.inspect import describe
from sfiin.runtime.contract import Precision, Tile
from sfiin.runtime.errors import CheckFailedError, InputError

Invoke = Callable[..., tuple[int, str, str]]
TILE = Tile(64, 64, 16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated pairs, one with truth and one without."""
    path = tmp_path_factory.mktemp("pairs")
    scene = simulate(96, 96, 3, 11, 4)
    np.savez(path / "a.npz", pan=scene.pan, ms=scene.ms, gt=scene.truth, meta="{}")
    np.savez(path / "b.npz", pan=scene.pan, ms=scene.ms, meta="{}")
    return path


@pytest.fixture(scope="module", params=["fp16", "mixed"])
def report(
    request: pytest.FixtureRequest,
    shipped_checkpoint: Path,
    folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> ExportReport:
    out = tmp_path_factory.mktemp("export") / "m.onnx"
    return export_model(
        shipped_checkpoint,
        out,
        "matmul",
        TILE,
        opset=17,
        precision=request.param,
        precision_options=PrecisionOptions(folder, folder),
    )


def test_the_model_says_what_it_is(report: ExportReport) -> None:
    precision = report.contract.precision
    assert describe(report.model)["contract"]["precision"] == precision
    assert precision in ("fp16", "mixed")
    model = onnx.load(report.model)
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    assert kinds == {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64}
    onnx.checker.check_model(model, full_check=True)


def test_trained_weights_lose_next_to_nothing(report: ExportReport) -> None:
    converted = report.converted
    assert converted is not None
    assert converted.loss is not None
    assert converted.loss.pairs == 1
    assert abs(converted.loss.lower.psnr - converted.loss.single.psnr) < 0.02
    assert 65 < converted.rounded.psnr < converted.here.psnr + 3
    assert converted.typed.mac_share > {"fp16": 0.9, "mixed": 0.4}[report.contract.precision]


def test_it_runs_where_the_fp32_model_does(report: ExportReport) -> None:
    with np.load(report.golden) as tiles, OnnxSession(report.model) as session:
        for ms, pan, expected in zip(tiles["ms"], tiles["pan"], tiles["hrms"], strict=True):
            found = session.run(ms[None].astype(np.float32), pan[None].astype(np.float32))
            assert found.dtype == np.float32
            assert np.abs(found[0] - expected).max() < 2e-3 * 2047


def test_the_report_lists_every_island(report: ExportReport) -> None:
    document = json.loads(report_beside(report.model).read_text(encoding="utf-8"))
    nodes = {node.name for node in onnx.load(report.model).graph.node}
    assert {island["node"] for island in document["islands"]} <= nodes
    assert all(island["rule"] and island["reason"] for island in document["islands"])
    assert sum(document["rules"].values()) == len(document["islands"])
    assert document["ranges"]["hrms"]["maximum"] > 1000
    assert document["loss"]["pairs"] == 1


@pytest.mark.parametrize(
    ("precision_options", "text"),
    [
        (
            {"distance": DistanceGate(psnr=200)},
            r"the fp16 model against FP32 on the golden tiles: PSNR .* \(gate 200\)",
        ),
        (
            {"loss": LossGate(psnr=-1)},
            r"the fp16 model against FP32 on 1 pairs with truth: PSNR .* not published",
        ),
    ],
)
def test_nothing_is_published_beyond_a_gate(
    small_checkpoint: Path, tmp_path: Path, folder: Path, *, precision_options: dict[str, object], text: str
) -> None:
    with pytest.raises(CheckFailedError, match=text) as failure:
        chosen = PrecisionOptions(check=folder, **precision_options)  # type: ignore[arg-type]
        _export(small_checkpoint, tmp_path, "fp16", chosen)
    assert failure.value.exit_code == 6
    assert not list(tmp_path.iterdir())


def test_folders_without_what_is_needed_are_refused(
    small_checkpoint: Path, tmp_path: Path, folder: Path
) -> None:
    blind = tmp_path / "blind"
    blind.mkdir()
    (blind / "b.npz").write_bytes((folder / "b.npz").read_bytes())
    with pytest.raises(InputError, match=r"none of the 1 pairs there has a truth \('gt'\)"):
        _export(small_checkpoint, tmp_path, "mixed", PrecisionOptions(check=blind))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no pair of 4 bands"):
        _export(small_checkpoint, tmp_path, "mixed", PrecisionOptions(calibration=tmp_path / "empty"))
    assert not list(tmp_path.glob("*.*"))


def _export(
    checkpoint: Path, folder: Path, precision: Precision, precision_options: PrecisionOptions
) -> ExportReport:
    return export_model(
        checkpoint,
        folder / "m.onnx",
        "matmul",
        TILE,
        opset=17,
        precision=precision,
        precision_options=precision_options,
    )


def test_the_command_tells_islands_and_figures(
    invoke: Invoke, small_checkpoint: Path, tmp_path: Path, folder: Path
) -> None:
    out = tmp_path / "m.onnx"
    code, text, errors = invoke(
        "export",
        small_checkpoint,
        "-o",
        out,
        "--tile",
        "64",
        "--precision",
        "fp16",
        "--check",
        folder,
        "--calibration",
        folder,
    )
    assert (code, errors) == (0, "")
    for word in (
        "Nodes kept in FP32",
        "range-reduction",
        "golden tiles",
        "against truth, 1 pairs",
        "fp16, tile 64",
    ):
        assert word in text
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", "m.golden.npz", "m.precision.json"}
    code, _, errors = invoke("export", small_checkpoint, "-o", tmp_path / "n.onnx", "--check", folder)
    assert code == 2
    assert "are for --precision fp16 or mixed" in errors
