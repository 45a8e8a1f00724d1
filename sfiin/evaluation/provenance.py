"""What exactly was evaluated, and with what? The facts at the head of a report."""

from __future__ import annotations

import dataclasses
import json
import platform
import subprocess
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import sfiin
from sfiin.model import checkpoint
from sfiin.runtime.backends.session import OnnxSession
from sfiin.runtime.files import sha256

LIBRARIES = ("numpy", "scipy", "torch", "onnxruntime", "matplotlib")


def of_model(path: Path) -> dict[str, str]:
    """What a checkpoint, or an exported model's contract, says of itself. Raises as
    `evaluation.open_model`."""
    facts = {"file": path.name, "SHA-256": sha256(path)}
    if path.suffix == ".onnx":
        contract = OnnxSession(path).contract
        return facts | {
            "architecture": "sfiin, exported to ONNX",
            "configuration": _named(contract.network),
            "sensor": _named(dataclasses.asdict(contract.sensor)),
            "lowering": f"{contract.lowering}, {contract.precision}, opset {contract.opset}",
            "checkpoint": f"SHA-256 {contract.checkpoint}",
            "training": "not part of an exported model",
        }
    loaded = checkpoint.load(path)
    network = loaded.network
    facts |= {
        "architecture": checkpoint.architecture(network),
        "configuration": _named(dataclasses.asdict(network.config)),
        "parameters": f"{sum(parameter.numel() for parameter in network.parameters()):,}",
        "sensor": _named(dataclasses.asdict(network.sensor)),
    }
    record = {f"training: {key}": _text(value) for key, value in loaded.training.items() if key != "curve"}
    return facts | (record or {"training": "not recorded in the checkpoint"})


def of_run(command: str) -> dict[str, str]:
    """When, by which command and with which software: versions, and the commit if the package lies in a
    checkout."""
    facts = {"command": command, "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")}
    facts |= {"sfiin": sfiin.__version__, "commit": commit() or "not run from a git checkout"}
    return facts | {"Python": platform.python_version(), "machine": platform.machine()} | _versions()


def commit() -> str | None:
    """The git commit that this package was checked out from, '-dirty' behind it if files differ; None
    without git."""
    here = Path(__file__)
    tracked = _git("ls-files", "--error-unmatch", here.name)
    return (
        None if tracked is None else _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*")
    )


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *arguments],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _versions() -> dict[str, str]:
    installed = [name for name in LIBRARIES if find_spec(name) is not None]
    return {name: metadata.version(name) for name in installed}


def _named(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_text(value)}" for key, value in facts.items())


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"{len(value)} ({', '.join(map(str, value))})"
    return value if isinstance(value, str) else json.dumps(value)
