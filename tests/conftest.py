"""Shared by all tests: where real imagery lies, and small networks to test with."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from sfiin.runtime import cli
from sfiin.runtime.backends.plan import Build
from sfiin.runtime.files import sha256

Invoke = Callable[..., tuple[int, str, str]]

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def imagery() -> Path:
    """A folder with `train/`, `check/` and `scenes/`: $SFIIN_IMAGERY, or any `*/data` beside the checkout.

    Real imagery belongs to its providers and is not part of the repository.
    """
    named = os.environ.get("SFIIN_IMAGERY")
    candidates = [Path(named)] if named else sorted(ROOT.parent.glob("*/data"))
    for folder in candidates:
        if all((folder / part).is_dir() for part in ("train", "check", "scenes")):
            return folder
    pytest.skip("no real imagery at hand; set SFIIN_IMAGERY to a folder with train/, check/ and scenes/")


@pytest.fixture(scope="session")
def shipped_checkpoint() -> Path:
    """The checkpoint that comes with the package."""
    return ROOT / "sfiin" / "checkpoints" / "sfiin-vhr4.safetensors"


@pytest.fixture(scope="session")
def script() -> Callable[[Path], Any]:
    """Loads a file that is no part of the package, such as a benchmark, as a module."""

    def load(path: Path) -> Any:
        spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # where dataclasses look for their own module
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def plan_of_orin() -> Callable[..., Build]:
    """Writes a file that looks like a plan; how it was made, but for `changes`."""

    def write(path: Path, **changes: Any) -> Build:
        path.write_bytes(b"ftrt" + bytes(20) + bytes((10, 3, 0, 26)) + b"the rest")
        build = Build(
            "tensorrt",
            "10.3.0.26",
            "Orin",
            ("8.7",),
            (1, 2, 4),
            "",
            sha256(path),
            False,
            False,
            False,
            "none",
            "",
            False,
            {},
            1.0,
        )
        return dataclasses.replace(build, **changes)

    return write


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Invoke:
    """Run the command line in this process: arguments to exit code, standard output and standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sfiin", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0), *capsys.readouterr()

    return call


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network of one block."""
    import torch

    from sfiin.data.sensors import SENSORS
    from sfiin.model import checkpoint
    from sfiin.model.network import SFIIN, NetworkConfig

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("small") / "small.safetensors"
    checkpoint.save(path, checkpoint.Checkpoint(SFIIN(NetworkConfig(blocks=1), SENSORS["vhr4"].profile)))
    return path


@pytest.fixture(scope="session")
def small_model(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small network, exported for tiles of 32 x 32; its golden tiles lie beside it."""
    from sfiin.export.exporter import export_model
    from sfiin.runtime.contract import Tile

    path = tmp_path_factory.mktemp("model") / "small.onnx"
    export_model(small_checkpoint, path, "matmul", Tile(32, 32, 8), opset=17)
    return path


@pytest.fixture(scope="session")
def simulated_pairs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, str], Path]:
    """A new folder of four pairs with truth, p0 to p3, of so many PAN pixels a side and of a sensor of
    this name."""
    import numpy as np

    from sfiin.data.simulate import simulate

    def write(side: int, sensor: str) -> Path:
        folder = tmp_path_factory.mktemp("pairs")
        for seed in range(4):
            scene, meta = simulate(side, side, seed), f'{{"sensor": "{sensor}"}}'
            np.savez(folder / f"p{seed}.npz", pan=scene.pan, ms=scene.ms, gt=scene.truth, meta=meta)
        return folder

    return write


@pytest.fixture
def file_size_limit() -> Callable[[int], AbstractContextManager[None]]:
    """A context in which no file of this process may grow beyond so many bytes, as on a full disk."""

    @contextmanager
    def limited(limit: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


class HtmlPage(HTMLParser):
    """A parsed page: collects cells, sources and tags, and checks that tags are closed in order."""

    VOID = ("meta", "img", "link")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"th", "td"} & set(self.open):
            self.rows[-1][-1] += data
        self.text += data


@pytest.fixture(scope="session")
def html_page() -> Callable[[str], HtmlPage]:
    """Parse HTML: its `rows` of tables' cells, `tags`, `attributes` and `text`. Fails where tags do not
    match."""
    return HtmlPage


@pytest.fixture(scope="session")
def markdown_rows() -> Callable[[str], list[list[str]]]:
    """The cells of all tables in a Markdown text, without bold and escapes."""

    def read(text: str) -> list[list[str]]:
        rows = []
        for line in text.splitlines():
            if line.startswith("| ") and not re.fullmatch(r"(\| --- )+\|", line):
                cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
                plain = [re.sub(r"^\*\*(.*)\*\*$", r"\1", cell) for cell in cells]
                rows.append([re.sub(r"\\(.)", r"\1", cell) for cell in plain])
        return rows

    return read
