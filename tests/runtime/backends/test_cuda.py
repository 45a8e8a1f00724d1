"""The device layers against the bindings' real surface; without a GPU every call ends in CUDA's own error."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from types import SimpleNamespace

import pytest

from sfiin.runtime.backends import cuda, machine
from sfiin.runtime.backends.cuda import Cuda, CudaBindings, CudaError, PyCuda
from sfiin.runtime.backends.fake_device import FakeCuda
from sfiin.runtime.errors import UnavailableError

PROTOCOL = {
    name: call for name, call in vars(Cuda).items() if inspect.isfunction(call) and not name.startswith("_")
}

needs_bindings = pytest.mark.skipif(
    importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.bindings") is None,
    reason="cuda-bindings is not installed",
)


@pytest.mark.parametrize("layer", [CudaBindings, PyCuda, FakeCuda])
@pytest.mark.parametrize("name", PROTOCOL)
def test_every_layer_has_every_call(layer: type, name: str) -> None:
    """With the protocol's parameters, in its order."""
    assert list(inspect.signature(getattr(layer, name)).parameters) == list(
        inspect.signature(PROTOCOL[name]).parameters
    )


@needs_bindings
def test_the_bindings_have_every_function_with_so_many_parameters() -> None:
    """Function names and argument counts in the source of the layer, against the docstrings of the real
    functions."""
    from cuda.bindings import driver

    calls = re.findall(
        r'self\._call\("(\w+)"((?:, [^,()]+(?:\([^()]*\))?)*)\)', inspect.getsource(CudaBindings)
    )
    assert len(calls) >= 19
    for name, arguments in calls:
        declared = getattr(driver, name).__doc__.splitlines()[0]
        parameters = [
            parameter
            for parameter in declared[declared.index("(") + 1 : declared.rindex(")")].split(",")
            if parameter.strip()
        ]
        assert len([argument for argument in arguments.split(", ") if argument]) == len(parameters), name
    assert driver.CUstream_flags.CU_STREAM_NON_BLOCKING.value == 1
    assert driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL.value == 1


@needs_bindings
@pytest.mark.skipif(not machine.cuda_driver()["why"], reason="there is a GPU")
def test_without_a_driver_it_says_so() -> None:
    with pytest.raises(
        (UnavailableError, CudaError), match=r"no NVIDIA driver here|the GPU: cuInit: CUDA_ERROR"
    ):
        CudaBindings()


def test_pycuda_has_no_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = object.__new__(PyCuda)
    assert not layer.has_graphs
    for call in (lambda: layer.begin_capture(1), lambda: layer.end_capture(1), lambda: layer.launch(1, 1)):
        with pytest.raises(CudaError, match="pycuda has no CUDA graphs"):
            call()


def test_pycudas_errors_become_ours() -> None:
    layer = object.__new__(PyCuda)
    layer._driver = SimpleNamespace(Error=ValueError, Context=SimpleNamespace(get_current=object))

    def fail() -> None:
        raise ValueError("cuMemAlloc failed: out of memory")

    with pytest.raises(CudaError, match="the GPU: cuMemAlloc failed: out of memory"):
        layer._call(fail)


@pytest.mark.parametrize(
    ("installed", "taken"),
    [
        ({"cuda", "cuda.bindings", "pycuda"}, ["cuda-bindings", "pycuda"]),
        ({"pycuda"}, ["pycuda"]),
        (set(), None),
    ],
)
def test_which_layer_is_taken(
    monkeypatch: pytest.MonkeyPatch, installed: set[str], taken: list[str] | None
) -> None:
    monkeypatch.setattr(cuda, "find_spec", lambda name: name in installed or None)
    if taken:
        assert cuda.require() == taken
    else:
        with pytest.raises(UnavailableError, match="neither cuda-bindings nor pycuda"):
            cuda.open_cuda()


class Unusable:
    def __init__(self) -> None:
        raise CudaError("the GPU: cuInit: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH")


def test_where_one_layer_does_not_work_the_other_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "require", lambda: ["cuda-bindings", "pycuda"])
    monkeypatch.setattr(cuda, "CudaBindings", Unusable)
    monkeypatch.setattr(cuda, "PyCuda", FakeCuda)
    assert isinstance(cuda.open_cuda(), FakeCuda)
    monkeypatch.setattr(cuda, "PyCuda", Unusable)
    with pytest.raises(
        UnavailableError, match=r"cuda-bindings: the GPU: cuInit: .*; pycuda: the GPU: cuInit"
    ):
        cuda.open_cuda()


def test_a_function_that_the_driver_has_not_is_an_error_of_ours() -> None:
    layer = object.__new__(CudaBindings)
    layer._here = SimpleNamespace(current=True)  # type: ignore[assignment]

    def missing(_size: int) -> None:
        raise RuntimeError('Function "cuMemAlloc_v2" not found')

    layer._driver = SimpleNamespace(cuMemAlloc=missing)
    with pytest.raises(CudaError, match='the GPU: cuMemAlloc: Function "cuMemAlloc_v2" not found'):
        layer.allocate(8)


@pytest.mark.parametrize(
    ("layer", "module"), [(CudaBindings, "cuda.bindings.driver"), (PyCuda, "pycuda.driver")]
)
def test_a_module_that_cannot_be_imported_is_told(
    monkeypatch: pytest.MonkeyPatch, layer: type, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UnavailableError, match="cannot be imported"):
        layer()
