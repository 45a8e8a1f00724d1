"""What the machine is, from a driver and files that stand for other machines."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from sfiin.runtime.backends import cuda, machine
from sfiin.runtime.backends.fake_device import FakeCuda
from sfiin.runtime.errors import UnavailableError

DRIVER = r"""
#include <cstring>
extern "C" {
int cuInit(unsigned) { return INIT; }
int cuDriverGetVersion(int *version) { *version = 12060; return 0; }
int cuDeviceGetCount(int *count) { *count = COUNT; return 0; }
int cuDeviceGet(int *device, int index) { *device = index + 40; return 0; }
int cuDeviceGetName(char *name, int size, int device) { std::strncpy(name, "Orin", size); return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  *value = device != 40 ? -1 : attribute == 75 ? 8 : attribute == 76 ? 7 : -1;
  return 0;
}
}
"""


@pytest.fixture
def driver(tmp_path: Path) -> object:
    """Compile a library with the driver's functions that `machine` calls."""

    def compiled(init: int, count: int) -> str:
        compiler = shutil.which("g++")
        if compiler is None:
            pytest.skip("no g++ to compile a stand-in for the driver")
        source, library = tmp_path / "driver.cpp", tmp_path / f"libcuda{init}{count}.so"
        source.write_text(DRIVER)
        command: list[str | Path] = [
            compiler,
            "-shared",
            "-fPIC",
            f"-DINIT={init}",
            f"-DCOUNT={count}",
            source,
            "-o",
            library,
        ]
        subprocess.run(command, check=True)
        return str(library)

    return compiled


def test_a_driver_tells_its_version_and_devices(driver: object) -> None:
    found = machine.cuda_driver(driver(0, 1))  # type: ignore[operator]
    assert found == {"version": "12.6", "devices": ["Orin"], "compute_capabilities": ["8.7"], "why": None}


@pytest.mark.parametrize(
    ("init", "count", "why"), [(100, 0, "cuInit returned 100"), (0, 0, "finds no device")]
)
def test_a_driver_without_a_device_is_explained(driver: object, init: int, count: int, why: str) -> None:
    found = machine.cuda_driver(driver(init, count))  # type: ignore[operator]
    assert why in found["why"]
    assert found["devices"] == found["compute_capabilities"] == []


def test_the_gpu_or_why_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"devices": ["Orin", "L4"], "compute_capabilities": ["8.7", "8.9"], "why": None}
    monkeypatch.setattr(machine, "cuda_driver", lambda: facts)
    assert (machine.gpu().name, machine.gpu().compute_capability) == ("Orin", "8.7")
    facts["why"] = "no NVIDIA driver"  # type: ignore[assignment]
    with pytest.raises(UnavailableError, match="no NVIDIA driver; this needs an NVIDIA GPU"):
        machine.gpu()


@pytest.mark.parametrize(
    ("text", "jetpack", "said"),
    [
        ("# R35 (release), REVISION: 4.1, GCID: 1", "5", "TensorRT 8.5"),
        ("# R36 (release), REVISION: 3.0, GCID: 1", "6.0", "TensorRT 8.6"),
        ("# R36 (release), REVISION: 4.3, GCID: 1", "6.1 or 6.2", "TensorRT 10.3"),
        ("# R38 (release), REVISION: 2.0, GCID: 1", "7", "TensorRT 10.13"),
        ("# R32 (release), REVISION: 7.1, GCID: 1", "before 5", "update JetPack"),
        ("something else", None, ""),
        (None, None, ""),
    ],
)
def test_the_way_on_each_jetpack(tmp_path: Path, text: str | None, jetpack: str | None, said: str) -> None:
    if text:
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc/nv_tegra_release").write_text(text)
    found = machine.jetpack(tmp_path)
    assert (found and found["jetpack"]) == jetpack
    assert said in (found["way"] if found else "")


@pytest.mark.parametrize(
    ("installed", "driver_why", "usable", "why"),
    [
        (set(), "no driver", False, "tensorrt is not installed"),
        ({"tensorrt_lean"}, "no driver", False, "no driver"),
        ({"tensorrt", "cuda", "cuda.bindings"}, None, True, None),
        (
            {"tensorrt", "pycuda"},
            None,
            False,
            "no device layer works here: pycuda: the GPU: cuInit: CUDA_ERROR_UNKNOWN",
        ),
    ],
)
def test_whether_plans_run_here(
    monkeypatch: pytest.MonkeyPatch,
    installed: set[str],
    driver_why: str | None,
    usable: bool,
    why: str | None,
) -> None:
    monkeypatch.setattr(machine, "find_spec", lambda name: name in installed or None)
    monkeypatch.setattr(cuda, "find_spec", lambda name: name in installed or None)
    monkeypatch.setattr(cuda, "CudaBindings", FakeCuda)

    def unusable() -> FakeCuda:
        raise cuda.CudaError("the GPU: cuInit: CUDA_ERROR_UNKNOWN")

    monkeypatch.setattr(cuda, "PyCuda", unusable)
    monkeypatch.setattr(machine, "cuda_driver", lambda: {"why": driver_why})
    monkeypatch.setattr(machine, "version", lambda _name: "10.3.0")
    found = machine.plans()["tensorrt"]
    assert (found["usable"], found["why"]) == (usable, why)
