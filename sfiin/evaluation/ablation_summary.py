"""What do the runs of an ablation say, over their seeds?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sfiin.evaluation import ablation
from sfiin.evaluation.ablation import AblationRun
from sfiin.evaluation.judging import MEASURES, Spread, spread
from sfiin.training.train import TrainingConfig

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


def read_all(paths: Sequence[Path]) -> list[AblationRun]:
    """The runs of these files; of runs of one variant, trained the same way, the first. Raises InputError as
    `read`."""
    runs: dict[tuple[str, TrainingConfig], AblationRun] = {}
    for path in paths:
        for run in ablation.read(path):
            runs.setdefault(run.key, run)
    return list(runs.values())


def how_trained(run: AblationRun) -> str:
    """How a run was trained, but for its seed; runs are comparable where this is the same."""
    config = run.training
    return (
        f"{config.steps} steps, batch {config.batch}, patch {config.patch}, rate {config.rate:g}, "
        f"loss weight {config.weight:g}, {config.precision}"
    )


def summarise(runs: Sequence[AblationRun]) -> dict[str, dict[str, Summary]]:
    """Summaries by `how_trained` and variant, in the runs' order."""
    groups: dict[str, dict[str, list[AblationRun]]] = {}
    for run in runs:
        groups.setdefault(how_trained(run), {}).setdefault(run.variant, []).append(run)
    return {
        key: {name: _summary(name, found) for name, found in group.items()} for key, group in groups.items()
    }


def _summary(variant: str, runs: Sequence[AblationRun]) -> Summary:
    quality = {
        sensor: {
            key: spread([getattr(run.quality[sensor], key) for run in runs if sensor in run.quality])
            for key in MEASURES
        }
        for sensor in sorted({sensor for run in runs for sensor in run.quality})
    }
    seeds = tuple(sorted(run.training.seed for run in runs))
    seconds = spread([run.seconds_per_step for run in runs])
    return Summary(variant, runs[0].parameters, seeds, seconds, quality)
