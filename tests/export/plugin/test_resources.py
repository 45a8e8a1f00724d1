"""What the CUDA compiler says of the kernels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sfiin.export.plugin import resources, toolkit
from sfiin.runtime.errors import UnavailableError

RECORD = Path(__file__).parents[3] / "benchmarks" / "plugin-resources.json"
KERNELS = {
    "RowsForward<float>",
    "RowsForward<half>",
    "Floors",
    "Columns",
    "Bins<float>",
    "Bins<half>",
    "RowsInverse",
    "WholeColumns<float>",
    "WholeColumns<half>",
    "Out<float>",
    "Out<half>",
}

MOST_REGISTERS = 64
"""With 256 threads a block, four blocks on every GPU since 7.5 (65,536 registers, 1,024 threads and more)."""


@pytest.mark.skipif(not toolkit.has_nvcc(), reason="nvcc is not installed")
@pytest.mark.parametrize("capability", ["75", "87", "90"])
def test_the_kernels_compile_without_spills(capability: str) -> None:
    if capability not in resources.known():
        pytest.skip(f"nvcc here does not know sm_{capability}")
    found = resources.kernels(capability)
    assert {kernel.name for kernel in found} == KERNELS
    assert max(kernel.spills for kernel in found) == 0
    assert max(kernel.registers for kernel in found) <= MOST_REGISTERS


def test_the_record_holds_every_kernel_on_every_capability() -> None:
    found = json.loads(RECORD.read_text(encoding="utf-8"))["kernels"]
    assert {(kernel["capability"], kernel["name"]) for kernel in found} == {
        (c, k) for c in resources.CAPABILITIES for k in KERNELS
    }
    assert all(kernel["spills"] == 0 and kernel["registers"] <= MOST_REGISTERS for kernel in found)


def test_without_nvcc_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.delenv("CUDA_PATH", raising=False)
    monkeypatch.setattr(toolkit, "USUAL", tmp_path)
    with pytest.raises(UnavailableError, match=r"nvcc, which compiles .* is not installed"):
        resources.known()
