"""What happened in the night? A file of JSON documents, a line each, for a person or a log collector."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TextIO

from sfiin.runtime.errors import OutputError
from sfiin.runtime.station.events import Event

_LEVELS = {
    "failed": "error",
    "try again": "warning",
    "waiting": "warning",
    "incomplete": "warning",
    "lost": "warning",
}
_QUIET = ("look",)


class Log:
    """A log that is added to; None for none, "-" for stderr. Close it, or use it as a context.

    Each line has `time` (UTC), `level`, `event`, and what the event has, tracebacks included. Raises
    OutputError where the file cannot be opened.
    """

    def __init__(self, path: Path | None) -> None:
        self._file: TextIO | None = None
        self._own = False
        if path is not None and str(path) == "-":
            self._file = sys.stderr
        elif path is not None:
            try:
                self._file = path.open("a", encoding="utf-8", errors="backslashreplace")
            except OSError as error:
                raise OutputError(f"{path}: cannot be written ({error.strerror}); check the folder") from None
            self._own = True

    def write(self, event: Event) -> None:
        """Add a line. What cannot be written is left out: a full disk must not end the work."""
        if self._file is None or event.event in _QUIET:
            return
        head = {
            "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "level": _LEVELS.get(event.event, "info"),
        }
        try:
            self._file.write(json.dumps(head | event.document()) + "\n")
            self._file.flush()
        except OSError:
            return

    def close(self) -> None:
        """Close the file."""
        if self._file is not None and self._own:
            self._file.close()
            self._file = None

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
