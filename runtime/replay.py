"""What does a model that nobody vouches for make of its golden tiles? Run as a process of its own.

`python -m sfiin.runtime.replay MODEL` prints one line of JSON: the figures and the digest of the bytes that
ran, or an error with its exit code. Memory is bounded, so that a graph that asks for more than there is dies
here. A crash of the backend ends this process, and not the one that asked.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from contextlib import suppress
from pathlib import Path

from sfiin.runtime.errors import CheckFailedError, SfiinError

MEMORY = 16 << 30
"""Bytes of addresses that the process may have; a backend reserves more than it uses."""


def main(path: Path) -> int:
    """Print what became of the tiles; 0 whatever it is."""
    _bound_memory()
    try:
        document = measured(path)
    except SfiinError as error:
        document = {"error": str(error), "exit_code": error.exit_code}
    except MemoryError:
        document = {
            "error": f"{path}: wants more memory than there is; it was not run",
            "exit_code": CheckFailedError.exit_code,
        }
    print(json.dumps(document))
    return 0


def measured(path: Path) -> dict[str, object]:
    """The model's distance from its golden tiles. Raises SfiinError."""
    from sfiin.runtime import golden, vouching
    from sfiin.runtime.backends.session import OnnxSession
    from sfiin.runtime.check import parity

    model = vouching.read(path)
    tiles = golden.read(golden.beside(path), model.contract)
    with OnnxSession.of(model, threads=1) as session:
        output = tiles.through(session.run)
    found = parity(tiles.names, output, tiles.hrms, float(model.contract.sensor.peak))
    return {
        "relative_l2": _finite(found.relative_l2),
        "peak_share": _finite(found.peak_share),
        "sha256": hashlib.sha256(model.data).hexdigest(),
    }


def _bound_memory() -> None:
    if sys.platform == "win32":
        return
    import resource

    with suppress(ValueError, OSError):  # a smaller bound is there already
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
