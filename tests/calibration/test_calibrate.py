"""The whole way on a small network and simulated pairs, by the command; and every way in which it is
refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from sfiin.calibration.calibrate import AUTO, CalibrationOptions, calibrate
from sfiin.export.precision_loss import LossGate
from sfiin.runtime import golden, models
from sfiin.runtime.backends.session import OnnxSession
from sfiin.runtime.contract import METADATA_KEY
from sfiin.runtime.errors import CheckFailedError, InputError, MismatchError

Invoke = Callable[..., tuple[int, str, str]]

WIDE = LossGate(psnr=3.0, sam=3.0, ergas=3.0, shift=100.0)


@pytest.fixture(scope="module")
def pairs(simulated_pairs: Callable[[int, str], Path]) -> Path:
    return simulated_pairs(96, "vhr4")


@pytest.fixture(scope="module")
def checks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sfiin.data.simulate import simulate

    folder = tmp_path_factory.mktemp("checks")
    scene = simulate(64, 64, 77)
    np.savez(folder / "c.npz", pan=scene.pan, ms=scene.ms, gt=scene.truth, meta='{"sensor": "vhr4"}')
    return folder


@pytest.mark.parametrize("rest", ["fp16", "fp32"])
def test_a_model_within_the_gate_is_published_with_all_that_belongs_to_it(
    small_model: Path, pairs: Path, checks: Path, tmp_path: Path, rest: Any
) -> None:
    out, cache = tmp_path / "int8.onnx", tmp_path / "cache"
    options = CalibrationOptions(tiles=6, patches=3, gate=WIDE, rest=rest)
    seen: list[tuple[int, int]] = []
    result, work = calibrate(
        small_model,
        pairs,
        out,
        options,
        check=checks,
        cache_file=cache,
        watch=lambda *step: seen.append(step),
    )
    contract = models.contract(out)
    assert (contract.precision, contract.opset) == ("int8", 19)
    assert contract == result.contract
    tiles = golden.read(golden.beside(out), contract)
    with OnnxSession(out) as session:
        output = tiles.through(session.run)
    assert np.abs(output - tiles.hrms).max() < 0.05 * 2047
    np.testing.assert_array_equal(tiles.ms, work.golden.ms)
    assert result.methods.keys() == set(AUTO)
    assert result.mac_share == result.plain_share > 0.3  # so wide a gate holds nothing back
    assert seen[-1][0] == seen[-1][1]
    lines = cache.read_text().splitlines()
    assert len(lines) == 1 + len({candidate.activation for candidate in work.candidates})
    report = json.loads(out.with_suffix(".precision.json").read_text())
    assert report["tiles"]["digest"] == result.calibration.digest
    assert report["judged_on"] == "1 pairs of --check"
    assert {kept["rule"] for kept in report["kept"]} == {"first", "last", "spectrum", "statistics"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "cache",
        "int8.golden.npz",
        "int8.onnx",
        "int8.precision.json",
    ]


def test_the_search_holds_back_what_a_narrow_gate_asks_for(
    small_model: Path, pairs: Path, tmp_path: Path
) -> None:
    """The gate is half of what everything quantised loses."""
    whole, _ = calibrate(
        small_model, pairs, tmp_path / "all.onnx", CalibrationOptions("minmax", 6, 3, gate=WIDE, search=False)
    )
    lost = whole.plain.share(WIDE)
    assert lost > 0
    narrow = LossGate(WIDE.psnr * lost / 2, WIDE.sam * lost / 2, WIDE.ergas * lost / 2, WIDE.shift)
    result, _ = calibrate(
        small_model, pairs, tmp_path / "some.onnx", CalibrationOptions("minmax", 6, 3, gate=narrow)
    )
    held = [one for one in result.kept if one.rule == "gate"]
    assert held
    assert result.found is not None
    assert result.chosen.share(narrow) <= 1 < result.plain.share(narrow)
    assert 0 < result.mac_share < result.plain_share
    nodes = {node.name: node for node in onnx.load(tmp_path / "some.onnx").graph.node}
    for one in held:
        assert not nodes[one.node].input[1].endswith("/quantised")
    with pytest.raises(
        CheckFailedError, match=r"none.onnx on the search's patches against FP32.*loosen --gate"
    ):
        calibrate(
            small_model,
            pairs,
            tmp_path / "none.onnx",
            CalibrationOptions("minmax", 6, 3, gate=narrow, search=False),
        )
    assert not list(tmp_path.glob("none*"))


def test_a_gate_that_nothing_meets_is_said(small_model: Path, pairs: Path, tmp_path: Path) -> None:
    none = LossGate(psnr=1e-9, sam=1e-9, ergas=1e-9, shift=1e-9)
    with pytest.raises(CheckFailedError, match="no convolution can be INT8 within the gate"):
        calibrate(small_model, pairs, tmp_path / "o.onnx", CalibrationOptions("minmax", 4, 2, gate=none))
    assert not list(tmp_path.iterdir())


def test_what_is_judged_by_is_not_calibrated_on(small_model: Path, pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"p0.npz: is among what the model is judged by"):
        calibrate(small_model, pairs, tmp_path / "o.onnx", CalibrationOptions(gate=WIDE), check=pairs)


def test_noise_and_pairs_without_truth_are_refused(small_model: Path, pairs: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    noise: dict[str, Any] = {
        "pan": random.integers(0, 2047, (64, 64)),
        "ms": random.integers(0, 2047, (4, 16, 16)),
    }
    (tmp_path / "noise").mkdir()
    np.savez(
        tmp_path / "noise" / "n.npz",
        **{name: image.astype(np.uint16) for name, image in noise.items()},
        meta="{}",
    )
    with pytest.raises(InputError, match="that is noise"):
        calibrate(small_model, tmp_path / "noise", tmp_path / "o.onnx", CalibrationOptions())
    (tmp_path / "bare").mkdir()
    with np.load(pairs / "p0.npz") as arrays:
        np.savez(tmp_path / "bare" / "p.npz", pan=arrays["pan"], ms=arrays["ms"], meta="{}")
    with pytest.raises(InputError, match=r"none of the 1 pairs there has a truth"):
        calibrate(small_model, tmp_path / "bare", tmp_path / "o.onnx", CalibrationOptions())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lowering": "plugin"}, "lowering: ONNX Runtime does not run the plugin"),
        ({"precision": "fp16"}, "precision: fp16; calibrate the fp32 model"),
        ({"block": 16}, "block: it is arranged for CPUs"),
    ],
)
def test_only_plain_float32_models_are_calibrated(
    small_model: Path, pairs: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    model = onnx.load(small_model)
    contract = dataclasses.replace(models.contract(small_model), **changes)
    onnx.helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(MismatchError, match=said):
        calibrate(tmp_path / "m.onnx", pairs, tmp_path / "o.onnx", CalibrationOptions())


def test_the_command_tells_writes_a_report_and_advises(
    invoke: Invoke, small_model: Path, pairs: Path, tmp_path: Path, html_page: Callable[[str], Any]
) -> None:
    out, report = tmp_path / "int8.onnx", tmp_path / "report.html"
    options = (
        "--data",
        pairs,
        "-o",
        out,
        "--gate",
        "3,3,300",
        "--tiles",
        4,
        "--patches",
        2,
        "--method",
        "percentile",
    )
    code, said, errors = invoke(
        "calibrate", small_model, *options, "--report", report, "--device", "orin-agx"
    )
    assert (code, errors) == (0, "")
    assert "Jetson AGX Orin 64GB: FP16 is recommended" in said
    assert "channels fill no packs of 32" in said
    assert "convolutions held back by the gate, ranges by percentile, the rest fp16, checked" in said
    page = html_page(report.read_text(encoding="utf-8"))
    assert page.tags.count("img") == 3
    assert any(row[0] == "INT8, after the search" for row in page.rows if row)
    code, said, errors = invoke("calibrate", small_model, *options)
    assert (code, "exists already" in errors) == (7, True)
    code, said, _ = invoke("calibrate", small_model, *options, "--overwrite", "--json")
    assert code == 0
    assert json.loads(said)["method"] == "percentile"


def test_advice_needs_no_data(invoke: Invoke, small_model: Path) -> None:
    code, said, _ = invoke(
        "calibrate", small_model, "--advise", "--device", "rtx4090", "--device", "t4", "--json"
    )
    assert code == 0
    advice = json.loads(said)["advice"]
    assert [entry["device"] for entry in advice] == ["GeForce RTX 4090", "Tesla T4"]
    assert all(entry["layers"] and not entry["pays"] for entry in advice)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--advise"], 2, "name the --device"),
        (["--advise", "--device", "abacus"], 2, "'abacus' is not known; orin-agx,"),
        ([], 2, "--data and --output are wanted"),
        (["--data", "d", "-o", "o.onnx", "--gate", "0.2"], 2, "is no gate"),
        (["--data", "d", "-o", "o.onnx", "--gate", "0,1,1"], 2, "is no gate"),
        (["--data", "d", "-o", "nowhere/o.onnx"], 7, "there is no folder"),
        (["--data", "d", "-o", "o.onnx", "--report", "nowhere/r.html"], 7, "there is no folder"),
        (["--data", "d", "-o", "o.onnx"], 3, "d: "),
    ],
)
def test_bad_options_are_refused(
    invoke: Invoke,
    small_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    found, _, errors = invoke("calibrate", small_model, *options)
    assert found == code, errors
    assert said in " ".join(errors.split())
    assert not list(tmp_path.iterdir())


def test_a_missing_model_is_told(invoke: Invoke, pairs: Path, tmp_path: Path) -> None:
    code, _, errors = invoke("calibrate", tmp_path / "none.onnx", "--data", pairs, "-o", tmp_path / "o.onnx")
    assert code == 3
    assert "Traceback" not in errors
    shutil.copy(pairs / "p0.npz", tmp_path / "not.onnx")
    assert invoke("calibrate", tmp_path / "not.onnx", "--data", pairs, "-o", tmp_path / "o.onnx")[0] == 3
