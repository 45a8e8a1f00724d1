"""The plugin's benchmark, as far as it goes without a GPU: bytes, table, and what it says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sfiin.export import spectral_fusion
from sfiin.runtime.backends import machine

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def plugin(script: Callable[[Path], Any]) -> Any:
    return script(ROOT / "benchmarks" / "plugin.py")


def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    if not machine.cuda_driver()["why"] or shutil.which("compute-sanitizer"):
        pytest.skip("there is a GPU, or a compute-sanitizer that will miss it first")
    done = subprocess.run(
        [ROOT / "tests/gpu/plugin.sh", "-o", tmp_path / "x.json"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHON": sys.executable},
        check=False,
    )
    assert done.returncode == 1
    assert "compute-sanitizer is not installed: left out\nnothing measured: no NVIDIA driver" in done.stdout
    assert not list(tmp_path.iterdir())


def test_the_prediction_is_the_kernels_traffic(plugin: Any) -> None:
    case = plugin.Case(256, 8, 16)
    assert case.floor_bytes == 3 * 16 * 8 * 256 * 256 * 4
    assert case.moved_bytes(227 << 10) / case.floor_bytes == pytest.approx(11 / 3)
    assert case.moved_bytes(48 << 10) / case.floor_bytes == pytest.approx(17 / 3)


def test_the_branch_is_the_node(plugin: Any) -> None:
    """The weights in the node's order: its reference gives what the network does."""
    import torch

    network, weights = plugin.branch(4)
    m, p = np.random.default_rng(0).normal(size=(2, 1, 4, 16, 12))
    with torch.no_grad():
        expected = network.double()(torch.from_numpy(m), torch.from_numpy(p)).numpy()
    found = spectral_fusion.spectral_fusion(
        m, p, *orthonormal([tensor.double().numpy() for tensor in weights], 16 * 12)
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def orthonormal(weights: list[np.ndarray], pixels: int) -> list[np.ndarray]:
    """The node's units are orthonormal, the network's are not: only the amplitude network's biases tell."""
    return [array / np.sqrt(pixels) if i in (5, 7) else array for i, array in enumerate(weights)]


def test_the_table_has_ratios(plugin: Any) -> None:
    run = {
        "tile": 256,
        "channels": 8,
        "batch": 16,
        "floor_ms": 0.1,
        "predicted_ms": 0.3667,
        "ms": {"eager": 4.0, "compile": 2.0, "kernels": 0.5},
    }
    assert plugin.table([run]).splitlines()[2] == "| 256 | 8 | 16 | 4.000 | 2.00x | 8.00x | 3.7 | 5.0 |"
