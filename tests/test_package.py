"""What is in the wheel and the sdist, and do they work where other packages' names lie about?"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DATA = (
    "sfiin/py.typed",
    "sfiin/data/sensors.toml",
    "sfiin/checkpoints/sfiin-vhr4.safetensors",
    "sfiin/runtime/models/sfiin-vhr4.onnx",
    "sfiin/runtime/models/sfiin-vhr4.golden.npz",
    "sfiin/export/targets.toml",
    "sfiin/export/plugin/CMakeLists.txt",
    "sfiin/calibration/devices.toml",
)
FOREIGN = "raise SystemExit('a stranger was run')\n"


@dataclass(frozen=True)
class Built:
    wheel: Path
    sdist: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Built from what git tracks, without what lies about in the checkout, and without a network."""
    folder = tmp_path_factory.mktemp("package")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("this is no checkout")
    source = folder / "source"
    for name in filter(None, listed.stdout.decode().split("\0")):
        place = source / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_symlink():
            place.symlink_to((ROOT / name).readlink())
        elif (ROOT / name).is_file():
            shutil.copyfile(ROOT / name, place)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return Built(next((folder / "dist").glob("*.whl")), next((folder / "dist").glob("*.tar.gz")))


def test_the_wheel_holds_one_package(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        names = wheel.namelist()
    assert {name.partition("/")[0] for name in names} == {
        "sfiin",
        built.wheel.name.rpartition("-py3")[0] + ".dist-info",
    }
    assert set(DATA) <= set(names)
    assert not [name for name in names if "/tests/" in name or name.endswith(".pyc")]
    sources = {
        f"sfiin/{path.relative_to(ROOT / 'sfiin')}" for path in walked(ROOT / "sfiin") if path.suffix == ".py"
    }
    assert sources == {name for name in names if name.endswith(".py")}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def walked(folder: Path) -> list[Path]:
    """All files below a folder, through its links."""
    found = [Path(root) / name for root, _, names in os.walk(folder, followlinks=True) for name in names]
    return [path for path in found if "__pycache__" not in path.parts]


def test_the_sdist_holds_one_package_and_what_it_is_built_by(built: Built) -> None:
    with tarfile.open(built.sdist) as sdist:
        names = [name.partition("/")[2] for name in sdist.getnames()]
    top = {name.partition("/")[0] for name in names} - {""}
    assert {"sfiin", "pyproject.toml", "README.md", "LICENSE", "PKG-INFO"} <= top
    assert not top & {"runtime", "export", "calibration"}
    assert set(DATA) <= set(names)


Venv = Callable[[Path], Path]


@pytest.fixture(scope="module", params=["wheel", "sdist"])
def installed(built: Built, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment with nothing of this checkout: sfiin from the archive, the rest from
    here."""
    folder = tmp_path_factory.mktemp(request.param)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    programs = folder / "venv" / "bin"
    site = next((folder / "venv" / "lib").glob("python*")) / "site-packages"
    others = [path for path in sys.path if path.endswith("site-packages")]
    (site / "others.pth").write_text("\n".join(others))
    archive: Path = getattr(built, request.param)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(programs / "python"),
        "install",
        *options,
        str(archive),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return programs


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder to stand in, with files and folders of the names that were once ours."""
    for name in ("export.py", "calibration.py", "cli.py"):
        (tmp_path / name).write_text(FOREIGN)
    for name in ("runtime", "export"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(FOREIGN)
    return tmp_path


def call(installed: Path, folder: Path, program: str, *arguments: object) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment["PYTHONPATH"] = str(folder)  # and not only where one stands
    command = [str(installed / program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_works_beside_strangers(installed: Path, hostile: Path) -> None:
    where = call(installed, hostile, "python", "-c", "import sfiin; print(sfiin.__file__)")
    assert str(installed.parent) in where, "the archive's, not the checkout's"
    assert call(installed, hostile, "sfiin", "--version").startswith("sfiin ")
    listed = call(installed, hostile, "sfiin", "--help")
    assert "cannot be loaded" not in listed
    example = shutil.copy(ROOT / "examples" / "sharpen.py", hostile)
    told = call(installed, hostile, "python", example, hostile)
    assert "the same pixels: True" in told
    options = ("--pan", "pan.tif", "--ms", "ms.tif", "-o", "run.tif", "--json")
    assert '"tiles"' in call(installed, hostile, "sfiin", "run", *options)
    assert (hostile / "run.tif").read_bytes() == (hostile / "sharp.tif").read_bytes()


def test_pip_finds_nothing_wrong(installed: Path) -> None:
    command = [sys.executable, "-m", "pip", "--python", str(installed / "python"), "check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wrong = [line for line in done.stdout.splitlines() if line.startswith("sfiin ")]
    assert not wrong


def test_uninstalling_takes_all_of_it_and_nothing_else(installed: Path, hostile: Path) -> None:
    site = next((installed.parent / "lib").glob("python*")) / "site-packages"
    assert not (site / "export").exists()
    assert not (site / "runtime").exists()
    command = [sys.executable, "-m", "pip", "--python", str(installed / "python"), "uninstall", "-y", "sfiin"]
    subprocess.run(command, check=True, capture_output=True)
    assert not (site / "sfiin").exists()
