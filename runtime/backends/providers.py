"""Which of ONNX Runtime's execution providers can start here, and how is each set up?

A GPU package lists CUDA and TensorRT whatever the machine has. The libraries behind them are loaded when a
session is made, and where one is missing ONNX Runtime says so on stderr and takes the CPU. So they are loaded
beforehand, and the loader's own words are the reason.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from sfiin.runtime.errors import UnavailableError
from sfiin.runtime.extras import install

Provider = Literal["cpu", "cuda", "tensorrt"]
PROVIDERS: Mapping[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}

# Where a tensor is FP32, FP32 is meant: TF32 has the mantissa of FP16.
_CUDA = (PROVIDERS["cuda"], {"use_tf32": "0"})
_TENSORRT = (PROVIDERS["tensorrt"], {"trt_fp16_enable": "0"})


def wanted(provider: Provider) -> list[Any]:
    """A session's providers with their options, the first choice first.

    What TensorRT does not take goes to CUDA, and what CUDA does not have to the CPU, which is always there.
    """
    lists: Mapping[Provider, list[Any]] = {
        "cpu": [PROVIDERS["cpu"]],
        "cuda": [_CUDA],
        "tensorrt": [_TENSORRT, _CUDA],
    }
    return lists[provider]


def require_loads(ort: Any, provider: Provider) -> None:
    """Raise UnavailableError, with the loader's reason, where a provider's libraries cannot be loaded."""
    if provider != "cpu" and (why := why_not(ort, provider)):
        raise refusal(provider, why)


def refusal(provider: Provider, why: str) -> UnavailableError:
    """The error for a provider that is in the package and cannot start."""
    needs = "TensorRT 10, CUDA and cuDNN" if provider == "tensorrt" else "CUDA and cuDNN"
    return UnavailableError(
        f"ONNX Runtime's {PROVIDERS[provider]} cannot start: {why}. It needs the {needs} that its package "
        f"was built with ({install('gpu')}); --provider cpu does without"
    )


def why_not(ort: Any, provider: Provider) -> str:
    """Why a provider's library cannot be loaded, in the loader's words; "" if it can, or is not a file
    here."""
    return _loads(Path(ort.__file__).parent / "capi", provider, getattr(ort, "preload_dlls", None))


@cache
def _loads(folder: Path, provider: Provider, preload: Any) -> str:
    library = folder / f"libonnxruntime_providers_{provider}.so"
    if not library.is_file():  # such as on Windows: what cannot be asked is left to the session
        return ""
    if preload:
        # CUDA and cuDNN of Python packages are found by no loader; ONNX Runtime prints what it does not find.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            preload()
    try:
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(library))
    except OSError as error:
        return " ".join(str(error).split())
    return ""
