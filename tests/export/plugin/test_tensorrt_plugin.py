"""The plugin's TensorRT side: compiled against each version's headers, asked by a stand-in, and in the real
registry.

TensorRT's headers come with JetPack and its packages, and are in NVIDIA's public repository;
$TENSORRT_INCLUDE names the folders that hold an NvInfer.h, of several versions if there are, divided by
colons.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from sfiin.export.plugin import host, toolkit

INCLUDES = [Path(folder) for folder in os.environ.get("TENSORRT_INCLUDE", "").split(":") if folder]
DRIVER = Path(__file__).with_name("drive.cpp")

pytestmark = [
    pytest.mark.skipif(
        not INCLUDES, reason="no TensorRT headers at hand; $TENSORRT_INCLUDE names their folders"
    ),
    pytest.mark.skipif(not toolkit.has_nvcc(), reason="nvcc is not installed"),
]


def version(include: Path) -> tuple[int, int]:
    text = (include / "NvInferVersion.h").read_text()
    major, minor = (
        re.search(rf"define (?:NV_TENSORRT|TRT)_{part}(?:_ENTERPRISE)? (\d+)", text)
        for part in ("MAJOR", "MINOR")
    )
    assert major is not None
    assert minor is not None
    return int(major[1]), int(minor[1])


def cuda_include() -> Path:
    listed = subprocess.run(
        [toolkit.nvcc(), "--dryrun", "-c", "x.cu"], capture_output=True, text=True, check=False
    ).stderr
    return Path(re.findall(r'"-I([^"]*include[^"]*)"', listed)[-1])


def without_nvcc() -> dict[str, str]:
    """An environment whose PATH lacks nvcc, as on a Jetson, and that names its home."""
    home = cuda_include().resolve()
    while not (home / "bin" / "nvcc").is_file():
        home = home.parent
    places = [place for place in os.environ["PATH"].split(":") if not (Path(place) / "nvcc").exists()]
    return os.environ | {"PATH": ":".join(places), "CUDA_HOME": str(home)}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin as CMake builds it, with the latest headers."""
    latest = max(INCLUDES, key=version)
    if version(latest) < (10, 0) or shutil.which("cmake") is None:
        pytest.skip("headers of TensorRT 10 or later and cmake are wanted")
    folder = tmp_path_factory.mktemp("build")
    commands: tuple[list[str | Path], ...] = (
        [
            "cmake",
            "-S",
            host.SOURCES,
            "-B",
            folder,
            f"-DTENSORRT_INCLUDE={latest}",
            "-DCMAKE_CUDA_ARCHITECTURES=90",
        ],
        ["cmake", "--build", folder],
    )
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=without_nvcc())
        assert done.returncode == 0, done.stderr + done.stdout
    assert (folder / "libsfiin_spectral.so").is_file()
    return folder / "libsfiin_plugin.so"


@pytest.mark.parametrize("include", INCLUDES, ids=str)
def test_it_compiles_against_every_version_without_a_warning(tmp_path: Path, include: Path) -> None:
    """Those of 8 are deprecated in 10, which is not a mistake of ours."""
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-deprecated-declarations"]
    folders: list[str | Path] = ["-isystem", include, "-isystem", cuda_include()]
    source = host.SOURCES / "tensorrt_plugin.cpp"
    command: list[str | Path] = ["g++", *flags, *folders, "-c", source, "-o", tmp_path / "plugin.o"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_it_answers_what_tensorrt_asks(library: Path, tmp_path: Path) -> None:
    include = max(INCLUDES, key=version)
    folders: list[str | Path] = ["-isystem", include, "-isystem", cuda_include()]
    command: list[str | Path] = ["g++", "-std=c++17", *folders, DRIVER, "-o", tmp_path / "drive", "-ldl"]
    subprocess.run(command, check=True)
    done = subprocess.run([tmp_path / "drive", library], capture_output=True, text=True, check=True)
    prefix = "log sfiin::SpectralFusion: "
    # (2 + 1) C (H F) complex numbers, 2 C H and 2 C sums, for four images, each on a boundary of 256 bytes.
    sizes = (2 * 4 * 8 * 128 * 49 * 8, 4 * 8 * 128 * 49 * 8, 2 * 4 * 8 * 128 * 4, 2 * 4 * 8 * 4)
    assert done.stdout.splitlines() == [
        "creators 1",
        f"{prefix}floor, cut, fade and slope are all wanted",
        "three fields 0",
        "configured 0",
        f"{prefix}a tile's sides must be products of 2, 3 and 5",
        "configured 1",
        f"{prefix}channels must be 4 to 32, in steps of 4",
        "configured 1",
        f"{prefix}input 6 has 64 elements, not 128",
        "configured 1",
        f"{prefix}16 inputs are wanted, not 15",
        "configured 1",
        f"workspace {sum(-(-size // 256) * 256 for size in sizes)}",
        "format 1",
        "format 1",
        "format 0",
        "format 0",
        "format 0",
        "timing sfiin.SpectralFusion.1",
        "output half 1, of 1",
        "field floor 1e-06",
        "field cut 0.2",
        "field fade 0.1",
        "field slope 0.3",
    ]


REGISTRY = """
import gc, sys
import numpy as np
import tensorrt_lean_bindings as trt
registry = trt.get_plugin_registry()
handle = registry.load_library(sys.argv[1])
creator = registry.get_creator("SpectralFusion", "1", "sfiin")
fields = [field.name for field in creator.field_names]
print(creator.name, creator.plugin_version, creator.plugin_namespace, *fields)
def made(**values):
    kind = trt.PluginFieldType.FLOAT32
    fields = [trt.PluginField(name, np.array(value, np.float32), kind) for name, value in values.items()]
    return creator.create_plugin("node", trt.PluginFieldCollection(fields), trt.TensorRTPhase.BUILD)
print(made(floor=[1e-6], cut=[0.2, 0.3], fade=[0.1], slope=[0.1]), made(floor=[1e-6]))
plugin = made(floor=[1e-6], cut=[0.2], fade=[0.1], slope=[0.1])
core = plugin.get_capability_interface(trt.PluginCapabilityType.CORE)
build = plugin.get_capability_interface(trt.PluginCapabilityType.BUILD)
run = plugin.get_capability_interface(trt.PluginCapabilityType.RUNTIME)
print(core.plugin_name, core.plugin_version, core.plugin_namespace, build.num_outputs, run is not None)
del core, build, run, plugin, creator  # before the library that their code is in
gc.collect()
registry.deregister_library(handle)
print(registry.get_creator("SpectralFusion", "1", "sfiin"))
"""


@pytest.mark.skipif(
    find_spec("tensorrt_lean_bindings") is None, reason="tensorrt_lean_cu13_bindings is not installed"
)
def test_the_real_registry_takes_it_and_lets_it_go(library: Path) -> None:
    command = [sys.executable, "-c", REGISTRY, str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "SpectralFusion 1 sfiin floor cut fade slope",
        "None None",
        "SpectralFusion 1 sfiin 1 True",
        "None",
    ]


LOAD = """
import sys
from pathlib import Path
import tensorrt_lean_bindings as trt
from sfiin.runtime.backends import plugin
plugin.load(trt, Path(sys.argv[1]))
print(plugin.knows(trt.get_plugin_registry()))
"""


@pytest.mark.skipif(
    find_spec("tensorrt_lean_bindings") is None, reason="tensorrt_lean_cu13_bindings is not installed"
)
def test_the_runtime_loads_it_into_the_real_registry(library: Path) -> None:
    """The module has a registry for the whole process, called as those of a builder and a runtime are."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(library)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
    libc = next(Path("/lib").glob("*/libm.so.6"))
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(libc)], capture_output=True, text=True, check=False
    )
    assert "has no plugin sfiin::SpectralFusion" in done.stderr


def newest(before: tuple[int, int]) -> Path:
    """The newest headers before a version."""
    found = [include for include in INCLUDES if (8, 6) <= version(include) < before]
    if not found:
        pytest.skip(f"no headers of TensorRT 8.6 to before {before[0]} at hand")
    return max(found, key=version)


ADDRESS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@pytest.mark.parametrize(
    ("before", "flags"),
    [((99, 0), ADDRESS), ((99, 0), ("-fsanitize=thread",)), ((10, 0), ADDRESS)],
    ids=["IPluginV3, addresses", "IPluginV3, threads", "IPluginV2, addresses"],
)
def test_its_host_side_lives_as_tensorrt_would_have_it(
    tmp_path: Path, before: tuple[int, int], flags: tuple[str, ...]
) -> None:
    """Over a runtime whose streams are threads, with the kernels compiled for this machine."""
    program = tmp_path / "live"
    folders: list[str | Path] = [
        "-isystem",
        newest(before),
        "-isystem",
        cuda_include(),
        "-I",
        DRIVER.parent,
        "-I",
        host.SOURCES,
    ]
    sources = [DRIVER.with_name("live.cpp"), host.SOURCES / "tensorrt_plugin.cpp"]
    quiet = ["-Wno-deprecated-declarations", "-Wno-unknown-pragmas"]
    command: list[str | Path] = [
        "g++",
        "-std=c++20",
        "-O1",
        "-g",
        "-pthread",
        *quiet,
        *flags,
        *folders,
        *sources,
        "-o",
        program,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "cannot find" in done.stderr:
        pytest.skip(f"no runtime for {flags[0]}")
    assert done.returncode == 0, done.stderr
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("this kernel's address space is laid out in a way that the sanitizer does not know")
    said = ["configured", "workspace", "beside", "two contexts", "replayed after another tile"]
    said += ["without memory", "with memory again", "all given back"]
    assert (done.returncode, done.stdout.splitlines()) == (0, [f"{line} 1" for line in said]), done.stderr[
        :3000
    ]
