"""What can this machine do? Facts for `sfiin doctor`, gathered so that no probe can hurt.

Versions are read from the packages' metadata, without importing them. The CUDA driver is asked by ctypes:
constructing a TensorRT Runtime where there is none ends the process.
"""

from __future__ import annotations

import ctypes
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import sfiin
from sfiin.runtime.backends import cuda, providers, side_by_side
from sfiin.runtime.backends.plan import Device, Flavour
from sfiin.runtime.backends.providers import PROVIDERS, Provider
from sfiin.runtime.backends.session import OLDEST_WITH_DFT, import_onnxruntime
from sfiin.runtime.contract import NEEDS
from sfiin.runtime.errors import SfiinError, UnavailableError
from sfiin.runtime.extras import install

TENSORRT = ("tensorrt", "tensorrt_lean", "tensorrt_dispatch", "tensorrt_rtx")

RUNS: Mapping[Flavour, tuple[str, ...]] = {
    "tensorrt": ("tensorrt", "tensorrt_lean", "tensorrt_dispatch"),
    "rtx": ("tensorrt_rtx",),
}
"""Modules that run plans of each flavour; of the first, the lean ones only run version-compatible plans."""

JETPACKS = (
    (
        (35, 0),
        "5",
        "TensorRT 8.5: sfiin build --flavour tensorrt, types by flags; plans by TensorRT, natively",
    ),
    (
        (36, 0),
        "6.0",
        "TensorRT 8.6: sfiin build --flavour tensorrt, types by flags; plans by TensorRT, natively",
    ),
    ((36, 4), "6.1 or 6.2", "TensorRT 10.3: sfiin build --flavour tensorrt, strongly typed; plans natively"),
    ((38, 0), "7", "TensorRT 10.13 or later: sfiin build --flavour tensorrt, strongly typed; plans natively"),
)
"""From which release of L4T on, the JetPack's name, and the way; as documented by NVIDIA, not tried on a
board."""

_BACKEND_EXTRA = {"cpu": "cpu", "cuda": "gpu", "tensorrt": "gpu"}


def survey() -> dict[str, Any]:
    """Everything, as one JSON document; null stands for what is not there."""
    driver = cuda_driver()
    onnxruntime = _onnxruntime()
    return {
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "system": {"platform": platform.platform(), "cpus": cpus(), "jetson": jetson()},
        "packages": packages(),
        "tensorrt": {name: version(name) for name in TENSORRT},
        "cuda": driver,
        "onnxruntime": onnxruntime,
        "backends": {"native": _native(), **{name: backend(name) for name in PROVIDERS}},
        "plans": plans(),
        "jetpack": jetpack(),
        "fourier": {**NEEDS, "dft": _dft(onnxruntime)},
        "models": _models(),
        "extras": extras(),
    }


def packages() -> dict[str, str | None]:
    """Versions of the packages that matter, and of the GDAL inside rasterio."""
    import rasterio

    names = (
        "numpy",
        "rasterio",
        "torch",
        "onnx",
        "onnxruntime",
        "onnxruntime-gpu",
        "cuda-bindings",
        "pycuda",
    )
    return {
        "sfiin": sfiin.__version__,
        "gdal": rasterio.__gdal_version__,
        **{name: version(name) for name in names},
    }


def version(name: str) -> str | None:
    """The version of a package, or of the package that brings a module of that name.

    "unknown" where a module has no metadata, None where there is neither.
    """
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    module = name.replace("-", "_")
    if not find_spec(module):
        return None
    package = metadata.packages_distributions().get(module)
    return metadata.version(package[0]) if package else "unknown"


def cpus() -> int:
    """The CPUs that this process may use, which in a container can be fewer than there are."""
    return side_by_side.cores()


def jetson(root: Path = Path("/")) -> str | None:
    """The Jetson's model, or its release of L4T; None on other machines."""
    model, release = root / "proc/device-tree/model", root / "etc/nv_tegra_release"
    # A device tree's string ends with a NUL; a Raspberry Pi has one too.
    name = model.read_text(errors="replace").strip("\0\n ") if model.is_file() else ""
    if "jetson" in name.casefold():
        return name
    return release.read_text(errors="replace").splitlines()[0] if release.is_file() else None


def cuda_driver(library: str = "libcuda.so.1") -> dict[str, Any]:
    """The CUDA version that the driver supports and the devices' names and compute capabilities; with `why`
    where there is none to use.
    """
    nothing: dict[str, Any] = {"version": None, "devices": [], "compute_capabilities": []}
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return {**nothing, "why": f"no NVIDIA driver ({library} cannot be loaded)"}
    code = driver.cuInit(0)
    if code:
        return {**nothing, "why": f"the driver finds no usable device (cuInit returned {code})"}
    number, count = ctypes.c_int(), ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(number))
    driver.cuDeviceGetCount(ctypes.byref(count))
    found = [_device(driver, i) for i in range(count.value)]
    return {
        "version": f"{number.value // 1000}.{number.value % 1000 // 10}",
        "devices": [device.name for device in found],
        "compute_capabilities": [device.compute_capability for device in found],
        "why": None if found else "the driver finds no device",
    }


def gpu() -> Device:
    """The first GPU. Raises UnavailableError, with what is missing, where there is none."""
    found = cuda_driver()
    if found["why"]:
        raise UnavailableError(f"{found['why']}; this needs an NVIDIA GPU with its driver")
    return Device(found["devices"][0], found["compute_capabilities"][0])


def backend(name: Provider) -> dict[str, Any]:
    """Whether `sfiin run --provider NAME` can run an ONNX model here, and if not, why."""
    onnxruntime = _onnxruntime()
    why = onnxruntime["why"]
    if not why and PROVIDERS[name] not in onnxruntime["providers"]:
        why = f"onnxruntime here has no {PROVIDERS[name]}; {install(_BACKEND_EXTRA[name])}"
    if not why and name != "cpu":
        why = cuda_driver()["why"] or providers.why_not(import_onnxruntime(), name) or None
    return {"usable": not why, "why": why}


def _native() -> dict[str, Any]:
    """Whether the native kernels are here, for which vectors, and if not, why."""
    from sfiin.runtime.backends import native

    why = native.why_not()
    return {"usable": not why, "why": why or None, "vectors": None if why else native.instruction_set()}


def plans() -> dict[str, dict[str, Any]]:
    """By flavour: whether plans can be run here, with which library, and if not, why."""
    return {flavour: _plans(libraries) for flavour, libraries in RUNS.items()}


def jetpack(root: Path = Path("/")) -> dict[str, str] | None:
    """On a Jetson: its release of L4T, the JetPack, and which way a model takes there; None elsewhere."""
    file = root / "etc/nv_tegra_release"
    found = (
        re.match(r"# R(\d+) \(release\), REVISION: (\d+)", file.read_text(errors="replace"))
        if file.is_file()
        else None
    )
    if not found:
        return None
    release = int(found[1]), int(found[2])
    name, way = next(
        ((name, way) for first, name, way in reversed(JETPACKS) if release >= first),
        ("before 5", "its TensorRT is older than 8.5, which sfiin needs; update JetPack"),
    )
    return {"l4t": f"{release[0]}.{release[1]}", "jetpack": name, "way": way}


def extras() -> dict[str, dict[str, Any]]:
    """By extra of sfiin: the packages it wants, those that are missing here, and how to get them."""
    wanted = _wanted()
    return {
        extra: {"missing": missing, "install": install(extra) if missing else None}
        for extra in wanted
        for missing in [sorted(name for name in _closure(extra, wanted) if version(name) is None)]
    }


def _device(driver: ctypes.CDLL, index: int) -> Device:
    device, name, number = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_int()
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(name, len(name), device)
    numbers = []
    for attribute in (75, 76):  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
        driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
        numbers.append(str(number.value))
    return Device(name.value.decode(errors="replace"), ".".join(numbers))


def _onnxruntime() -> dict[str, Any]:
    """ONNX Runtime's version and providers, or why `sfiin run` cannot use it."""
    try:
        ort = import_onnxruntime()
    except UnavailableError as error:
        return {"version": None, "providers": [], "why": str(error)}
    return {"version": ort.__version__, "providers": ort.get_available_providers(), "why": None}


def _plans(libraries: Sequence[str]) -> dict[str, Any]:
    installed = [name for name in libraries if find_spec(name)]
    why = None if installed else f"{libraries[0]} is not installed"
    why = why or cuda_driver()["why"]
    if not why:
        try:
            cuda.open_cuda()
        except UnavailableError as error:
            why = str(error)
    library = f"{installed[0]} {version(installed[0])}" if installed else None
    return {"usable": not why, "library": library, "why": why}


def _dft(onnxruntime: dict[str, Any]) -> str:
    oldest = ".".join(map(str, OLDEST_WITH_DFT))
    found = tuple(map(int, re.findall(r"\d+", onnxruntime["version"] or "0")[:2]))
    return f"onnxruntime {oldest} or later: {'here' if found >= OLDEST_WITH_DFT else 'not here'}"


def _models() -> list[dict[str, Any]]:
    """The shipped models, and why the native kernels do not know one (None: they do).

    A damaged one is reported rather than fatal, for this is where one looks for the reason.
    """
    from sfiin.runtime import models, vouching
    from sfiin.runtime.backends import native, onnx_graph

    def unknown(path: Path) -> str | None:
        try:
            native.translated(vouching.read(path))
        except onnx_graph.UnknownGraphError as error:
            return str(error)
        return None

    try:
        found = models.shipped()
    except SfiinError as error:
        return [{"file": None, "why": str(error)}]
    return [
        {
            "file": path.name,
            "sensor": contract.sensor.name,
            "bands": len(contract.sensor.bands),
            "ratio": contract.sensor.ratio,
            "not_native": unknown(path),
        }
        for path, contract in found
    ]


def _wanted() -> dict[str, set[str]]:
    """By extra: the requirements' names, a nested extra as 'sfiin[...]', without versions and other
    conditions.

    A condition on Python's version does not excuse a package: without it, too, the extra does nothing here.
    """
    wanted: dict[str, set[str]] = {
        name: set() for name in metadata.metadata("sfiin").get_all("Provides-Extra", [])
    }
    for line in metadata.requires("sfiin") or []:
        name = re.match(r"[\w.-]+(\[[\w, -]+\])?", line)
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", line)
        if name and extra:
            wanted[extra[1]].add(name[0] if name[0].startswith("sfiin[") else name[0].partition("[")[0])
    return wanted


def _closure(extra: str, wanted: dict[str, set[str]]) -> set[str]:
    """The names of an extra with those of the extras inside it."""
    names: set[str] = set()
    for name in wanted.get(extra, ()):
        nested = re.fullmatch(r"sfiin\[(.+)\]", name)
        names |= (
            set().union(*(_closure(e.strip(), wanted) for e in nested[1].split(","))) if nested else {name}
        )
    return names
