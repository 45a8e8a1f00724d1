"""Who renders a document for people? The packages above, by an entry point; the runtime itself only makes
JSON.

A renderer is a function of a JSON document and the HTML file to write, named by the group `sfiin.reports`:

    [project.entry-points."sfiin.reports"]
    scene = "sfiin.evaluation.scene_report:write"
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from sfiin.runtime.errors import UnavailableError
from sfiin.runtime.extras import missing

GROUP = "sfiin.reports"

Renderer = Callable[[dict[str, Any], Path], None]


def renderer(kind: str) -> Renderer:
    """The function that writes a document of this kind. Raises UnavailableError where nothing here does.

    It is asked for before long work starts, so that a missing package is known at once.
    """
    for point in metadata.entry_points(group=GROUP, name=kind):
        try:
            found: Renderer = point.load()
        except ImportError as error:
            raise UnavailableError(
                f"{missing(str(error.name), 'report', 'a report')}; or leave out --report"
            ) from None
        return found
    raise UnavailableError(f"no package here renders a report of a {kind}; reinstall sfiin")
