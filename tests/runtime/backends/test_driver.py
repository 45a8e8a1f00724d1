"""The device layer over NVIDIA's real bindings and a driver of our own, whose memory is the host's.

What a fake of our own interface cannot find: a function that the bindings have not, a handle of another type, a wait
that is missing, a context that is not current. Nothing here says anything about a GPU.
"""

from __future__ import annotations

import importlib.util
import json
import os
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

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.bindings") is None,
        reason="cuda-bindings is not installed",
    ),
]


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
def told(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a session in a process of its own tells."""
    compiler = shutil.which("g++")
    if compiler is None or sys.platform != "linux":
        pytest.skip("no g++ here")
    folder = tmp_path_factory.mktemp("driver")
    library = folder / "libcuda.so.1"
    command = [compiler, "-std=c++17", "-shared", "-fPIC", "-O1", f"-I{headers()}", str(HERE / "driver.cpp")]
    command += ["-o", str(library), "-Wl,-soname,libcuda.so.1", "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    environment = os.environ | {"LD_LIBRARY_PATH": f"{folder}:{os.environ.get('LD_LIBRARY_PATH', '')}"}
    done = subprocess.run(
        [sys.executable, str(HERE / "session.py"), str(small_model), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_a_session_gives_the_right_tiles_and_gives_everything_back(told: dict[str, Any]) -> None:
    """Batches of 4, 3, 4, 1, 2, 4, three times over, so that graphs are replayed after a change of shape."""
    assert told["right"] is True
    assert told["left"] == 0
    assert told["free"] == 3 << 20


def test_a_missing_wait_gives_wrong_numbers(told: dict[str, Any]) -> None:
    assert told["hasty"] is not True


def test_every_call_that_fails_is_told_and_nothing_is_left(told: dict[str, Any]) -> None:
    assert len(told["failures"]) > 40
    for place, (ended, left) in told["failures"].items():
        name = place.split()[0]
        given_back = name.endswith(("Free", "FreeHost", "Destroy"))
        if not given_back:  # what could not be given back is left, as it would be
            assert left == 0, place
        if place.endswith(" 1") and not given_back and name not in SPARED:
            assert ended != "went well", place
        if ended != "went well" and not given_back:
            assert "the GPU: " in ended or "golden tiles" in ended, (place, ended)
