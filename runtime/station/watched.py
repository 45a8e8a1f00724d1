"""What has a session that looks after itself to say of a scene? The origin of each tile, alarms, and a
sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sfiin.runtime.backends.session import Watched
from sfiin.runtime.flight.guard import laid_out
from sfiin.runtime.scenes.pipeline import Sharpened


def record(session: Watched, report: Sharpened) -> dict[str, Any]:
    """What the session did since the scene began (`Guard.prove`), with `origins` of all the scene's tiles,
    row after row, those without data included. Raises UntrustedError where the session does not pass its
    self-test."""
    found = dict(session.vouch())
    origins = laid_out(found["origins"], report.skipped, report.tiles)
    return found | {"origins": origins}


def notes(found: Mapping[str, Any]) -> list[str]:
    """A sentence about tiles that were not made by the first of a chain."""
    counts = found.get("tiles", {})
    others = {name: count for name, count in counts.items() if name != found["chain"][0]}
    if not others:
        return []
    told = ", ".join(f"{count} by {name}" for name, count in others.items())
    return [
        f"{sum(others.values())} of {sum(counts.values())} tiles were not made by {found['chain'][0]}: "
        f"{told}; guard.origins in the run's document tells which"
    ]
