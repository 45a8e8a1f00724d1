"""The runtime stands alone: arrows point downward, nothing heavy is imported, and a bare environment is
enough."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = {  # the folders of each package; upper ones may import lower ones
    "sfiin.runtime": "runtime",
    "sfiin.model": "sfiin/model",
    "sfiin.data": "sfiin/data",
    "sfiin.training": "sfiin/training",
    "sfiin.evaluation": "sfiin/evaluation",
    "sfiin.commands": "sfiin/commands",
    "sfiin.export": "export",
    "sfiin.calibration": "calibration",
}
COMMANDS = (
    "ablate",
    "build",
    "bundle",
    "demo",
    "doctor",
    "evaluate",
    "export",
    "import",
    "inspect",
    "preflight",
    "refit",
    "run",
    "slots",
    "train",
)

OFFLINE = re.compile(
    r"connection broken|NewConnectionError|ConnectTimeout|name resolution|unreachable|ProxyError"
)

IMPORT_ALL = """
import importlib, pkgutil, sys, sfiin.runtime
names = [found.name for found in pkgutil.walk_packages(sfiin.runtime.__path__, "sfiin.runtime.")]
for name in names:
    importlib.import_module(name)
assert len(names) > 40, names
heavy = {"torch", "onnx", "onnxruntime", "safetensors", "scipy", "tensorrt", "pycuda"} & set(sys.modules)
assert not heavy, heavy
"""

SHARPEN = """
import sys
from pathlib import Path
import numpy as np, rasterio
from rasterio.transform import from_origin
from sfiin.runtime.contract import Contract, SensorProfile, Tile
from sfiin.runtime.scenes.pipeline import sharpen
from sfiin.runtime.scenes.scene import open_scene

assert np.__version__ == "1.26.4", np.__version__
folder = Path(sys.argv[1])

class Repeat:
    sensor = SensorProfile("s", ("a", "b"), 4, 11, 2047.0)
    contract = Contract(sensor, Tile(32, 32, 8), "matmul", "fp32", 17, {}, "", "", {})
    def run(self, ms, pan):
        return ms.repeat(4, axis=2).repeat(4, axis=3)
    def close(self):
        pass

def write(name, image, pixel):
    size = dict(count=len(image), height=image.shape[1], width=image.shape[2])
    place = from_origin(0, 0, pixel, pixel)
    options = dict(driver="GTiff", dtype=image.dtype, crs="EPSG:32633", transform=place)
    with rasterio.open(folder / name, "w", **size, **options) as file:
        file.write(image)

ms = np.random.default_rng(0).integers(1, 2000, (2, 15, 20)).astype(np.uint16)
write("ms.tif", ms, 4.0)
write("pan.tif", np.ones((1, 60, 80), np.uint16), 1.0)
with open_scene(folder / "pan.tif", [folder / "ms.tif"], Repeat.contract.sensor) as scene:
    sharpen(Repeat(), scene, folder / "out.tif")
with rasterio.open(folder / "out.tif") as file:
    assert np.array_equal(file.read(), ms.repeat(4, axis=1).repeat(4, axis=2))
"""


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute"
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("floor", range(len(FLOORS)), ids=FLOORS)
def test_arrows_point_downward(floor: int) -> None:
    above = list(FLOORS)[floor + 1 :]
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (ROOT / list(FLOORS.values())[floor]).rglob("*.py")
        for name in imports(path)
        if name.startswith(tuple(f"{package}." for package in above))
    }
    assert not wrong


def test_everything_lies_on_a_floor() -> None:
    folders = [ROOT / folder for folder in FLOORS.values()]
    files = [path for path in (ROOT / "sfiin").iterdir() if path.suffix == ".py"]
    rooms = [path for path in (ROOT / "sfiin").iterdir() if (path / "__init__.py").is_file()]
    assert [path.name for path in files] == ["__init__.py"]
    assert {path.resolve() for path in rooms} == set(folders)


def test_the_runtime_never_imports_torch_or_onnx() -> None:
    for path in (ROOT / "runtime").rglob("*.py"):
        assert not {"torch", "onnx"} & {name.partition(".")[0] for name in imports(path)}, path


def test_importing_the_runtime_loads_nothing_heavy(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", IMPORT_ALL], check=True, cwd=tmp_path)


def test_help_loads_neither_numpy_nor_rasterio(tmp_path: Path) -> None:
    code = """
import sys, sfiin.runtime.cli
sys.argv = ["sfiin", "run", "--help"]
try:
    sfiin.runtime.cli.main()
except SystemExit as end:
    assert end.code == 0, end.code
assert not {"numpy", "rasterio", "rich", "sfiin.commands.train"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, cwd=tmp_path)


# --- a bare environment ---


def python_for_numpy1() -> str | None:
    """A Python 3.10 that runs, a shim of pyenv may not; else this Python if there is a NumPy 1.26 for it."""
    candidates = [shutil.which("python3.10"), *map(str, Path.home().glob(".pyenv/versions/3.10*/bin/python"))]
    probe = "import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 10))"
    for candidate in filter(None, candidates):
        if subprocess.run([candidate, "-c", probe], capture_output=True, check=False).returncode == 0:
            return candidate
    return sys.executable if sys.version_info < (3, 13) else None


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a fresh environment with the project, no extra, and NumPy 1.26."""
    python = python_for_numpy1()
    if python is None:
        pytest.skip("NumPy 1.26 needs Python 3.10 to 3.12")
    folder = tmp_path_factory.mktemp("bare")
    # Links are followed: the copy has the folders where they are imported from.
    shutil.copytree(ROOT / "sfiin", folder / "source" / "sfiin", ignore=shutil.ignore_patterns("__pycache__"))
    for path in [ROOT / "pyproject.toml", *ROOT.glob("README.md")]:
        shutil.copy(path, folder / "source")
    subprocess.run([python, "-m", "venv", str(folder / "venv")], check=True, capture_output=True)
    programs = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    command = ["-m", "pip", "install", "--retries", "1", "numpy==1.26.4", str(folder / "source")]
    done = subprocess.run([str(programs / "python"), *command], capture_output=True, text=True, check=False)
    if done.returncode and OFFLINE.search(done.stdout + done.stderr):
        pytest.skip("pip cannot reach a package registry")
    assert done.returncode == 0, done.stdout + done.stderr
    return programs


def call(bare: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Nothing of this repository may leak into the bare environment.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [str(bare / program), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=bare.parent, env=environment
    )


class TestBare:
    def test_every_module_imports(self, bare: Path) -> None:
        done = call(bare, "python", "-c", IMPORT_ALL)
        assert done.returncode == 0, done.stderr

    def test_a_scene_is_sharpened(self, bare: Path, tmp_path: Path) -> None:
        done = call(bare, "python", "-c", SHARPEN, str(tmp_path))
        assert done.returncode == 0, done.stderr

    def test_help_lists_every_command(self, bare: Path) -> None:
        done = call(bare, "sfiin", "--help")
        assert done.returncode == 0, done.stderr
        assert all(f"\n  {name} " in done.stdout for name in COMMANDS)
        assert "cannot be loaded" not in done.stdout
        assert call(bare, "sfiin", "run", "--help").returncode == 0

    def test_train_names_its_extra(self, bare: Path, tmp_path: Path) -> None:
        done = call(bare, "sfiin", "train", "--data", str(tmp_path), "-o", str(tmp_path / "x.safetensors"))
        assert done.returncode == 5, done.stderr
        assert "needs the extra 'train': pip install '" in done.stderr

    def test_run_names_the_backend_it_lacks(self, bare: Path, tmp_path: Path) -> None:
        model = Path(__file__).parents[2] / "runtime" / "models" / "sfiin-vhr4.onnx"
        options = {"--pan": "p.tif", "--ms": "m.tif", "-o": "o.tif", "--model": str(model)}
        done = call(
            bare, "sfiin", "run", *(part for k, v in options.items() for part in (k, str(tmp_path / v)))
        )
        assert done.returncode == 5, done.stderr
        assert "[cpu]'" in done.stderr

    def test_doctor_tells_what_is_missing(self, bare: Path) -> None:
        done = call(bare, "sfiin", "doctor", "--json")
        assert done.returncode == 0, done.stderr
        facts = json.loads(done.stdout)
        assert facts["packages"]["numpy"] == "1.26.4"
        assert facts["packages"]["torch"] is None
        assert not facts["backends"]["cpu"]["usable"]
        found = facts["extras"]["cpu"]
        assert found["missing"] == ["onnxruntime"]
        assert found["install"].startswith("pip install '")
        assert found["install"].endswith("[cpu]'")
