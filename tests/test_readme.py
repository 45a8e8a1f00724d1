"""The README's tables are those that the measurements in benchmarks/ give."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def runs(name: str) -> list[dict[str, object]]:
    return json.loads((ROOT / "benchmarks" / name).read_text(encoding="utf-8"))["runs"]  # type: ignore[no-any-return]


def benchmark(name: str) -> Any:
    """The module `benchmarks/name.py`."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def document(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks" / f"{name}.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def test_the_cpu_table_is_rendered_from_its_file() -> None:
    found = document("cpu")
    assert benchmark("cpu").table(found) in README
    assert found["cpu"] in README


@pytest.mark.parametrize(
    ("name", "script"), [("suite-epyc", "suite"), ("scenes", "scenes"), ("gdal", "gdal")]
)
def test_measured_tables_are_rendered_from_their_files(name: str, script: str) -> None:
    found, module = document(name), benchmark(script)
    rendered = (
        module.tables(found)
        if script == "suite"
        else module.table(found["runs"] if script == "gdal" else found)
    )
    for table in rendered.split("\n\n"):
        assert table in README


def test_the_int8_tables_are_rendered_from_their_file() -> None:
    found = document("int8")
    for table in benchmark("int8").tables(found).split("\n\n"):
        assert table in README
    for name in ("int8, rest fp32", "int8, rest fp16"):
        assert f"{found['milliseconds']['fp32'] / found['milliseconds'][name]:.2f}x" in README


@pytest.mark.parametrize("variant", sorted({str(run["variant"]) for run in runs("ablation.json")}))
def test_the_ablation_table_holds_the_runs(variant: str) -> None:
    found = [run for run in runs("ablation.json") if run["variant"] == variant]
    assert len(found) == 2
    cells = [f"{found[0]['parameters']:,}"]
    for sensor in ("QuickBird", "GaoFen-2"):
        values = [run["quality"][sensor]["psnr"] for run in found]  # type: ignore[index]
        cells.append(f"{fmean(values):.2f} ± {stdev(values):.2f}")
    assert f"| {' | '.join(cells)} |" in README


def test_the_networks_table_holds_the_runs() -> None:
    for run in runs("networks.json"):
        for sensor in ("QuickBird", "GaoFen-2"):
            quality = run["quality"][sensor]  # type: ignore[index]
            assert f"{quality['psnr']:.2f} / {quality['ergas']:.3f}" in README, (run["variant"], sensor)
