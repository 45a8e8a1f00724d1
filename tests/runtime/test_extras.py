"""Every remedy that a message prints names something that exists."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from sfiin.runtime import extras

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


def known_extras() -> set[str]:
    return set(metadata.metadata("sfiin").get_all("Provides-Extra") or [])


def known_commands() -> set[str]:
    return {point.name for point in metadata.entry_points(group="sfiin.commands")}


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
