"""Ablation: runs are added one by one, what is there is not done again, and the figures are those of the
networks."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch

from sfiin.data.pairs import Pair
from sfiin.data.sensors import SENSORS
from sfiin.data.simulate import simulate
from sfiin.evaluation import ablation
from sfiin.evaluation.ablation import VARIANTS, Experiment, Variant
from sfiin.model.baselines import PNN, PanNet
from sfiin.model.network import SFIIN
from sfiin.runtime.errors import InputError, OutputError, SfiinError
from sfiin.runtime.quality import metrics
from sfiin.training.train import Progress, TrainingConfig, train

PROFILE = SENSORS["vhr4"].profile
CONFIG = TrainingConfig(steps=2, batch=1, patch=16, rate=3e-3, validate_every=1)
SMALL = Variant("small", changes={"channels": 4, "blocks": 1})
TINY = Variant("tiny", "pnn")


def pair(seed: int, sensor: str = "simulated") -> Pair:
    scene = simulate(32, 32, seed)
    pan, ms, truth = (a.astype(np.float32) for a in (scene.pan[None], scene.ms, scene.truth))
    return Pair(f"s{seed}", pan, ms, truth, {"sensor": sensor})


EXPERIMENT = Experiment(PROFILE, [pair(1)], [pair(2)], [pair(3, "b"), pair(4, "a"), pair(5, "b")], CONFIG)


def seen_by(runs: list[tuple[str, int]]) -> Any:
    return lambda name, at: runs.append((name, at.step))


def test_runs_are_added_one_by_one_and_not_done_again(tmp_path: Path) -> None:
    path = tmp_path / "runs.json"
    seen: list[tuple[str, int]] = []
    first = ablation.run(path, [SMALL], [3], EXPERIMENT, seen_by(seen))
    assert seen == [("small, seed 3", 1), ("small, seed 3", 2)]
    assert ablation.read(path) == first
    seen.clear()
    runs = ablation.run(path, [SMALL, TINY], [3, 4], EXPERIMENT, seen_by(seen))
    assert [name for name, step in seen if step == 1] == ["tiny, seed 3", "small, seed 4", "tiny, seed 4"]
    assert runs[0] == first[0]
    assert [(run.variant, run.training.seed) for run in runs] == [
        ("small", 3),
        ("tiny", 3),
        ("small", 4),
        ("tiny", 4),
    ]
    assert ablation.read(path) == runs
    seen.clear()
    assert ablation.run(path, [TINY, SMALL], [4, 3], EXPERIMENT, seen_by(seen)) == runs
    assert not seen
    other = ablation.run(
        path, [SMALL], [3], replace(EXPERIMENT, config=replace(CONFIG, rate=1e-3)), seen_by(seen)
    )
    assert (len(other), other[-1].training.rate) == (5, 1e-3)
    assert [found.name for found in tmp_path.iterdir()] == ["runs.json"]


def test_what_is_asked_for_twice_is_done_once(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []
    runs = ablation.run(tmp_path / "runs.json", [SMALL, SMALL], [0, 0], EXPERIMENT, seen_by(seen))
    assert (len(runs), len(seen)) == (1, 2)


def test_a_run_is_in_the_file_before_the_next_begins(tmp_path: Path) -> None:
    path = tmp_path / "runs.json"

    def watch(name: str, _: Progress) -> None:
        if name == "tiny, seed 0":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ablation.run(path, [SMALL, TINY], [0], EXPERIMENT, watch)
    assert [run.variant for run in ablation.read(path)] == ["small"]


def test_figures_are_those_of_the_trained_network(tmp_path: Path) -> None:
    (run,) = ablation.run(tmp_path / "runs.json", [SMALL], [7], EXPERIMENT)
    torch.manual_seed(7)
    network = SMALL.build(PROFILE)
    config = replace(CONFIG, seed=7)
    result = train(network, EXPERIMENT.used, EXPERIMENT.held_out, config)
    assert run.training == config
    assert run.network == {"architecture": "sfiin", **asdict(network.config)}
    assert (run.network["channels"], run.network["blocks"]) == (4, 1)
    assert run.parameters == sum(p.numel() for p in network.parameters())
    assert run.validation_ergas == result.training["validation_ergas"]
    assert run.torch == torch.__version__
    assert run.seconds_per_step >= 0
    measured: dict[str, list[metrics.Quality]] = {}
    for judged in EXPERIMENT.judged:
        rows = []  # tiles of 16 edge to edge, by hand
        for row in (0, 16):
            tiles = []
            for col in (0, 16):
                ms = torch.from_numpy(judged.ms[:, row // 4 : row // 4 + 4, col // 4 : col // 4 + 4])[None]
                pan = torch.from_numpy(judged.pan[:, row : row + 16, col : col + 16])[None]
                with torch.no_grad():
                    tiles.append(result.network(ms, pan)[0].numpy())
            rows.append(np.concatenate(tiles, 2))
        product = np.clip(np.rint(np.concatenate(rows, 1).astype(np.float64)), 0, 2047)
        assert judged.truth is not None
        measured.setdefault(judged.meta["sensor"], []).append(
            metrics.reference_quality(product, judged.truth, 4, 2047.0)
        )
    assert list(run.quality) == ["a", "b"]
    for sensor, found in run.quality.items():
        assert found.pairs == len(measured[sensor])
        for key in ("psnr", "ssim", "sam", "ergas", "scc", "q2n"):
            assert getattr(found, key) == pytest.approx(fmean(getattr(q, key) for q in measured[sensor])), key


def test_a_training_that_diverges_leaves_the_runs_before_it(tmp_path: Path) -> None:
    path = tmp_path / "runs.json"
    before = ablation.run(path, [SMALL], [0], EXPERIMENT)
    broken = pair(1)
    assert broken.truth is not None
    broken.truth[...] = np.nan
    with pytest.raises(SfiinError, match="diverged"):
        ablation.run(path, [SMALL, TINY], [0], replace(EXPERIMENT, used=[broken]))
    assert ablation.read(path) == before


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "no such file"),
        ("", "not the runs"),
        ("hello", "not the runs"),
        ("[]", "not the runs"),
        ("3", "not the runs"),
        ('{"other": []}', "not the runs"),
        ('{"runs": 3}', "not the runs"),
        ('{"runs": {"a": 1}}', "not the runs"),
        ('{"runs": ["a"]}', "not the runs"),
        ('{"runs": [null]}', "not the runs"),
        ('{"runs": [{"variant": "x"}]}', r"runs\[0\]\.network: missing field"),
        ('{"runs": [{"variant": 3}]}', "missing field"),
    ],
)
def test_junk_is_refused_and_left_alone(tmp_path: Path, content: str | None, text: str) -> None:
    path = tmp_path / "runs.json"
    if content is not None:
        path.write_text(content)
        with pytest.raises(InputError, match="not the runs that 'sfiin ablate' writes"):
            ablation.run(path, [SMALL], [0], EXPERIMENT)
        assert path.read_text() == content
    with pytest.raises(InputError, match=text) as failure:
        ablation.read(path)
    assert str(failure.value).startswith(f"{path}: ")


@pytest.mark.parametrize("name", ["ablation", "networks"])
def test_files_of_before_are_read_and_added_to(name: str) -> None:
    """Whose trainings have no unit of the loss yet."""
    path = Path(__file__).parents[3] / "benchmarks" / f"{name}.json"
    runs = ablation.read(path)
    assert len(runs) == len(json.loads(path.read_text(encoding="utf-8"))["runs"])
    assert {run.training.unit for run in runs} == {"scale"}
    assert len({run.key for run in runs}) == len(runs)


@pytest.mark.parametrize("part", ["training.seed", "quality.b.psnr", "parameters", "device"])
def test_a_run_that_lacks_a_part_is_refused(tmp_path: Path, part: str) -> None:
    path = tmp_path / "runs.json"
    ablation.run(path, [TINY], [0], EXPERIMENT)
    document = json.loads(path.read_text(encoding="utf-8"))
    *parents, last = part.split(".")
    holder = document["runs"][0]
    for parent in parents:
        holder = holder[parent]
    del holder[last]
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(
        InputError, match=rf"not the runs that 'sfiin ablate' writes .*\.{last}: missing field"
    ):
        ablation.read(path)


def test_runs_of_none_are_none_and_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "runs.json").write_text(json.dumps({"runs": []}))
    assert ablation.read(tmp_path / "runs.json") == []
    with pytest.raises(InputError, match="not the runs"):
        ablation.read(tmp_path)
    with pytest.raises(OutputError, match="no folder"):
        ablation.run(tmp_path / "none" / "runs.json", [SMALL], [0], EXPERIMENT)


def test_variants_are_what_their_names_say() -> None:
    built = {name: variant.build(PROFILE) for name, variant in VARIANTS.items()}
    assert [name for name, variant in VARIANTS.items() if variant.name != name] == []
    kinds = {name: type(network) for name, network in built.items() if type(network) is not SFIIN}
    assert kinds == {"pnn": PNN, "pannet": PanNet}
    default = built["sfiin"].config
    assert (default.blocks, default.channels, default.branches, default.interaction) == (5, 8, "both", "dual")
    differing = {
        name: {k: v for k, v in asdict(network.config).items() if v != asdict(default)[k]}
        for name, network in built.items()
        if type(network) is SFIIN
    }
    assert differing == {
        "sfiin": {},
        **{f"blocks-{count}": {"blocks": count} for count in (1, 2, 3, 4, 6)},
        "no-frequency": {"branches": "spatial"},
        "no-spatial": {"branches": "frequency"},
        "no-interaction": {"interaction": "none"},
        "channels-16": {"channels": 16},
        "invertible": {"spatial": "invertible"},
    }
    landsat = SENSORS["landsat8"].profile
    for variant in VARIANTS.values():
        config = variant.build(landsat).config
        assert (config.bands, config.ratio) == (7, 2)
