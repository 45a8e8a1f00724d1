"""Does a Jetson get what the guide promises? Its commands on a bare Python 3.10, down to what needs the
device."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "jetson.md").read_text("utf-8")
MODELS = ROOT / "runtime" / "models"
OFFLINE = re.compile(
    r"connection broken|NewConnectionError|ConnectTimeout|name resolution|unreachable|ProxyError"
)
WITHOUT_TENSORRT = "TensorRT is not installed"

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Device:
    """An environment with the extra 'jetson' and nothing else, and a folder to work in."""

    programs: Path
    folder: Path

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        command = [str(self.programs / arguments[0]), *arguments[1:]]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=self.folder, env=environment
        )


def python310() -> Iterator[str]:
    """Pythons 3.10 that run; a shim of pyenv may not."""
    probe = "import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 10))"
    places = (".pyenv/versions/3.10*/bin", ".local/share/uv/python/*3.10*/bin", "*conda*/envs/*/bin")
    found = [path for place in places for path in Path.home().glob(f"{place}/python3.10")]
    for candidate in filter(None, [shutil.which("python3.10"), *map(str, found)]):
        if subprocess.run([candidate, "-c", probe], capture_output=True, check=False).returncode == 0:
            yield candidate


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Device:
    python = next(python310(), None)
    if python is None:
        pytest.skip("no Python 3.10 is at hand, which JetPack 6 has")
    folder = tmp_path_factory.mktemp("jetson")
    # Links are followed: the copy has the folders where they are imported from.
    shutil.copytree(ROOT / "sfiin", folder / "source" / "sfiin", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    subprocess.run([python, "-m", "venv", str(folder / "venv")], check=True, capture_output=True)
    made = Device(folder / "venv" / "bin", folder)
    install = ("python", "-m", "pip", "install", "--only-binary=:all:", "--retries", "1", "--no-binary=sfiin")
    done = made.call(*install, f"{folder / 'source'}[jetson]")
    if done.returncode and OFFLINE.search(done.stdout + done.stderr):
        pytest.skip("pip cannot reach a package registry")
    assert done.returncode == 0, done.stdout + done.stderr
    for suffix in ("onnx", "golden.npz"):
        shutil.copy(MODELS / f"sfiin-vhr4.{suffix}", folder / f"net.{suffix}")
    return made


def promised() -> list[str]:
    """The commands in the guide's section on the device, without their comments."""
    section = GUIDE.split("## On the device")[1].split("\n## ")[0]
    return [line.strip() for line in re.findall(r"^    (sfiin [^#\n]*)", section, re.M)]


def test_the_guide_names_the_commands_that_are_tried_here() -> None:
    assert [line.split()[1] for line in promised()] == ["doctor", "build", "run", "bench"]


def test_the_environment_is_bare_and_of_one_piece(device: Device) -> None:
    assert device.call("python", "-m", "pip", "check").returncode == 0
    listed = device.call("python", "-m", "pip", "list", "--format=json").stdout
    names = {package["name"] for package in json.loads(listed)}
    assert {"sfiin", "onnx", "cuda-bindings", "tomli"} <= names
    assert not names & {"torch", "onnxruntime", "onnxruntime-gpu", "scipy", "pycuda", "tensorrt"}


@pytest.mark.parametrize("line", promised())
def test_a_promised_command_gets_as_far_as_the_device(device: Device, line: str) -> None:
    done = device.call(*shlex.split(line))
    assert "Traceback" not in done.stderr, done.stderr
    code, text = {
        "doctor": (0, ""),
        "build": (5, WITHOUT_TENSORRT),
        # A plan comes from the command before, which had no device to make it on.
        "run": (3, "net.plan: no such model file"),
        "bench": (3, "net.plan: no such model file"),
    }[shlex.split(line)[1]]
    assert done.returncode == code, done.stderr
    assert text in done.stderr


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("sfiin preflight net.onnx --target jetpack6", 0),
        ("sfiin inspect net.onnx", 0),
        ("sfiin doctor --json", 0),
        ("sfiin run --method gsa --pan pan.tif --ms ms.tif -o sharp.tif", 3),
        ("sfiin watch --help", 0),
        ("sfiin build net.onnx -o net.plan --dla", 4),
        ("sfiin refit net.plan net.onnx -o new.plan", 3),  # there is no such plan; torch is not asked for
    ],
)
def test_what_needs_no_device_works(device: Device, line: str, code: int) -> None:
    done = device.call(*shlex.split(line))
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command", ["refit net.plan new.safetensors -o new.plan", "calibrate net.onnx --advise"]
)
def test_what_needs_torch_says_so(device: Device, command: str) -> None:
    options = ["--device", "orin-agx"] if command.startswith("calibrate") else []
    done = device.call("sfiin", *shlex.split(command), *options)
    assert done.returncode == 5, done.stdout + done.stderr
    assert "needs the extra 'export': pip install" in done.stderr


def test_doctor_says_what_the_device_would_bring(device: Device) -> None:
    facts = json.loads(device.call("sfiin", "doctor", "--json").stdout)
    assert facts["python"]["version"].startswith("3.10.")
    assert facts["packages"]["torch"] is None
    assert facts["extras"]["jetson"]["missing"] == []
