"""The TensorRT session on the fake device: results, order, overlap, graphs, failures, and what is refused
before."""

from __future__ import annotations

import _ctypes
import dataclasses
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from sfiin.runtime import golden, models
from sfiin.runtime.backends import cuda, machine, plan, plugin
from sfiin.runtime.backends.fake_device import COMPUTE, FakeCuda, FakeTensorRT
from sfiin.runtime.backends.plan import Build, Device, Sidecar
from sfiin.runtime.backends.session import OnnxSession
from sfiin.runtime.backends.tensorrt_session import TensorRTSession, first_load, open_plan, require_here
from sfiin.runtime.check import GATES
from sfiin.runtime.errors import CheckFailedError, InputError, MismatchError, SfiinError, UnavailableError
from sfiin.runtime.files import sha256
from sfiin.runtime.scenes.pipeline import sharpen
from sfiin.runtime.scenes.scene import open_scene

Image = np.ndarray


@pytest.fixture
def planned(
    small_model: Path, tmp_path: Path, plan_of_orin: Callable[..., Build]
) -> Callable[..., tuple[Path, Sidecar]]:
    """A plan's bytes, sidecar and golden tiles in a folder; changes go to the sidecar's build."""

    def write(**changes: Any) -> tuple[Path, Sidecar]:
        path = tmp_path / "net.plan"
        shutil.copy(golden.beside(small_model), golden.beside(path))
        build = plan_of_orin(path, model=sha256(small_model), **changes)
        sidecar = Sidecar(models.contract(small_model), build)
        plan.update(path, sidecar)
        return path, sidecar

    return write


@pytest.fixture(scope="module")
def reference(small_model: Path) -> Iterator[OnnxSession]:
    with OnnxSession(small_model, threads=1) as session:
        yield session


def tiles(count: int, seed: int = 0) -> tuple[Image, Image]:
    random = np.random.default_rng(seed)
    return tuple(
        random.integers(0, 2047, (count, *shape)).astype(np.float32) for shape in ((4, 8, 8), (1, 32, 32))
    )  # type: ignore[return-value]


def opened(made: tuple[Path, Sidecar], device: FakeCuda, model: Path, **library: Any) -> TensorRTSession:
    return TensorRTSession(*made, device, FakeTensorRT(device, model, **library))


@pytest.mark.parametrize("count", [1, 2, 4, 5, 11])
@pytest.mark.parametrize("batch", [(1, 2, 4), (2, 2, 2), (3, 4, 4)])
@pytest.mark.parametrize("has_graphs", [True, False])
def test_results_are_the_models_whatever_the_batch(
    planned: Any,
    small_model: Path,
    reference: OnnxSession,
    count: int,
    batch: tuple[int, ...],
    has_graphs: bool,
) -> None:
    device = FakeCuda(has_graphs=has_graphs)
    ms, pan = tiles(count)
    expected = reference.run(ms, pan)
    with opened(planned(batch=batch), device, small_model) as session:
        for _ in range(3):  # plain, and by graph
            np.testing.assert_allclose(session.run(ms, pan), expected, rtol=0, atol=1e-2)
        assert bool(session.notes) is not has_graphs
    assert not device.living


def test_batches_in_a_row_come_back_in_order(planned: Any, small_model: Path, reference: OnnxSession) -> None:
    device, counts = FakeCuda(), (4, 1, 9, 3, 4, 4, 2)
    batches = [tiles(count, seed) for seed, count in enumerate(counts)]
    with opened(planned(), device, small_model) as session:
        for found, (ms, pan) in zip(session.run_many(iter(batches)), batches, strict=True):
            np.testing.assert_allclose(found, reference.run(ms, pan), rtol=0, atol=1e-2)


def test_a_scene_is_the_same_as_through_onnx_runtime(
    planned: Any, small_model: Path, reference: OnnxSession, tmp_path: Path
) -> None:
    """Batches of a row are under way together; one part of the scene has no data."""
    random = np.random.default_rng(5)
    grids = {"pan": (1, 100, 152, 1.0), "ms": (4, 25, 38, 4.0)}
    for name, (count, height, width, pixel) in grids.items():
        image = random.integers(1, 2047, (count, height, width)).astype(np.uint16)
        image[:, : height // 2, width // 2 :] = 0
        profile = {
            "driver": "GTiff",
            "count": count,
            "height": height,
            "width": width,
            "dtype": "uint16",
            "nodata": 0,
            "crs": "EPSG:32650",
            "transform": Affine(pixel, 0.0, 5e5, 0.0, -pixel, 4e6),
        }
        with rasterio.open(tmp_path / f"{name}.tif", "w", **profile) as file:
            file.write(image)
    products = []
    device = FakeCuda()
    with opened(planned(), device, small_model) as session:
        for name, backend in (("plan", session), ("onnx", reference)):
            with open_scene(tmp_path / "pan.tif", [tmp_path / "ms.tif"], backend.contract.sensor) as scene:
                report = sharpen(backend, scene, tmp_path / f"{name}.tif", batch=3)
            with rasterio.open(tmp_path / f"{name}.tif") as file:
                products.append((report.nodata, file.read().astype(int)))
    assert products[0][0] == products[1][0] > 0
    assert np.abs(products[0][1] - products[1][1]).max() <= 1
    assert not device.living


def test_the_next_batch_is_read_and_copied_while_one_is_computed(planned: Any, small_model: Path) -> None:
    def read(device: FakeCuda, count: int) -> Iterator[tuple[Image, Image]]:
        for seed in range(count):
            device.now += COMPUTE  # reading a file takes as long as computing
            yield tiles(4, seed)

    def taken(run: Callable[[TensorRTSession, FakeCuda], object]) -> float:
        device = FakeCuda()
        with opened(planned(), device, small_model) as session:
            run(session, device)
            return device.now

    together = taken(lambda session, device: list(session.run_many(read(device, 8))))
    apart = taken(lambda session, device: [session.run(*batch) for batch in read(device, 8)])
    assert together < 0.6 * apart


def test_copies_in_wait_for_nobody_and_a_launch_for_its_copies(planned: Any, small_model: Path) -> None:
    device = FakeCuda()
    with opened(planned(), device, small_model) as session:
        list(session.run_many(tiles(4, seed) for seed in range(4)))
    work = [call for call in device.calls if call.end > call.begin]
    uploads, launches, downloads = (
        [call for call in work if call.name in names]
        for names in (("upload",), ("execute", "launch"), ("download",))
    )
    assert len({calls[0].stream for calls in (uploads, launches, downloads)}) == 3
    for i, launch in enumerate(launches):
        assert launch.begin >= uploads[2 * i + 1].end
        assert downloads[i].begin >= launch.end
        assert i == 0 or launch.begin >= launches[i - 1].end
    assert uploads[2].end <= launches[0].end  # the second batch is there before the first is done


def test_a_graph_takes_over_after_the_first_run_of_each_slot(planned: Any, small_model: Path) -> None:
    device = FakeCuda()
    with opened(planned(), device, small_model) as session:
        list(session.run_many(tiles(4, seed) for seed in range(6)))
        names = [call.name for call in device.calls if call.name in ("execute", "launch", "begin_capture")]
    assert names == ["execute", "begin_capture", "execute"] * 2 + ["launch"] * 4


def test_a_plan_that_cannot_be_captured_runs_without(
    planned: Any, small_model: Path, reference: OnnxSession
) -> None:
    device, (ms, pan) = FakeCuda(), tiles(3)
    with opened(planned(), device, small_model, uncapturable=True) as session:
        for _ in range(3):
            np.testing.assert_allclose(session.run(ms, pan), reference.run(ms, pan), rtol=0, atol=1e-2)
        assert session.notes == ["without CUDA graphs: tensorrt did not run the plan: without saying why"]
    assert "launch" not in {call.name for call in device.calls}
    assert not device.living


@pytest.mark.parametrize("broken", [False, True])
def test_an_error_at_any_call_frees_all_and_is_remembered(
    planned: Any, small_model: Path, reference: OnnxSession, broken: bool
) -> None:
    """Each call in turn fails; with `broken`, all after it, too."""
    (path, sidecar), batches = planned(), [tiles(4, seed) for seed in range(3)]
    library = FakeTensorRT(FakeCuda(), small_model)
    whole = FakeCuda()
    library.device = whole
    with TensorRTSession(path, sidecar, whole, library) as session:
        list(session.run_many(batches))
    for fail_at in range(len(whole.calls)):
        library.device = device = FakeCuda(fail_at=fail_at, broken=broken)
        session_or_none = None
        try:
            session_or_none = TensorRTSession(path, sidecar, device, library)
            found = list(session_or_none.run_many(batches))
        except SfiinError as error:
            assert "cudaErrorIllegalAddress" in str(error)
            if session_or_none is not None:
                with pytest.raises(
                    SfiinError, match=r"cannot run: .*cudaErrorIllegalAddress; open the plan again"
                ):
                    session_or_none.run(*batches[0])
        else:
            for result, batch in zip(found, batches, strict=True):
                np.testing.assert_allclose(result, reference.run(*batch), rtol=0, atol=1e-2)
            session_or_none.close()
        assert not device.living, (fail_at, device.living)


def test_a_launch_that_reports_failure_ends_the_session(planned: Any, small_model: Path) -> None:
    device = FakeCuda()
    session = opened(planned(), device, small_model, stalls=True)
    with pytest.raises(SfiinError, match="did not run the plan"):
        session.run(*tiles(1))
    assert not device.living
    with pytest.raises(SfiinError, match="cannot run"):
        session.run(*tiles(1))


def test_a_closed_session_says_so_and_closes_once(planned: Any, small_model: Path) -> None:
    device = FakeCuda()
    session = opened(planned(), device, small_model)
    session.close()
    session.close()
    with pytest.raises(SfiinError, match="it was closed; open the plan again"):
        session.run(*tiles(1))


def test_a_caller_that_stops_in_between_leaves_a_session_that_works(
    planned: Any, small_model: Path, reference: OnnxSession
) -> None:
    device = FakeCuda()
    with opened(planned(), device, small_model) as session:
        results = session.run_many(tiles(4, seed) for seed in range(9))
        next(results)
        results.close()  # type: ignore[attr-defined]
        np.testing.assert_allclose(
            session.run(*tiles(4, 77)), reference.run(*tiles(4, 77)), rtol=0, atol=1e-2
        )
    assert not device.living


@pytest.mark.parametrize(
    "types", [{"ms": "float16", "pan": "float16"}, {"pan": "int32"}, {"hrms": "float16"}]
)
def test_eleven_bits_cross_the_bus_in_any_type_that_holds_them(
    planned: Any, small_model: Path, reference: OnnxSession, types: dict[str, str]
) -> None:
    device, (ms, pan) = FakeCuda(), tiles(2)
    with opened(planned(), device, small_model, types=types) as session:
        result = session.run(ms, pan)
    tolerance = 2.0 if "hrms" in types else 1e-2
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, reference.run(ms, pan), rtol=0, atol=tolerance)
    moved = sum(call.end - call.begin for call in device.calls if call.name == "upload") / 1e-9
    assert moved == pytest.approx(
        sum(a.size * np.dtype(types.get(n, "float32")).itemsize for n, a in (("ms", ms), ("pan", pan)))
    )


@pytest.mark.parametrize(
    ("types", "bits", "said"),
    [({"ms": "float16"}, 12, r"sensor\.bits: .* holds 11 bits"), ({"pan": "int64"}, 11, "does not feed")],
)
def test_types_that_would_lose_digits_or_are_unknown_are_refused(
    planned: Any, small_model: Path, types: dict[str, str], bits: int, said: str
) -> None:
    device, (path, sidecar) = FakeCuda(), planned()
    sensor = dataclasses.replace(sidecar.contract.sensor, bits=bits)
    sidecar = dataclasses.replace(sidecar, contract=dataclasses.replace(sidecar.contract, sensor=sensor))
    with pytest.raises(MismatchError, match=said):
        opened((path, sidecar), device, small_model, types=types)
    assert not device.living


def test_a_plan_of_another_tile_or_that_the_library_refuses_is_refused(
    planned: Any, small_model: Path
) -> None:
    device, (path, sidecar) = FakeCuda(), planned()
    tile = dataclasses.replace(sidecar.contract.tile, height=64)
    other = dataclasses.replace(sidecar, contract=dataclasses.replace(sidecar.contract, tile=tile))
    with pytest.raises(MismatchError, match=r"tile: the plan's 'ms' is \(4, 8, 8\)"):
        opened((path, other), device, small_model)
    with pytest.raises(InputError, match="does not take this plan: the engine plan file is not compatible"):
        opened((path, sidecar), device, small_model, refuses=True)
    assert not device.living


def test_the_first_load_checks_and_notes_it(planned: Any, small_model: Path) -> None:
    path, sidecar = planned()
    device = FakeCuda()
    with opened((path, sidecar), device, small_model) as session:
        first_load(path, sidecar, session)
    checked = plan.read(path).build.checked
    assert 0 < checked["relative_l2"] <= GATES["fp32"].relative_l2
    assert 0 < checked["peak_share"] <= GATES["fp32"].peak_share


def test_a_plan_that_computes_something_else_fails_its_first_load(planned: Any, small_model: Path) -> None:
    """FP16 on the way out is more than the gate of FP32 allows."""
    path, sidecar = planned()
    before = plan.beside(path).read_bytes()
    device = FakeCuda()
    with (
        opened((path, sidecar), device, small_model, types={"hrms": "float16"}) as session,
        pytest.raises(CheckFailedError, match=r"against its golden tiles: .*build it again"),
    ):
        first_load(path, sidecar, session)
    assert plan.beside(path).read_bytes() == before


def test_a_sidecar_that_cannot_be_written_is_left_and_said(
    planned: Any, small_model: Path, monkeypatch: Any
) -> None:
    from sfiin.runtime.errors import OutputError

    def refuse(path: Path, sidecar: Sidecar) -> None:
        raise OutputError(f"{path}: read-only")

    path, sidecar = planned()
    monkeypatch.setattr(plan, "update", refuse)
    with opened((path, sidecar), FakeCuda(), small_model) as session:
        first_load(path, sidecar, session)
        assert "will be checked again next time" in session.notes[-1]
    assert not plan.read(path).build.checked


def test_a_plan_with_the_plugin_gets_its_library_or_brings_it(
    planned: Any, small_model: Path, reference: OnnxSession
) -> None:
    """The library is one of Python's own: what is in it, a fake registry does not ask."""
    made = planned(plugin=sha256(Path(_ctypes.__file__)))
    with pytest.raises(InputError, match=r"net.plan.so: the plugin's library cannot be read"):
        opened(made, FakeCuda(), small_model, has_plugin=True)
    shutil.copy(_ctypes.__file__, plugin.beside(made[0]))
    with opened(made, FakeCuda(), small_model, has_plugin=True) as session:
        np.testing.assert_array_equal(session.run(*tiles(2)), reference.run(*tiles(2)))
    # A library that is loaded may not be written over: the process would die of it.
    plugin.beside(made[0]).unlink()
    plugin.beside(made[0]).write_bytes(b"another")
    with pytest.raises(MismatchError, match=r"plugin \(SHA-256\)"):
        opened(made, FakeCuda(), small_model, has_plugin=True)
    with opened(
        planned(plugin="0" * 64, plugin_inside=True), FakeCuda(), small_model, has_plugin=True
    ) as session:
        np.testing.assert_array_equal(session.run(*tiles(2)), reference.run(*tiles(2)))
    with pytest.raises(InputError, match="a plugin is missing"):
        opened(planned(), FakeCuda(), small_model, has_plugin=True)


@pytest.fixture
def for_rtx(planned: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Sidecar]:
    """A plan of TensorRT for RTX, and a cache folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return planned(flavour="rtx")


def test_tensorrt_for_rtx_captures_by_itself_and_compiles_once(
    for_rtx: tuple[Path, Sidecar], small_model: Path, reference: OnnxSession, tmp_path: Path
) -> None:
    """What one process compiled the next one takes from the cache; there is no capture of ours."""
    for compiled in (2, 0):
        device = FakeCuda()
        library = FakeTensorRT(device, small_model, rtx=True)
        session = TensorRTSession(*for_rtx, device, library)
        for count in (4, 3, 4):
            np.testing.assert_array_equal(session.run(*tiles(count)), reference.run(*tiles(count)))
        # Not closed: a process may be killed.
        assert library.compiled == compiled
        assert library.config.cuda_graph_strategy == "whole graph"
        assert library.config.dynamic_shapes_kernel_specialization_strategy == "eager"
        assert "begin_capture" not in {call.name for call in device.calls}
        assert session.notes == []
        session.close()
        assert not device.living
    (kept,) = (tmp_path / "cache" / "sfiin").iterdir()
    assert kept.name.startswith(f"kernels-{session.sha256[:16]}-")


def test_without_graphs_tensorrt_for_rtx_captures_none(
    for_rtx: tuple[Path, Sidecar], small_model: Path
) -> None:
    device = FakeCuda(has_graphs=False)  # which is nothing to it
    library = FakeTensorRT(device, small_model, rtx=True)
    with TensorRTSession(*for_rtx, device, library, graphs=False) as session:
        assert library.config.cuda_graph_strategy == "disabled"
        assert session.notes == []


def test_a_cache_that_is_of_no_use_is_left_and_one_of_others_is_refused(
    for_rtx: tuple[Path, Sidecar], small_model: Path, tmp_path: Path
) -> None:
    def compiled() -> tuple[int, list[str]]:
        device = FakeCuda()
        library = FakeTensorRT(device, small_model, rtx=True)
        with TensorRTSession(*for_rtx, device, library) as session:
            session.run(*tiles(2))
            return library.compiled, session.notes

    assert compiled() == (1, [])
    (kept,) = (tmp_path / "cache" / "sfiin").iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(b"rubbish")
    assert compiled() == (1, [])
    assert kept.read_bytes() == whole
    kept.chmod(0o666)
    anew, notes = compiled()
    assert anew == 1
    assert "compiled anew" in notes[0]
    assert "may be written by others" in notes[0]
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("a file where the folder should be")
    _, notes = compiled()
    assert len(notes) == 1
    assert "cannot be kept for the next process" in notes[0]


def test_tensorrt_for_rtx_has_what_is_asked_of_it() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    assert {"DISABLED", "WHOLE_GRAPH_CAPTURE"} <= set(dir(trt.CudaGraphStrategy))
    assert "EAGER" in dir(trt.DynamicShapesKernelSpecializationStrategy)
    asked = {"create_runtime_cache", "set_runtime_cache", "cuda_graph_strategy"}
    assert {*asked, "dynamic_shapes_kernel_specialization_strategy"} <= set(dir(trt.IRuntimeConfig))
    assert {"serialize", "deserialize"} <= set(dir(trt.IRuntimeCache))
    assert "runtime_config: " in trt.ICudaEngine.create_execution_context.__doc__


def test_a_plan_without_weights_is_refused(planned: Any) -> None:
    path, _ = planned(stripped=True, refittable=True)
    with pytest.raises(MismatchError, match="stripped: it holds no weights; put them in with 'sfiin refit'"):
        open_plan(path)


@pytest.mark.parametrize(
    ("library", "device", "changes", "error", "said"),
    [
        (None, Device("Orin", "8.7"), {}, UnavailableError, "needs tensorrt, which is not installed"),
        (
            None,
            Device("Orin", "8.7"),
            {"version_compatible": True},
            UnavailableError,
            "tensorrt_lean or tensorrt_disp",
        ),
        ("10.3.0.26", None, {}, UnavailableError, "no NVIDIA driver"),
        ("10.3.0.26", Device("L4", "8.9"), {}, MismatchError, r"compute_capabilities: .* L4 has 8\.9"),
        ("10.7.0.23", Device("Orin", "8.7"), {}, MismatchError, r"tensorrt: .* the library here is 10\.7"),
        ("10.3.0.26", Device("Orin", "8.7"), {}, None, ""),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_made(
    planned: Any,
    monkeypatch: Any,
    tmp_path: Path,
    library: str | None,
    device: Device | None,
    changes: dict[str, Any],
    error: type[SfiinError] | None,
    said: str,
) -> None:
    """A module named tensorrt that has a version and nothing else: to construct anything would fail."""
    if library:
        (tmp_path / "tensorrt.py").write_text(f"__version__ = '{library}'\n")
        monkeypatch.syspath_prepend(tmp_path)
    found: dict[str, Any] = {"devices": [], "compute_capabilities": [], "why": "no NVIDIA driver"}
    if device:
        found = {"devices": [device.name], "compute_capabilities": [device.compute_capability], "why": None}
    monkeypatch.setattr(machine, "cuda_driver", lambda: found)
    monkeypatch.setattr(cuda, "require", lambda: ["cuda-bindings"])
    path, sidecar = planned(**changes)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    if error is None:
        assert require_here(path, sidecar) == "tensorrt"
    else:
        with pytest.raises(error, match=said):
            open_plan(path)
