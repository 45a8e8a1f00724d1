"""Where is CUDA's compiler? On PATH, or where CUDA is installed: on a Jetson it is not on PATH."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from sfiin.runtime.errors import UnavailableError

USUAL = Path("/usr/local/cuda")


def nvcc() -> Path:
    """nvcc: on PATH, else of $CUDA_HOME, $CUDA_PATH or /usr/local/cuda. Raises UnavailableError without
    one."""
    homes = [Path(home) for name in ("CUDA_HOME", "CUDA_PATH") if (home := os.environ.get(name))]
    folders = [os.environ.get("PATH", os.defpath), *(str(home / "bin") for home in (*homes, USUAL))]
    found = shutil.which("nvcc", path=os.pathsep.join(folders))
    if found is None:
        raise UnavailableError(
            "nvcc, which compiles the plugin's kernels, is not installed; it is in CUDA's toolkit. It was "
            f"looked for on PATH and in bin/ of $CUDA_HOME, $CUDA_PATH and {USUAL}"
        )
    return Path(found)


def has_nvcc() -> bool:
    """Whether there is one."""
    try:
        nvcc()
    except UnavailableError:
        return False
    return True
