"""The device layer over NVIDIA's real bindings and a driver of our own, whose memory is the host's.

What a fake of our own interface cannot find: a function that the bindings have not, a handle of another type,
a wait that is missing, a context that is not current. Nothing here says anything about a GPU.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent / "driver"
HEADERS = [
    Path(folder) / "include"
    for folder in (os.environ.get("CUDA_HOME", ""), "/usr/local/cuda", "/usr")
    if folder
]

SPARED = {
    # Without a graph a batch is launched call by call.
    *("cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate", "cuGraphLaunch"),
    # For timed runs and at the end only.
    *("cuEventElapsedTime", "cuMemGetInfo", "cuStreamSynchronize"),
}
"""Calls without which a session can do."""

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sfiin-tests"
TAG = f"cp{sys.version_info[0]}{sys.version_info[1]}"

LAYERS = {
    "cuda-bindings": ("cuda-bindings", None),
    "cuda-bindings of CUDA 12": ("cuda-bindings", CACHE / f"bindings-{TAG}"),
    "pycuda": ("pycuda", CACHE / f"pycuda-{TAG}"),
}
"""Layers, and where they were prepared; None: what is installed."""


def headers() -> Path:
    """Where cuda.h is: of a toolkit, or of NVIDIA's wheel of the runtime."""
    spec = importlib.util.find_spec("nvidia")
    wheels = (
        [Path(place) / "cu13" / "include" for place in (spec.submodule_search_locations or [])]
        if spec
        else []
    )
    wheels += [folder.parent / "cuda_runtime" / "include" for folder in wheels]
    for folder in (*HEADERS, *wheels):
        if (folder / "cuda.h").is_file():
            return folder
    pytest.skip("no cuda.h here: neither a CUDA toolkit nor its wheel")


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in, compiled."""
    compiler = shutil.which("g++")
    if compiler is None or sys.platform != "linux":
        pytest.skip("no g++ here")
    target = tmp_path_factory.mktemp("driver") / "driver.o"
    command = [compiler, "-std=c++17", "-fPIC", "-O1", f"-I{headers()}", "-c", str(HERE / "driver.cpp"), "-o"]
    subprocess.run([*command, str(target)], check=True, capture_output=True)
    return target


def linked(objects: Path, folder: Path, module: Path | None) -> None:
    """The stand-in as a library, with functions that it has not, and a module wants at load, refusing to
    work."""
    names: set[str] = set()
    for wanting in module.rglob("_driver*.so") if module else ():
        names |= symbols(wanting, "--undefined-only") - symbols(objects)
    more = folder / "more.c"
    refused = (f"int {name}(void) {{ return 801; }}" for name in sorted(names) if re.match("cu[A-Z]", name))
    more.write_text("\n".join(refused))
    command = ["gcc", "-fPIC", "-shared", str(more), str(objects), "-o", str(folder / "libcuda.so.1")]
    command += ["-Wl,-soname,libcuda.so.1", "-ldl", "-lstdc++"]
    subprocess.run(command, check=True, capture_output=True)


def symbols(file: Path, *flags: str) -> set[str]:
    flags = ("-D", *flags) if flags else ("--defined-only",)
    listed = subprocess.run(["nm", *flags, str(file)], check=True, capture_output=True, text=True).stdout
    return {line.split()[-1] for line in listed.splitlines() if line}


@pytest.fixture(scope="module", params=LAYERS)
def told(
    request: pytest.FixtureRequest,
    objects: Path,
    small_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """What a session in a process of its own tells."""
    layer, prepared = LAYERS[request.param]
    if prepared is None and importlib.util.find_spec("cuda") is None:
        pytest.skip("cuda-bindings is not installed")
    if prepared is not None and not prepared.is_dir():
        pytest.skip(f"{request.param}: not in {CACHE}; {HERE.name}/prepare.sh makes it, in minutes")
    folder = tmp_path_factory.mktemp("session")
    linked(objects, folder, prepared if layer == "pycuda" else None)
    environment = os.environ | {"LD_LIBRARY_PATH": f"{folder}:{os.environ.get('LD_LIBRARY_PATH', '')}"}
    if prepared:
        environment["PYTHONPATH"] = str(prepared)
    done = subprocess.run(
        [sys.executable, str(HERE / "session.py"), str(small_model), str(folder), layer],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {**json.loads(done.stdout), "layer": layer}


def test_a_session_gives_the_right_tiles_and_gives_everything_back(told: dict[str, Any]) -> None:
    """Batches of 4, 3, 4, 1, 2, 4, three times over, so that graphs are replayed after a change of shape."""
    assert told["right"] is True
    assert told["left"] == 0
    assert told["free"] == 3 << 20


def test_a_session_runs_in_another_thread_than_it_was_opened_in(told: dict[str, Any]) -> None:
    assert told["thread"] == [True]


def test_a_missing_wait_gives_wrong_numbers(told: dict[str, Any]) -> None:
    assert told["hasty"] is not True


def test_every_call_that_fails_is_told_and_nothing_is_left(told: dict[str, Any]) -> None:
    assert len(told["failures"]) > (40 if told["layer"] == "cuda-bindings" else 16)
    for place, (ended, left) in told["failures"].items():
        name = place.split()[0]
        given_back = name.endswith(("Free", "FreeHost", "Destroy"))
        if not given_back:  # what could not be given back is left, as it would be
            assert left == 0, place
        if place.endswith(" 1") and not given_back and name not in SPARED:
            assert ended != "went well", place
        if ended != "went well" and not given_back:
            assert "the GPU: " in ended or "golden tiles" in ended, (place, ended)
