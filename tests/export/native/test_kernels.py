"""The native kernels, compiled for several instruction sets, with sanitizers, and for another processor."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sfiin.data.sensors import SENSORS
from sfiin.export import native
from sfiin.export.graph import build_graph
from sfiin.model.network import SFIIN, NetworkConfig
from sfiin.runtime.backends import native_steps, onnx_graph
from sfiin.runtime.backends.native_program import compile_graph

SOURCES = Path(native.__file__).parent
HIGHWAY = Path("/usr/include/hwy/highway.h")
HOST = ("g++",)
ARM = ("aarch64-linux-gnu-g++", "-march=armv8-a+crypto", "-idirafter", "/usr/include")
SANITIZERS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
X86 = platform.machine() == "x86_64"
needs_x86 = pytest.mark.skipif(not X86, reason="for x86-64 machines")

Compile = Callable[..., Path]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """Compile check.cpp with the kernels for one instruction set, without the library of Highway."""

    def call(compiler: tuple[str, ...], *flags: str) -> Path:
        if not shutil.which(compiler[0]):
            pytest.skip(f"no {compiler[0]} here, which would compile the kernels")
        if not HIGHWAY.is_file():
            pytest.skip("no Highway here (apt install libhwy-dev)")
        program = tmp_path_factory.mktemp("kernels") / "check"
        sources = [str(SOURCES / name) for name in ("check.cpp", "kernels.cpp", "parse.cpp", "library.cpp")]
        options = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-DHWY_COMPILE_ONLY_STATIC"]
        command = [*compiler, *options, *flags, f"-I{SOURCES}", *sources, "-o", str(program)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[:3000]
        return program

    return call


PAPER = NetworkConfig(blocks=1, spatial="invertible")
PROPOSALS = NetworkConfig(blocks=1, normalise="local", inject="mixed")


def run(
    command: list[str],
    folder: Path,
    height: int,
    width: int,
    config: NetworkConfig = PAPER,
    off: float = 2e-6,
) -> str:
    """Run a small network on noise through `check` and compare it with PyTorch's float64; its instruction
    set."""
    torch.manual_seed(1)
    network = SFIIN(config, SENSORS["vhr4"].profile).eval()
    model = build_graph(network, (height, width), "matmul", 17)
    code, constants = native_steps.encode(compile_graph(onnx_graph.parse(model.SerializeToString())))
    random = np.random.default_rng(0)
    ms = random.uniform(0, 2047, (1, 4, height // 4, width // 4)).astype(np.float32)
    pan = random.uniform(0, 2047, (1, 1, height, width)).astype(np.float32)
    with torch.inference_mode():
        wanted = network.double()(*(torch.from_numpy(image).double() for image in (ms, pan))).numpy()
    counts = np.array([code.size, constants.size, ms.size, pan.size, wanted.size], np.int64)
    arrays = (counts, code, constants, ms, pan)
    (folder / "in").write_bytes(b"".join(array.tobytes() for array in arrays))
    done = subprocess.run(
        [*command, str(folder / "in"), str(folder / "out")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr[:3000]
    found = np.fromfile(folder / "out", np.float32).reshape(wanted.shape)
    assert np.linalg.norm(found - wanted) <= off * np.linalg.norm(wanted)
    return done.stdout.strip()


@needs_x86
@pytest.mark.slow
@pytest.mark.parametrize("flags", [("-msse4.2", "-maes", "-mpclmul"), ("-march=haswell", "-maes")])
def test_sanitizers_find_nothing(compiled: Compile, tmp_path: Path, flags: tuple[str, ...]) -> None:
    if "haswell" in flags[0] and "avx2" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor has no AVX2")
    program = compiled(HOST, *SANITIZERS, *flags)
    for size in ((32, 32), (20, 44), (4, 4)):  # powers of two; 5 and 11; as small as can be
        assert run([str(program)], tmp_path, *size) == ("AVX2" if "haswell" in flags[0] else "SSE4")
    run([str(program)], tmp_path, 36, 52, PROPOSALS, 1e-5)


@pytest.mark.slow
def test_a_program_for_arm_computes_the_same(compiled: Compile, tmp_path: Path) -> None:
    emulator = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if emulator is None:
        pytest.skip("no qemu-aarch64 here (apt install qemu-user)")
    program = compiled(ARM, "-static")
    assert run([emulator, str(program)], tmp_path, 32, 40) == "NEON"
    assert run([emulator, str(program)], tmp_path, 48, 32, PROPOSALS, 1e-5) == "NEON"
