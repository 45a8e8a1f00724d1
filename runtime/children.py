"""How is another process of this Python started, with the same code? Never with what lies in the current
folder.

`python -m` looks for modules in the current folder first: a folder `sfiin` or `numpy` that somebody uploads
there would be run.
"""

from __future__ import annotations

import sys
from pathlib import Path

import sfiin

_RUN = (
    "import sys; sys.path[:] = [path for path in sys.path if path]; "
    "root = sys.argv.pop(1); root in sys.path or sys.path.insert(0, root); "
    "import runpy; runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


def command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of ours as a program."""
    root = Path(next(iter(sfiin.__path__))).parent
    return [sys.executable, "-c", _RUN, str(root), module, *arguments]
