"""Whether a provider's libraries load, asked of the loader itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sfiin.runtime.backends import providers
from sfiin.runtime.errors import UnavailableError


@pytest.fixture
def package(tmp_path: Path) -> Any:
    """A package whose CUDA provider wants a library that is not there, as a GPU package without CUDA's."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ here")
    capi = tmp_path / "capi"
    capi.mkdir()
    (tmp_path / "x.cpp").write_text("int x;")

    def library(name: str, *more: str) -> None:
        command = [compiler, "-shared", "-fPIC", str(tmp_path / "x.cpp"), "-o", str(capi / name), *more]
        subprocess.run(command, check=True)

    library("libonnxruntime_providers_shared.so")
    library("libcudnn-of-nobody.so.9", "-Wl,-soname,libcudnn-of-nobody.so.9")
    wants = ("-Wl,--no-as-needed", str(capi / "libcudnn-of-nobody.so.9"))
    library("libonnxruntime_providers_cuda.so", *wants)
    library("libonnxruntime_providers_tensorrt.so")
    (capi / "libcudnn-of-nobody.so.9").unlink()
    return SimpleNamespace(__file__=str(tmp_path / "__init__.py"))


def test_a_missing_library_is_named(package: Any) -> None:
    assert "libcudnn-of-nobody.so.9: cannot open shared object file" in providers.why_not(package, "cuda")
    with pytest.raises(
        UnavailableError, match=r"CUDAExecutionProvider cannot start: libcudnn.*--provider cpu does without"
    ):
        providers.require_loads(package, "cuda")


def test_what_loads_or_is_no_file_is_no_reason(package: Any, tmp_path: Path) -> None:
    assert providers.why_not(package, "tensorrt") == ""
    assert providers.why_not(SimpleNamespace(__file__=str(tmp_path / "none" / "x.py")), "cuda") == ""
    providers.require_loads(package, "cpu")


def test_libraries_of_python_packages_are_loaded_first_and_quietly(
    package: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[str] = []

    def preload() -> None:
        calls.append("preloaded")
        print("Failed to load libcudnn")

    package.preload_dlls = preload
    providers.why_not(package, "tensorrt")
    assert calls == ["preloaded"]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("provider", ["cpu", "cuda", "tensorrt"])
def test_a_session_falls_back_down_the_list(provider: Any) -> None:
    names = [name if isinstance(name, str) else name[0] for name in providers.wanted(provider)]
    order = [providers.PROVIDERS["tensorrt"], providers.PROVIDERS["cuda"], providers.PROVIDERS["cpu"]]
    assert names[0] == providers.PROVIDERS[provider]
    assert names == [name for name in order if name in names]
