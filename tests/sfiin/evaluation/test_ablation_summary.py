"""Ablations over their seeds, and files that are none."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from sfiin.evaluation.ablation_summary import read_all, summarise
from sfiin.runtime.errors import InputError

QUALITY = {"pairs": 2, "psnr": 38.0, "ssim": 0.9, "sam": 2.0, "ergas": 2.5, "scc": 0.8, "q2n": 0.7}


def run(variant: str, seed: int, psnr: float, steps: int = 100) -> dict[str, Any]:
    training = {
        "steps": steps,
        "batch": 4,
        "patch": 128,
        "rate": 0.001,
        "weight": 0.1,
        "seed": seed,
        "validate_every": 50,
    }
    return {
        "variant": variant,
        "network": {"architecture": "sfiin"},
        "device": "cpu, 1 threads",
        "torch": "2.6",
        "parameters": 1234,
        "training": training,
        "seconds_per_step": 0.5 + seed,
        "validation_ergas": 2.0,
        "quality": {"QuickBird": QUALITY | {"psnr": psnr}},
    }


def write(path: Path, runs: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps({"runs": runs}))
    return path


def test_runs_are_grouped_by_settings_and_variant(tmp_path: Path) -> None:
    first = write(tmp_path / "a.json", [run("sfiin", 0, 38.0), run("sfiin", 1, 40.0), run("pnn", 0, 37.0)])
    second = write(
        tmp_path / "b.json", [run("sfiin", 2, 39.5), run("sfiin", 0, 99.0), run("sfiin", 0, 30.0, 50)]
    )
    found = summarise(read_all([first, second]))
    assert [list(group) for group in found.values()] == [["sfiin", "pnn"], ["sfiin"]]
    long = found["100 steps, batch 4, patch 128, rate 0.001, loss weight 0.1, fp32"]
    psnr = long["sfiin"].quality["QuickBird"]["psnr"]
    assert long["sfiin"].seeds == (0, 1, 2)
    assert psnr.mean == pytest.approx(39.166667)
    assert psnr.deviation == pytest.approx(statistics.stdev([38.0, 40.0, 39.5]))
    assert long["sfiin"].seconds.mean == 1.5
    assert long["pnn"].quality["QuickBird"]["psnr"].deviation is None


@pytest.mark.parametrize("text", ["hello", "{}", '{"runs": [{"variant": "sfiin"}]}', "[1]", '{"runs": [{}]}'])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match="sfiin ablate"):
        read_all([tmp_path / "x.json"])


def test_a_run_that_lacks_a_measure_is_refused(tmp_path: Path) -> None:
    broken = run("sfiin", 0, 38.0)
    del broken["quality"]["QuickBird"]["scc"]
    with pytest.raises(InputError, match=r"x.json.*runs\[0\].quality.QuickBird.scc: missing field"):
        read_all([write(tmp_path / "x.json", [broken])])
