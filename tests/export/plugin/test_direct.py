"""The direct path: arguments, tables and memory, up to the launch, which needs a GPU."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sfiin.export.plugin import direct, toolkit
from sfiin.export.plugin.direct import SpectralFusion, checked
from sfiin.runtime.backends import machine
from sfiin.runtime.backends.cuda import CudaError
from sfiin.runtime.backends.fake_device import FakeCuda
from sfiin.runtime.errors import MismatchError, UnavailableError

SHAPE = (2, 8, 64, 96)


def array(*shape: int, kind: str = "<f4", strides: tuple[int, ...] | None = None) -> Any:
    interface = {"shape": shape, "typestr": kind, "data": (0x1000, False), "strides": strides, "version": 3}
    return SimpleNamespace(__cuda_array_interface__=interface)


def arrays(kind: str = "<f4") -> list[Any]:
    found = [array(*SHAPE, kind=kind) for _ in range(3)]
    for inputs in (1, 1, 2, 1, 2, 1, 1):
        found += [array(8, inputs * 8, kind=kind), array(8, kind=kind)]
    return found


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not toolkit.has_nvcc():
        pytest.skip("nvcc is not installed")
    path = tmp_path_factory.mktemp("direct") / "libsfiin_spectral.so"
    direct.compiled(path, "sm_90")
    return path


@pytest.mark.parametrize(("kind", "half"), [("<f4", 0), ("<f2", 1)])
def test_arrays_that_fit_give_their_addresses(kind: str, half: int) -> None:
    assert checked(SHAPE, *arrays(kind)) == (half, [0x1000] * 17)
    packed = arrays(kind)
    item = np.dtype(kind).itemsize
    packed[1] = array(*SHAPE, kind=kind, strides=(8 * 64 * 96 * item, 64 * 96 * item, 96 * item, item))
    assert checked(SHAPE, *packed)[0] == half


@pytest.mark.parametrize(
    ("place", "other", "said"),
    [
        (0, array(*SHAPE, kind="<f8"), "f: all must be float32 or all float16"),
        (2, array(*SHAPE, kind="<f2"), "input 1: all must be"),
        (1, array(2, 8, 64, 64), r"input 0: shape \(2, 8, 64, 64\), not \(2, 8, 64, 96\)"),
        (7, array(8, 8), r"input 6: shape \(8, 8\), not \(8, 16\)"),
        (1, array(*SHAPE, strides=(1, 2, 3, 4)), "input 0: its elements must lie one behind another"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_name(place: int, other: Any, said: str) -> None:
    given = arrays()
    given[place] = other
    with pytest.raises(MismatchError, match=said):
        checked(SHAPE, *given)
    with pytest.raises(MismatchError, match="not 15 arrays"):
        checked(SHAPE, *arrays()[:-1])


def test_tables_and_workspace_are_made_and_given_back(library: Path) -> None:
    device = FakeCuda()
    with SpectralFusion(library, device, SHAPE) as node:
        assert sorted(device.living.values()) == ["memory"] * 3
        table = device.bytes_at(node._turns[0], 8 * 96).view(np.complex64)
        np.testing.assert_allclose(table, np.exp(-2j * np.pi * np.arange(96) / 96), rtol=0, atol=1e-7)
    assert not device.living


def test_an_error_on_the_way_gives_all_back(library: Path) -> None:
    count = FakeCuda()
    SpectralFusion(library, count, SHAPE).close()
    for fail_at in range(len(count.calls) - 3):  # the last three give back
        device = FakeCuda(fail_at=fail_at)
        with pytest.raises(CudaError):
            SpectralFusion(library, device, SHAPE)
        assert not device.living, fail_at


def test_without_a_gpu_a_launch_names_cudas_error(library: Path) -> None:
    if not machine.cuda_driver()["why"]:
        pytest.skip("there is a GPU")
    with (
        SpectralFusion(library, FakeCuda(), SHAPE) as node,
        pytest.raises(CudaError, match="SpectralFusion: cudaError"),
    ):
        node(*arrays())


def test_what_cannot_be_computed_or_loaded_is_refused(
    library: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    with pytest.raises(MismatchError, match="1x6x64x64: channels must be"):
        SpectralFusion(library, FakeCuda(), (1, 6, 64, 64))
    with pytest.raises(UnavailableError, match="cannot be loaded"):
        SpectralFusion(tmp_path / "none.so", FakeCuda(), SHAPE)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(toolkit, "USUAL", tmp_path)
    with pytest.raises(UnavailableError, match="nvcc, which compiles"):
        direct.compiled(tmp_path / "x.so")
