"""What is each part of the network worth? Variants trained alike, from several seeds, and judged on the
same pairs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from sfiin.data.pairs import Pair, Source
from sfiin.evaluation.judging import MEASURES, JudgedModel, means, score
from sfiin.model.checkpoint import ARCHITECTURES, Architecture, fuser
from sfiin.model.network import PanSharpener
from sfiin.runtime import documents
from sfiin.runtime.contract import SensorProfile, Tile
from sfiin.runtime.errors import InputError
from sfiin.runtime.files import publish
from sfiin.training.train import Progress, TrainingConfig, train


@dataclass(frozen=True)
class Variant:
    """A network to train: an architecture, and what differs from its default configuration."""

    name: str
    architecture: Architecture = "sfiin"
    changes: dict[str, Any] = field(default_factory=dict)

    def build(self, sensor: SensorProfile) -> PanSharpener:
        """The untrained network, from torch's present random state."""
        configuration, kind = ARCHITECTURES[self.architecture]
        network: PanSharpener = kind(
            configuration(bands=len(sensor.bands), ratio=sensor.ratio, **self.changes), sensor
        )
        return network


VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant("sfiin"),
        *(Variant(f"blocks-{count}", changes={"blocks": count}) for count in (1, 2, 3, 4, 6)),
        Variant("no-frequency", changes={"branches": "spatial"}),
        Variant("no-spatial", changes={"branches": "frequency"}),
        Variant("no-interaction", changes={"interaction": "none"}),
        Variant("channels-16", changes={"channels": 16}),
        Variant("invertible", changes={"spatial": "invertible"}),
        Variant("pnn", "pnn"),
        Variant("pannet", "pannet"),
    )
}
"""By name; `sfiin` is the default configuration: five core blocks, eight channels, all parts."""


@dataclass(frozen=True)
class Experiment:
    """What all variants share: the sensor, the pairs to train on, to choose the best checkpoint by, to
    judge on."""

    sensor: SensorProfile
    used: Sequence[Source]
    held_out: Sequence[Pair]
    judged: Sequence[Pair]
    config: TrainingConfig


@dataclass(frozen=True)
class MeanQuality:
    """Means over a sensor's pairs, see `sfiin.evaluation.judging.MEASURES`."""

    pairs: int
    psnr: float
    ssim: float
    sam: float
    ergas: float
    scc: float
    q2n: float


@dataclass(frozen=True)
class AblationRun:
    """One variant, trained once: the network, how it was trained, on what, and its quality by sensor.

    `validation_ergas` is the best one's on the held-out pairs; `torch` the version.
    """

    variant: str
    network: Mapping[str, Any]
    parameters: int
    training: TrainingConfig
    validation_ergas: float
    seconds_per_step: float
    device: str
    torch: str
    quality: Mapping[str, MeanQuality]

    @property
    def key(self) -> tuple[str, TrainingConfig]:
        """By what runs are told apart: the variant and how it was trained, seed included."""
        return self.variant, self.training


@dataclass(frozen=True)
class _Runs:
    runs: tuple[AblationRun, ...]


def run(
    path: Path,
    variants: Sequence[Variant],
    seeds: Sequence[int],
    experiment: Experiment,
    watch: Callable[[str, Progress], None] = lambda _, __: None,
) -> list[AblationRun]:
    """Train each variant from each seed and add its figures to the JSON file at `path`, one run at a time.

    What the file holds already, trained the same way, is not trained again. Returns all runs in the file.
    Raises InputError for a file that is none of ours, SfiinError when a training diverges.
    """
    runs = read(path) if path.exists() else []
    done = {found.key for found in runs}
    for variant, seed in ((variant, seed) for seed in seeds for variant in variants):
        config = replace(experiment.config, seed=seed)
        if (variant.name, config) in done:
            continue
        runs.append(_run(variant, experiment, config, watch))
        done.add(runs[-1].key)
        with publish(path) as part:
            text = json.dumps(documents.document(_Runs(tuple(runs))), indent=1)
            part.write_text(text + "\n", encoding="utf-8")
    return runs


def read(path: Path) -> list[AblationRun]:
    """The runs in a file that `run` wrote. Raises InputError for another."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return list(documents.build(_Runs, found, "document", InputError).runs)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError, InputError) as error:
        raise InputError(f"{path}: not the runs that 'sfiin ablate' writes ({error})") from None


def _run(
    variant: Variant, experiment: Experiment, config: TrainingConfig, watch: Callable[[str, Progress], None]
) -> AblationRun:
    torch.manual_seed(config.seed)
    network, start = variant.build(experiment.sensor), time.perf_counter()
    label = f"{variant.name}, seed {config.seed}"
    result = train(
        network, experiment.used, experiment.held_out, config, lambda progress: watch(label, progress)
    )
    seconds = (time.perf_counter() - start) / config.steps
    tile = Tile(config.patch, config.patch, 0)
    model = JudgedModel(variant.name, experiment.sensor, tile, fuser(result.network))
    return AblationRun(
        variant=variant.name,
        network={"architecture": variant.architecture} | asdict(result.network.config),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        training=config,
        validation_ergas=result.training["validation_ergas"],
        seconds_per_step=round(seconds, 3),
        device=result.training["device"],
        torch=torch.__version__,
        quality=_quality(model, experiment.judged),
    )


def _quality(model: JudgedModel, pairs: Sequence[Pair]) -> dict[str, MeanQuality]:
    """Mean measures by sensor."""
    found = means([score(model, pair) for pair in pairs], MEASURES)
    return {sensor: MeanQuality(count, **quality) for sensor, _, count, quality in sorted(found)}
