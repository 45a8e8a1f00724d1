"""The GPU script's own parts, on a machine without a GPU: timing, table, scenes, and what it says if it
cannot run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sfiin.runtime import models
from sfiin.runtime.backends import machine
from sfiin.runtime.backends.session import OnnxSession

SCRIPT = Path(__file__).with_name("run.sh")


@pytest.fixture(scope="module")
def measure(script: Callable[[Path], Any]) -> Any:
    return script(SCRIPT.with_name("measure.py"))


def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path: Path) -> None:
    if not machine.cuda_driver()["why"]:
        pytest.skip("there is a GPU")
    done = subprocess.run(
        [SCRIPT, "--output", tmp_path / "x.json"],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "nothing measured: no NVIDIA driver" in done.stdout
    assert not list(tmp_path.iterdir())


def test_ways_take_turns_and_get_medians(measure: Any, small_model: Path) -> None:
    with OnnxSession(small_model, threads=1) as session:
        found = measure.timed({"a": session, "b": session}, session.contract, 2, 5)
    assert set(found) == {"a", "b"}
    assert all(0 < value < 1000 for value in found.values())


def test_a_failing_step_is_a_result(measure: Any) -> None:
    def fail() -> None:
        raise ValueError("no\nluck")

    assert measure.step(fail) == "failed: ValueError: no luck"
    assert measure.step(lambda: 3) == 3


def test_scenes_for_every_shipped_model_can_be_sharpened(measure: Any, tmp_path: Path) -> None:
    from sfiin.runtime.scenes.scene import open_scene

    for path, contract in models.shipped():
        (tmp_path / path.stem).mkdir()
        pan, ms = measure.simulated(tmp_path / path.stem, contract, 256)
        with open_scene(pan, [ms], contract.sensor) as scene:
            side = 64 * contract.sensor.ratio
            assert (scene.height, scene.width, len(scene.bands)) == (side, side, len(contract.sensor.bands))
        tiles = measure.random_tiles(contract, 3, 0)
        assert [tile.shape[0] for tile in tiles] == [3, 3]
        assert max(map(np.max, tiles)) <= contract.sensor.peak


def test_the_table_tells_what_ran_and_what_did_not(measure: Any) -> None:
    whole = {
        "checkpoint": "vhr4",
        "precision": "fp16",
        "refit": "skipped: fp32 only",
        "pairs": {"psnr": 44.394},
        "build": {
            "flavour": "tensorrt",
            "tensorrt": "10.3.0",
            "seconds": 61.2,
            "bytes": 2_300_000,
            "layers": 9,
            "checked": {"relative_l2": 4e-4, "peak_share": 1e-3},
        },
        "latency": {"1": {"graphs": 0.5, "no graphs": 0.75}, "16": {"graphs": 0.25, "no graphs": 0.3}},
        "scene": {"per_second": 12.345},
    }
    failed = {"checkpoint": "wv8", "precision": "fp32", "build": "failed: X: no"}
    lines = measure.table([whole, failed]).splitlines()
    figures = "61 | 2.3 | 4.0e-04 | 0.500 | 0.250 | 1.50x | 44.394 | 12.35"
    assert lines[2] == f"| vhr4 | fp16 | tensorrt 10.3.0 | {figures} | skipped: fp32 only |"
    assert lines[3].startswith("| wv8 | fp32 | failed: X: no |")
    assert {line.count("|") for line in lines} == {13}


def test_without_torch_the_shipped_models_are_taken(
    measure: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a bare Jetson; what has to be exported is skipped with the reason, and is no failure."""
    monkeypatch.setattr(measure, "find_spec", lambda _name: None)
    for name in measure.CHECKPOINTS:
        weights = measure.ROOT / "sfiin" / "checkpoints" / f"sfiin-{name}.safetensors"
        model = measure.modelled(weights, "fp32", "matmul", tmp_path / "net.onnx")
        assert models.contract(model).checkpoint
        skipped = measure.step(partial(measure.modelled, weights, "fp16", "matmul", tmp_path / "net.onnx"))
        assert skipped.startswith("skipped: fp16, matmul: exporting wants torch")
    assert not list(tmp_path.iterdir())


def test_a_graph_that_forgets_its_shape_is_found(measure: Any, small_model: Path) -> None:
    with OnnxSession(small_model, threads=1) as session:

        class Stale:
            contract = session.contract

            def run(self, ms: np.ndarray, pan: np.ndarray) -> np.ndarray:
                return session.run(ms, pan) + np.float32(len(ms) == 3)

        assert measure.same_after_changes(session, session)
        assert not measure.same_after_changes(Stale(), session)
