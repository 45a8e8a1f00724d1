"""Does ONNX Runtime load a model? It is asked, in a process of its own, and its first line is the finding.

Tables of operators do not see what it refuses while it resolves a graph: constants that it needs for shapes
but that lie in another file, or an opset that nobody has published.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from sfiin.export.preflight import Finding

PATIENCE = 300
"""Seconds that loading may take."""

SOURCE = "https://onnxruntime.ai/docs/reference/compatibility.html"

_SCRIPT = """
import sys
import onnxruntime
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
try:
    onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
except Exception as error:
    print((str(error).strip() or type(error).__name__).splitlines()[0])
"""


def refusal(path: Path) -> Finding | None:
    """Why ONNX Runtime here does not load a model, or None if it does, or is not here."""
    if find_spec("onnxruntime") is None:
        return None
    command = [sys.executable, "-c", _SCRIPT, str(path)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return _finding(f"was not loaded in {PATIENCE} s")
    if done.returncode:
        return _finding(f"ends the process that loads it (exit code {done.returncode})")
    said = done.stdout.strip()
    return _finding(f"is not loaded: {said[:300]}") if said else None


def _finding(problem: str) -> Finding:
    remedy = "save its weights inside the model, in an opset that ONNX Runtime has"
    return Finding("error", "(model)", "(model)", problem, remedy, SOURCE)
