"""What does each kernel take of a GPU? Registers, stack and spills, by compute capability, as the compiler
tells them.

python -m sfiin.export.plugin.resources -o benchmarks/plugin-resources.json
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from sfiin.export.plugin import toolkit
from sfiin.export.plugin.host import SOURCES
from sfiin.runtime.errors import SfiinError
from sfiin.runtime.files import publish

CAPABILITIES = ("75", "80", "86", "87", "89", "90", "100", "110", "120")


@dataclass(frozen=True)
class Kernel:
    """One kernel compiled for one compute capability; `stack` and `spills` in bytes."""

    capability: str
    name: str
    registers: int
    stack: int
    spills: int


def known() -> list[str]:
    """The compute capabilities of `CAPABILITIES` that nvcc here knows. Raises UnavailableError without
    nvcc."""
    listed = _nvcc("--list-gpu-arch").stdout
    return [capability for capability in CAPABILITIES if f"compute_{capability}\n" in listed]


def version() -> str:
    """nvcc's release."""
    found = re.search(r"release ([\d.]+)", _nvcc("--version").stdout)
    return found[1] if found else "unknown"


def kernels(capability: str) -> list[Kernel]:
    """Compile for one compute capability. Raises SfiinError with the compiler's first error."""
    with TemporaryDirectory() as folder:
        flags = (
            "-std=c++17",
            "-O3",
            f"-arch=sm_{capability}",
            "-Xptxas",
            "-v",
            "-c",
            "-o",
            f"{folder}/kernels.o",
        )
        done = _nvcc(*flags, str(SOURCES / "spectral_fusion.cu"))
    if done.returncode:
        raise SfiinError(
            f"the kernels do not compile for sm_{capability}: {done.stderr.strip().splitlines()[0]}"
        )
    found = re.findall(
        r"entry function '\w*5sfiin\d+(\w+?)E*vT_'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
        r"(\d+) bytes spill loads.*?Used (\d+) registers",
        done.stderr,
        re.DOTALL,
    )
    return [
        Kernel(capability, _plain(name), int(registers), int(stack), int(stores) + int(loads))
        for name, stack, stores, loads, registers in found
    ]


def _plain(name: str) -> str:
    """'BinsIfEEE' or 'BinsI6__halfEEE' as 'Bins<float>' or 'Bins<half>'."""
    kind, _, types = name.partition("I6__half")
    if types or name != kind:
        return f"{kind}<half>"
    return f"{name[:-2]}<float>" if name.endswith("If") else name


def _nvcc(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([toolkit.nvcc(), *arguments], capture_output=True, text=True, check=False)


def main() -> None:
    """Compile for all and write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/plugin-resources.json"))
    output = parser.parse_args().output
    found = [asdict(kernel) for capability in known() for kernel in kernels(capability)]
    with publish(output) as part:
        part.write_text(json.dumps({"nvcc": version(), "kernels": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
