"""The documentation is true: its tables are those that the measurements give, its commands those that there
are."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
DOCS = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md")))


def runs(name: str) -> list[dict[str, object]]:
    return json.loads((ROOT / "benchmarks" / name).read_text(encoding="utf-8"))["runs"]


def benchmark(name: str) -> Any:
    """The module `benchmarks/name.py`."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def document(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks" / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["cpu", "cpu-native"])
def test_the_cpu_table_is_rendered_from_its_file(name: str) -> None:
    found = document(name)
    assert benchmark("cpu").table(found) in DOCS
    assert found["cpu"] in DOCS


@pytest.mark.parametrize("name", ["large", "overlap"])
def test_tables_of_the_native_kernels_are_rendered_from_their_files(name: str) -> None:
    assert benchmark(name).table(document(name)) in DOCS


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
        assert table in DOCS


def test_the_off_home_table_is_rendered_from_its_file() -> None:
    assert benchmark("off_home").table(document("off_home")) in DOCS


def test_the_leave_one_out_table_is_rendered_from_its_file() -> None:
    assert benchmark("leave_one_out").table(document("leave_one_out")) in DOCS


def test_the_int8_tables_are_rendered_from_their_file() -> None:
    found = document("int8")
    for table in benchmark("int8").tables(found).split("\n\n"):
        assert table in DOCS
    for name in ("int8, rest fp32", "int8, rest fp16"):
        assert f"{found['milliseconds']['fp32'] / found['milliseconds'][name]:.2f}x" in DOCS


@pytest.mark.parametrize("variant", sorted({str(run["variant"]) for run in runs("ablation.json")}))
def test_the_ablation_table_holds_the_runs(variant: str) -> None:
    found = [run for run in runs("ablation.json") if run["variant"] == variant]
    assert len(found) == 2
    cells = [f"{found[0]['parameters']:,}"]
    for sensor in ("QuickBird", "GaoFen-2"):
        values = [run["quality"][sensor]["psnr"] for run in found]  # type: ignore[index]
        cells.append(f"{fmean(values):.2f} ± {stdev(values):.2f}")
    assert f"| {' | '.join(cells)} |" in DOCS


def test_the_networks_table_holds_the_runs() -> None:
    for run in runs("networks.json"):
        for sensor in ("QuickBird", "GaoFen-2"):
            quality = run["quality"][sensor]  # type: ignore[index]
            assert f"{quality['psnr']:.2f} / {quality['ergas']:.3f}" in DOCS, (run["variant"], sensor)


def test_the_page_of_commands_is_what_the_commands_say() -> None:
    """Made anew by `python docs/_commands.py`."""
    spec = importlib.util.spec_from_file_location("commands_page", ROOT / "docs" / "_commands.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.render()


def test_telemetry_is_laid_out_as_told() -> None:
    from sfiin.runtime.flight.telemetry import KINDS, layout_table, size

    for kind in KINDS:
        assert layout_table(kind) in DOCS
        assert f"{kind}: {size(kind)} bytes" in DOCS


def test_the_readme_can_be_read_in_two_minutes() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 130
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert (ROOT / target).exists(), target


def test_every_command_that_is_shown_exists() -> None:
    from importlib import metadata

    known = {point.name for point in metadata.entry_points(group="sfiin.commands")}
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    shown = {
        word for page in pages for word in re.findall(r"^ {4}sfiin ([a-z]+)", page.read_text("utf-8"), re.M)
    }
    assert len(shown) > 8
    assert shown <= known


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed (extra 'docs')")
    pytest.importorskip("material", reason="mkdocs-material is not installed (extra 'docs')")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--site-dir",
        str(tmp_path / "site"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "index.html").is_file()
