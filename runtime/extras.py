"""How does a user get what is missing here? The command that installs an extra, true for how sfiin was
installed.

sfiin is on no package index, so that `pip install 'sfiin[cpu]'` finds nothing by itself. Where an
installation came from is written down beside it (PEP 610, `direct_url.json`): a checkout, a wheel, or an
index after all.
"""

from __future__ import annotations

import json
from importlib import metadata
from importlib.util import find_spec
from urllib.parse import unquote, urlsplit

from sfiin.runtime.errors import UnavailableError


def install(extra: str) -> str:
    """A command that brings an extra: from the checkout or the wheel that this installation came from."""
    origin = _origin()
    if origin.startswith("file:") and not origin.endswith((".whl", ".tar.gz")):
        return f"pip install '{unquote(urlsplit(origin).path)}[{extra}]'"
    if origin:
        return f"pip install 'sfiin[{extra}] @ {origin}'"
    return f"pip install 'sfiin[{extra}]'"


def missing(module: str, extra: str, what: str = "this command") -> str:
    """One sentence for a package that is not there: what needs it, and how to get it.

    ONNX Runtime is brought by `cpu` or by `gpu` and by no other extra, for both own the folder onnxruntime/.
    """
    if module == "onnxruntime":
        return (
            f"{module} is not installed; {what} needs the extra 'cpu', or with CUDA 'gpu': {install('cpu')}"
        )
    return f"{module} is not installed; {what} needs the extra '{extra}': {install(extra)}"


def requires(extra: str, *modules: str, what: str = "this command") -> None:
    """Check that top-level `modules` can be found, without importing them.

    Raises UnavailableError that names the first one missing, the extra that brings it, and `what` needs it.
    """
    for module in modules:
        if find_spec(module) is None:
            raise UnavailableError(missing(module, extra, what))


def _origin() -> str:
    """The URL that sfiin was installed from, "" for an index."""
    try:
        text = metadata.distribution("sfiin").read_text("direct_url.json")
        return str(json.loads(text or "{}").get("url", ""))
    except (metadata.PackageNotFoundError, ValueError):
        return ""
