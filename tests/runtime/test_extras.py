"""Every remedy that a message prints names something that exists."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from sfiin.runtime import extras
from sfiin.runtime.toml import parse

ROOT = Path(__file__).parents[2]
FOLDERS = (
    "runtime",
    "sfiin/model",
    "sfiin/data",
    "sfiin/training",
    "sfiin/evaluation",
    "sfiin/commands",
    "export",
    "calibration",
)


MODULES = {"onnxruntime-gpu": "onnxruntime", "cuda-bindings": "cuda"}
"""Packages whose module has another name."""


def sources() -> Iterator[tuple[Path, ast.AST]]:
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            yield path, ast.parse(path.read_text("utf-8"))


def texts(tree: ast.AST) -> Iterator[str]:
    """All that a file's string literals hold, what is put into them being '{}'."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def project() -> dict[str, Any]:
    """What is declared; what is installed may be older."""
    declared: dict[str, Any] = parse((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return declared


def known_extras() -> set[str]:
    return set(project()["optional-dependencies"])


def known_commands() -> set[str]:
    return set(project()["entry-points"]["sfiin.commands"])


def names(extra: str) -> set[str]:
    """The packages of an extra, with those of the extras inside it."""
    found: set[str] = set()
    for line in project()["optional-dependencies"][extra]:
        parts = re.match(r"([\w.-]+)(?:\[([\w, -]+)\])?", line)
        assert parts, line
        if parts[1] == "sfiin":
            found.update(*(names(inner.strip()) for inner in parts[2].split(",")))
        else:
            found.add(parts[1])
    return found


def brought(extra: str) -> set[str]:
    """The modules of an extra's packages."""
    return {MODULES.get(name, name.replace("-", "_")) for name in names(extra)}


def required() -> Iterator[tuple[str, str, set[str]]]:
    """Each call of `requires`: the file, the extra, and the modules as far as they are written there."""
    for path, tree in sources():
        lists = {
            node.targets[0].id: ast.literal_eval(node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id == "MODULES"
        }
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "requires"):
                continue
            modules: set[str] = set()
            for value in node.args[1:]:
                if isinstance(value, ast.Constant):
                    modules.add(str(value.value))
                elif isinstance(value, ast.Starred) and isinstance(value.value, ast.Name):
                    modules.update(lists.get(value.value.id, ()))
            yield path.name, ast.literal_eval(node.args[0]), modules


def test_every_extra_that_is_named_exists() -> None:
    found = []
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
                name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                place = {"install": 0, "requires": 0, "missing": 1}.get(name)
                values = node.args[place : place + 1] if place is not None else []
                found += [
                    (path, v.value)
                    for v in values
                    if isinstance(v, ast.Constant) and isinstance(v.value, str)
                ]
    named = {extra for _, extra in found} - {"sfiin"}  # what Python's `metadata.requires` is asked for
    assert {"cpu", "gpu", "train", "export", "report", "flight", "triton"} <= named
    assert named <= known_extras(), found


def test_the_extra_that_is_named_brings_what_is_missing() -> None:
    calls = list(required())
    assert len(calls) > 10
    # ONNX Runtime comes with 'cpu' or 'gpu', and `missing` says so.
    lacking = {(name, extra, module) for name, extra, modules in calls for module in modules - brought(extra)}
    assert {module for _, _, module in lacking} <= {"onnxruntime"}, lacking


WITHOUT_TORCH = """
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "safetensors", "onnxscript"}:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return None

sys.meta_path.insert(0, Without)
from sfiin.runtime import cli, extras
extras.find_spec = lambda name: None if name in {"torch", "safetensors"} else cli
sys.argv = ["sfiin", *sys.argv[1:]]
cli.main()
"""


def without_torch(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


def test_evaluating_a_model_and_reports_need_no_torch(
    small_model: Path, small_checkpoint: Path, simulated_pairs: Any, tmp_path: Path
) -> None:
    pairs = simulated_pairs(64, "vhr4")
    done = without_torch(tmp_path, "evaluate", small_model, "--data", pairs, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["means"]
    done = without_torch(tmp_path, "evaluate", small_checkpoint, "--data", pairs)
    assert done.returncode == 5, done.stderr
    assert "torch is not installed; this command needs the extra 'train'" in done.stderr
    done = without_torch(tmp_path, "bench", small_model, "--report", "bench.html", "--samples", 3, "--quiet")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "bench.html").stat().st_size > 10_000


def test_onnxruntime_is_brought_by_another_extra() -> None:
    assert "onnxruntime" in brought("cpu") & brought("gpu")
    assert "onnxruntime" not in brought("export")
    assert "needs the extra 'cpu', or with CUDA 'gpu': pip install" in extras.missing("onnxruntime", "export")


def test_the_extras_have_no_two_packages_of_one_folder() -> None:
    """onnxruntime and onnxruntime-gpu overwrite one another."""
    for extra in known_extras():
        assert not {"onnxruntime", "onnxruntime-gpu"} <= names(extra), extra


def test_nobody_writes_an_install_command_by_hand() -> None:
    """But for `extras`, which knows where sfiin came from."""
    wrong = [
        (path.name, text)
        for path, tree in sources()
        for text in texts(tree)
        if re.search(r"pip install '?sfiin", text) and path.name != "extras.py"
    ]
    assert not wrong


def test_every_command_that_is_named_exists() -> None:
    found = {
        (path, word)
        for path, tree in sources()
        for text in texts(tree)
        for word in re.findall(r"'sfiin ([a-z]+)", text)
    }
    assert len({word for _, word in found}) > 5
    assert not [(str(path), word) for path, word in found if word not in known_commands()]


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (
            {"url": "file:///home/me/my%20sfiin", "dir_info": {"editable": True}},
            "pip install '/home/me/my sfiin[cpu]'",
        ),
        (
            {"url": "file:///tmp/sfiin-0.1.0-py3-none-any.whl"},
            "pip install 'sfiin[cpu] @ file:///tmp/sfiin-0.1.0-py3-none-any.whl'",
        ),
        (
            {"url": "https://host/sfiin.git", "vcs_info": {}},
            "pip install 'sfiin[cpu] @ https://host/sfiin.git'",
        ),
        ({}, "pip install 'sfiin[cpu]'"),
    ],
)
def test_the_command_is_true_for_where_sfiin_came_from(
    monkeypatch: pytest.MonkeyPatch, origin: dict[str, Any], command: str
) -> None:
    class Installed:
        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return json.dumps(origin) if origin else None

    monkeypatch.setattr(metadata, "distribution", lambda _name: Installed())
    assert extras.install("cpu") == command


def test_here_it_is_the_checkout_or_the_wheel() -> None:
    assert "sfiin" in extras.install("cpu") or str(ROOT) in extras.install("cpu")
    assert extras.missing("onnx", "export").startswith(
        "onnx is not installed; this command needs the extra 'export': pip"
    )
