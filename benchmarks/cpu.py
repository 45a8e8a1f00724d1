"""How fast is each way to run a network on this CPU, side by side in one process with the threads fixed?

    python benchmarks/cpu.py -o benchmarks/cpu.json
    python benchmarks/cpu.py --table benchmarks/cpu.json
    python benchmarks/cpu.py --profile                      # where its time goes for `--target ort`, one thread

Every round runs all ways once, in turn; a figure is the median over rounds of a way's time, or of its ratio
to PyTorch eager in the same round, so that what else the machine does meets all alike. `cpu_ms` and
`cpu_speed` are of CPU time, all threads together, which a shared machine leaves alone; with one thread they
are what to go by. Warm-up is apart, and a pause before each run lets the threads of the way before it go to
sleep. With two threads the native kernels compute two tiles at once, so their time is of two tiles, halved.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch

from sfiin.data.sensors import SENSORS
from sfiin.export.cost import cost, total
from sfiin.export.graph import build_graph
from sfiin.export.targets import targets
from sfiin.model.network import SFIIN, NetworkConfig
from sfiin.runtime.backends import native, native_steps, onnx_graph
from sfiin.runtime.backends.native import Program
from sfiin.runtime.backends.native_program import compile_graph
from sfiin.runtime.backends.session import session_options
from sfiin.runtime.files import publish

WAYS = ("eager", "compile", "plain export", "dft", "matmul", "matmul for ort", "native")
TITLES = (
    "PyTorch eager",
    "torch.compile",
    "ONNX Runtime, plain export",
    "ONNX Runtime, `dft`",
    "ONNX Runtime, `matmul`",
    "the same, `--target ort`",
    "native kernels",
)

BLOCK = targets()["ort"].block

_PAUSE = 0.05
"""Seconds before each run, in which the threads of the way before it stop waiting actively."""


def main() -> None:
    """Measure and write JSON, or print the table of a JSON file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/cpu.json"))
    parser.add_argument("--table", type=Path, help="print the Markdown table of a file and measure nothing")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tiles", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--branches", nargs="+", default=["convolution", "invertible"])
    parser.add_argument("--profile", action="store_true", help="print where the time of `matmul` goes")
    options = parser.parse_args()
    if options.profile:
        print(json.dumps(profile(), indent=1))
        return
    if options.table:
        print(table(json.loads(options.table.read_text())))
        return
    runs = [
        measure(branch, tile, threads, options.rounds)
        for branch in options.branches
        for tile in options.tiles
        for threads in options.threads
    ]
    document = {
        "command": f"python benchmarks/cpu.py --rounds {options.rounds}",
        "cpu": _cpu(),
        "versions": {name: version(name) for name in ("torch", "onnxruntime", "onnx", "numpy")},
        "native": native.instruction_set(),
        "python": platform.python_version(),
        "runs": runs,
    }
    with publish(options.output) as part:
        part.write_text(json.dumps(document, indent=1) + "\n")
    print(table(document))


def measure(branch: Any, tile: int, threads: int, rounds: int) -> dict[str, Any]:
    """All ways on one network and tile: milliseconds, ratios to eager, and the machine's limits beside
    them."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    network = SFIIN(NetworkConfig(spatial=branch), SENSORS["vhr4"].profile).eval()
    model = build_graph(network, (tile, tile), "matmul", 17)
    random = np.random.default_rng(0)
    ms = random.uniform(0, 2047, (1, 4, tile // 4, tile // 4)).astype(np.float32)
    pan = random.uniform(0, 2047, (1, 1, tile, tile)).astype(np.float32)
    ways = {
        "eager": _torch(network, ms, pan),
        "compile": _torch(torch.compile(network), ms, pan),
        "plain export": _session(_plain_export(network, ms, pan), threads, ms, pan),
        "dft": _session(build_graph(network, (tile, tile), "dft", 20), threads, ms, pan),
        "matmul": _session(model, threads, ms, pan),
        "matmul for ort": _session(
            build_graph(network, (tile, tile), "matmul", 17, BLOCK), threads, ms, pan, BLOCK
        ),
    }
    ways["native"] = _native(model, threads, ms, pan)
    times = _interleaved(ways, rounds)
    spent = total(cost(model))
    found: dict[str, Any] = {"branch": branch, "tile": tile, "threads": threads, "rounds": rounds}
    for kind, prefix in ((0, ""), (1, "cpu_")):
        taken = {name: [one[kind] / _tiles(name, threads) for one in all_] for name, all_ in times.items()}
        found[f"{prefix}ms"] = {name: round(1e3 * median(one), 2) for name, one in taken.items()}
        found[f"{prefix}speed"] = {
            name: round(median(a / b for a, b in zip(taken["eager"], one, strict=True)), 3)
            for name, one in taken.items()
        }
    found["matmul_macs"], found["matmul_bytes"] = spent.macs, spent.moved
    found["gflops"], found["gigabytes_per_second"] = round(_gemm_rate(), 1), round(_copy_rate(), 1)
    print(json.dumps(found), flush=True)
    return found


KINDS = {
    "Conv": "convolutions",
    "FusedConv": "convolutions",
    "MatMul": "matrix products",
    "ReorderInput": "reordering",
    "ReorderOutput": "reordering",
    "Concat": "joining and splitting",
    "Split": "joining and splitting",
    "Transpose": "reordering",
}


def profile(tile: int = 128, rounds: int = 30) -> dict[str, float]:
    """Milliseconds a tile by kind of operator: the sum of each node's median, from ONNX Runtime's
    profiler."""
    torch.manual_seed(0)
    network = SFIIN(NetworkConfig(), SENSORS["vhr4"].profile).eval()
    options = session_options(ort, 1, BLOCK)
    options.enable_profiling = True
    model = build_graph(network, (tile, tile), "matmul", 17, BLOCK)
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    feeds = {"ms": random.uniform(0, 2047, (1, 4, tile // 4, tile // 4)).astype(np.float32)}
    feeds["pan"] = random.uniform(0, 2047, (1, 1, tile, tile)).astype(np.float32)
    for _ in range(rounds):
        session.run(None, feeds)
    path = Path(session.end_profiling())
    taken: dict[tuple[str, str], list[float]] = {}
    for event in json.loads(path.read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("kernel_time"):
            taken.setdefault((event["name"], event["args"]["op_name"]), []).append(event["dur"] / 1e3)
    path.unlink()
    found: dict[str, float] = {}
    for (_, operator), times in taken.items():
        kind = KINDS.get(operator, "pointwise operators and means")
        found[kind] = found.get(kind, 0.0) + median(times)
    return {kind: round(value, 1) for kind, value in sorted(found.items())}


def _interleaved(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Wall-clock and CPU seconds of every run."""
    for _ in range(3):
        for way in ways.values():
            way()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            time.sleep(_PAUSE)
            start, used = time.perf_counter(), time.process_time()
            way()
            times[name].append((time.perf_counter() - start, time.process_time() - used))
    return times


def _tiles(way: str, threads: int) -> int:
    """How many tiles one run of a way computes."""
    return threads if way == "native" else 1


def _native(model: onnx.ModelProto, threads: int, ms: Any, pan: Any) -> Callable[[], object]:
    code, constants = native_steps.encode(compile_graph(onnx_graph.parse(model.SerializeToString())))
    hrms = [np.empty((1, ms.shape[1], *pan.shape[2:]), np.float32) for _ in range(threads)]
    programs = [Program(code, constants, (ms.size, pan.size, hrms[0].size)) for _ in range(threads)]
    pool = ThreadPoolExecutor(threads)

    def run() -> object:
        if threads == 1:
            return programs[0].run(ms, pan, hrms[0])
        return list(pool.map(lambda program, to: program.run(ms, pan, to), programs, hrms))

    return run


def _torch(network: Callable[..., Any], ms: Any, pan: Any) -> Callable[[], object]:
    inputs = torch.from_numpy(ms), torch.from_numpy(pan)

    def run() -> object:
        with torch.inference_mode():
            return network(*inputs)

    return run


def _session(model: onnx.ModelProto, threads: int, ms: Any, pan: Any, block: int = 1) -> Callable[[], object]:
    session = ort.InferenceSession(
        model.SerializeToString(), session_options(ort, threads, block), providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_inputs()]
    feeds = dict(zip(names, (ms, pan), strict=True))
    return lambda: session.run(None, feeds)


def _plain_export(network: SFIIN, ms: Any, pan: Any) -> onnx.ModelProto:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (torch.from_numpy(ms), torch.from_numpy(pan)),
            dynamo=True,
            opset_version=20,
            verbose=False,
        )
    assert program is not None
    buffer = BytesIO()
    program.save(buffer)
    return onnx.load_from_string(buffer.getvalue())


def _gemm_rate() -> float:
    """GFLOP/s of a square float32 product that fits the caches well enough."""
    a, b = torch.rand(1536, 1536), torch.rand(1536, 1536)
    return 2 * 1536**3 / _best(lambda: a @ b) / 1e9


def _copy_rate() -> float:
    """GB/s read and written by a copy far larger than the caches."""
    a = torch.rand(32 << 20)
    b = torch.empty_like(a)
    return 2 * 4 * len(a) / _best(lambda: b.copy_(a)) / 1e9


def _best(work: Callable[[], object], tries: int = 7) -> float:
    taken = []
    for _ in range(tries):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def table(document: dict[str, Any]) -> str:
    """The Markdown table of the measurements: how many times as fast as PyTorch eager, by CPU time for one
    thread, by wall-clock time for more."""
    titles = dict(zip(WAYS, TITLES, strict=True))
    ways = [name for name in WAYS[1:] if name in document["runs"][0]["ms"]]
    names = " | ".join(titles[name] for name in ways)
    rows = [f"| spatial branch | tile | threads | eager ms | {names} | share of GEMM rate |"]
    rows.append("|---" * (len(ways) + 5) + "|")
    for run in document["runs"]:
        share = 2 * run["matmul_macs"] / (run["ms"]["matmul for ort"] * 1e6) / run["gflops"]
        kind = "cpu_" if run["threads"] == 1 and "cpu_ms" in run else ""
        cells = [run["branch"], run["tile"], run["threads"], f"{run[kind + 'ms']['eager']:.0f}"]
        cells += [f"{run[kind + 'speed'][name]:.2f}x" for name in ways] + [f"{100 * share:.0f} %"]
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(rows)


def _cpu() -> str:
    text = Path("/proc/cpuinfo").read_text()
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line]
    vectors = next((name for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in text), "SSE")
    return f"{names[0]}, {len(names)} cores, {vectors}"


if __name__ == "__main__":
    main()
