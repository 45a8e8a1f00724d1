"""What do the runs of an ablation say, over their seeds?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfiin.evaluation import ablation
from sfiin.evaluation.judging import MEASURES, Spread, spread

PARTS = ("sfiin", "no-frequency", "no-spatial", "no-interaction")
WIDTHS = ("sfiin", "channels-16", "invertible")
NETWORKS = ("sfiin", "pnn", "pannet")
BLOCKS = {1: "blocks-1", 2: "blocks-2", 3: "blocks-3", 4: "blocks-4", 5: "sfiin", 6: "blocks-6"}
"""The variants of `sfiin.evaluation.ablation` that answer one question together."""


@dataclass(frozen=True)
class Summary:
    """A variant over its seeds: seconds per step, and by sensor the spread of each of `MEASURES` of the
    runs' means."""

    variant: str
    parameters: int
    seeds: tuple[int, ...]
    seconds: Spread
    quality: Mapping[str, Mapping[str, Spread]]


def read_all(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The runs of these files; of runs of one variant, settings and seed the first. Raises InputError as
    `read`."""
    runs: dict[str, dict[str, Any]] = {}
    for path in paths:
        for run in ablation.read(path):
            runs.setdefault(ablation.key(run), run)
    return list(runs.values())


def settings(run: Mapping[str, Any]) -> str:
    """How a run was trained, but for its seed; runs are comparable where this is the same."""
    found = run["training"]
    return (
        f"{found['steps']} steps, batch {found['batch']}, patch {found['patch']}, rate {found['rate']:g}, "
        f"loss weight {found['weight']:g}, {found.get('precision', 'fp32')}"
    )


def summarise(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Summary]]:
    """Summaries by settings and variant, settings in the runs' order."""
    groups: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for run in runs:
        groups.setdefault(settings(run), {}).setdefault(str(run["variant"]), []).append(run)
    return {
        key: {name: _summary(name, found) for name, found in group.items()} for key, group in groups.items()
    }


def _summary(variant: str, runs: Sequence[Mapping[str, Any]]) -> Summary:
    sensors = sorted({sensor for run in runs for sensor in run["quality"]})
    quality = {
        sensor: {
            key: spread([float(run["quality"][sensor][key]) for run in runs if sensor in run["quality"]])
            for key in MEASURES
        }
        for sensor in sensors
    }
    seeds = tuple(sorted(int(run["training"]["seed"]) for run in runs))
    seconds = spread([float(run["seconds_per_step"]) for run in runs])
    return Summary(variant, int(runs[0]["parameters"]), seeds, seconds, quality)
