"""What happens at a station? Events: what a worker answers, and what a watcher tells people, logs and
metrics.

As JSON an event is a document of its fields that are not None, `event` first: `--json` prints it, the log
keeps it, and it is what comes back from a worker's process.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sfiin.runtime import documents
from sfiin.runtime.documents import LEFT_OUT, Encoded
from sfiin.runtime.errors import InputError
from sfiin.runtime.station.run_report import RunReport

Kind = Literal[
    # what a worker answers
    "ready",
    "refused",
    "complete",
    "progress",
    "stopped",
    "crashed",
    "tested",
    # what a watcher tells
    "look",
    "begin",
    "given back",
    "try again",
    "lost",
    "waiting",
    "end",
    # both
    "incomplete",
    "done",
    "skipped",
    "failed",
]
Blame = Literal["scene", "station", "unknown"]


@dataclass(frozen=True)
class Event(Encoded):
    """One thing that happened; what does not belong to it is None.

    `error` is one line, `kind` its class, `exit_code` the command's for it, `blame` whose fault it is,
    `traceback` and `said` (what native libraries printed) are for the log. `waiting` scenes lie in the inbox;
    `count` came to an end, `done` and `failed` of them; in "progress", `done` of `total` tiles are, with
    `memory` bytes. It is the scene's `attempt`, or there were so many `attempts`; a pause is of `seconds`,
    the `times`th in a row. `guard` is what a bundle's guard says of itself.
    """

    event: Kind
    scene: str | None = field(default=None, metadata=LEFT_OUT)
    output: str | None = field(default=None, metadata=LEFT_OUT)
    error: str | None = field(default=None, metadata=LEFT_OUT)
    kind: str | None = field(default=None, metadata=LEFT_OUT)
    exit_code: int | None = field(default=None, metadata=LEFT_OUT)
    blame: Blame | None = field(default=None, metadata=LEFT_OUT)
    traceback: str | None = field(default=None, metadata=LEFT_OUT)
    said: str | None = field(default=None, metadata=LEFT_OUT)
    report: RunReport | None = field(default=None, metadata=LEFT_OUT)
    waiting: int | None = field(default=None, metadata=LEFT_OUT)
    count: int | None = field(default=None, metadata=LEFT_OUT)
    done: int | None = field(default=None, metadata=LEFT_OUT)
    failed: int | None = field(default=None, metadata=LEFT_OUT)
    total: int | None = field(default=None, metadata=LEFT_OUT)
    memory: int | None = field(default=None, metadata=LEFT_OUT)
    attempt: int | None = field(default=None, metadata=LEFT_OUT)
    attempts: int | None = field(default=None, metadata=LEFT_OUT)
    seconds: float | None = field(default=None, metadata=LEFT_OUT)
    times: int | None = field(default=None, metadata=LEFT_OUT)
    guard: Mapping[str, Any] | None = field(default=None, metadata=LEFT_OUT)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Event:
        """From `document`'s values. Raises InputError for what is no event."""
        return documents.build(cls, document, "event", InputError)

    def with_(self, **changes: Any) -> Event:
        """The same with other fields."""
        return dataclasses.replace(self, **changes)


Tell = Callable[[Event], None]
