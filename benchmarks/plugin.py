"""How near to the limit of memory is a frequency branch on this GPU, by the kernels and by PyTorch?

    python benchmarks/plugin.py -o benchmarks/plugin-NAME.json       # needs a GPU, nvcc, PyTorch with CUDA

First the kernels' result on fresh random inputs is held against the reference in float64 (relative L2 at most
1e-5, in half 2e-3); then eager PyTorch, torch.compile and the kernels take turns. The floor is the time in
which the bytes that must move, two maps in and one out, are copied here. The prediction is made before
anything is timed: the kernels' own traffic, 11/3 of the floor, or 17/3 where columns do not fit into a block.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import median
from tempfile import mkdtemp
from typing import Any

import numpy as np

from sfiin.runtime.backends import machine
from sfiin.runtime.errors import SfiinError
from sfiin.runtime.files import publish

TILES, CHANNELS, BATCHES = (128, 256, 512), (8, 32), (1, 16, 64)
GATES = {"float32": 1e-5, "float16": 2e-3}


@dataclass(frozen=True)
class Case:
    """One size: a square tile's side, channels, and batch, in float32."""

    tile: int
    channels: int
    batch: int

    @property
    def floor_bytes(self) -> int:
        """What must move at least: both maps in, one out."""
        return 3 * 4 * self.batch * self.channels * self.tile**2

    def moved_bytes(self, limit: int) -> int:
        """What the kernels move, given a block's shared memory in bytes."""
        whole = 32 * self.channels * self.tile + 6 * self.channels * 32 * 4 <= limit
        return self.floor_bytes * (11 if whole else 17) // 3


def main() -> int:
    """Check, measure, print and write; 1 where it cannot or the kernels are wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/plugin.json"))
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args()
    try:
        device = machine.gpu()
        import torch
    except (SfiinError, ImportError) as error:
        print(f"nothing measured: {error}")
        return 1
    if not torch.cuda.is_available():
        print("nothing measured: this PyTorch sees no GPU")
        return 1
    errors = {kind: error_of(kind) for kind in GATES}
    print(json.dumps(errors), flush=True)
    rate = copy_rate()
    runs = []
    for case in (Case(t, c, b) for t in TILES for c in CHANNELS for b in BATCHES):
        runs.append(measured(case, rate, options.rounds))
        print(json.dumps(runs[-1]), flush=True)
    document = {
        "command": "python benchmarks/plugin.py",
        "device": asdict(device),
        "torch": torch.__version__,
        "bytes_per_second": rate,
        "relative_l2": errors,
        "runs": runs,
    }
    with publish(options.output) as part:
        part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(table(runs))
    return int(any(errors[kind] > gate for kind, gate in GATES.items()))


def branch(channels: int) -> Any:
    """A frequency branch with random weights, and its weights as the node takes them."""
    import torch

    from sfiin.model.network import FrequencyBranch

    torch.manual_seed(0)
    network = FrequencyBranch(channels).eval()
    layers = (
        network.ms,
        network.pan,
        network.amplitude[0],
        network.amplitude[2],
        network.phase[0],
        network.phase[2],
        network.out,
    )
    weights = [
        tensor for layer in layers for tensor in (layer.weight.detach().flatten(1), layer.bias.detach())
    ]
    return network, weights


def node_of(case: Case, kind: str) -> tuple[Callable[[], None], Any, list[Any]]:
    """The kernels as a call, what it writes, and its inputs."""
    import torch

    from sfiin.export.plugin import direct
    from sfiin.runtime.backends.cuda import open_cuda

    shape = (case.batch, case.channels, case.tile, case.tile)
    dtype = getattr(torch, kind)
    maps = [torch.randn(shape, device="cuda").to(dtype) for _ in range(2)]
    inputs = [*maps, *(tensor.cuda().to(dtype).contiguous() for tensor in branch(case.channels)[1])]
    out = torch.empty(shape, device="cuda", dtype=dtype)
    node = direct.SpectralFusion(library(), open_cuda(), shape)
    stream = torch.cuda.current_stream().cuda_stream
    return lambda: node(out, *inputs, stream=stream), out, inputs


def error_of(kind: str) -> float:
    """Relative L2 distance of the kernels from the reference in float64, on fresh random inputs."""
    import torch

    from sfiin.export import spectral_fusion

    call, out, inputs = node_of(Case(128, 8, 2), kind)
    call()
    torch.cuda.synchronize()
    expected = spectral_fusion.spectral_fusion(*(tensor.double().cpu().numpy() for tensor in inputs))
    return float(np.linalg.norm(out.double().cpu().numpy() - expected) / np.linalg.norm(expected))


def measured(case: Case, rate: float, rounds: int) -> dict[str, Any]:
    """Median milliseconds of each way, in turns; the prediction and the floor beside them."""
    import torch

    from sfiin.export.plugin import direct

    call, _, (m, p, *_weights) = node_of(case, "float32")
    network = branch(case.channels)[0].cuda()
    compiled = torch.compile(network)
    limit = direct.shared_memory(direct.opened(library()))[0]
    ways: dict[str, Callable[[], object]] = {
        "eager": lambda: network(m, p),
        "compile": lambda: compiled(m, p),
        "kernels": call,
    }
    with torch.inference_mode():
        times = turns(ways, rounds)
    floor = 1e3 * case.floor_bytes / rate
    return {
        **asdict(case),
        "floor_ms": floor,
        "predicted_ms": 1e3 * case.moved_bytes(limit) / rate,
        "ms": times,
    }


@cache
def library() -> Path:
    """The kernels, compiled for this GPU."""
    from sfiin.export.plugin import direct

    path = Path(mkdtemp(prefix="sfiin-plugin-")) / "libsfiin_spectral.so"
    direct.compiled(path)
    return path


def turns(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median milliseconds by way, after ten rounds of warm-up."""
    import torch

    taken: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(rounds + 10):
        for name, way in ways.items():
            torch.cuda.synchronize()
            start = time.perf_counter()
            way()
            torch.cuda.synchronize()
            if i >= 10:
                taken[name].append(1e3 * (time.perf_counter() - start))
    return {name: median(times) for name, times in taken.items()}


def copy_rate() -> float:
    """Bytes a second, read and written, of a copy far larger than the caches."""
    import torch

    source = torch.empty(1 << 28, device="cuda")
    target = torch.empty_like(source)
    times = turns({"copy": lambda: target.copy_(source)}, 20)
    return 2 * 4 * len(source) / (times["copy"] / 1e3)


def table(runs: Sequence[dict[str, Any]]) -> str:
    """The runs as Markdown."""
    lines = [
        "| tile | channels | batch | eager ms | compile | kernels | times the floor: predicted | measured |"
    ]
    lines.append("|---" * 8 + "|")
    for run in runs:
        eager, ms = run["ms"]["eager"], run["ms"]
        cells = [
            run["tile"],
            run["channels"],
            run["batch"],
            f"{eager:.3f}",
            f"{eager / ms['compile']:.2f}x",
            f"{eager / ms['kernels']:.2f}x",
            f"{run['predicted_ms'] / run['floor_ms']:.1f}",
            f"{ms['kernels'] / run['floor_ms']:.1f}",
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
