"""How fast is each way to run a network on this CPU, side by side in one process with the threads fixed?

    python benchmarks/cpu.py -o benchmarks/cpu.json
    python benchmarks/cpu.py --table benchmarks/cpu.json
    python benchmarks/cpu.py --profile                      # where the time goes in ONNX Runtime and natively

Every round runs all ways once, in turn; a figure is the median over rounds of a way's time, or of its ratio
to PyTorch eager in the same round, so that what else the machine does meets all alike. `cpu_ms` and
`cpu_speed` are of CPU time, all threads together, which a shared machine leaves alone; with one thread they
are what to go by. Warm-up is apart, and a pause before each run lets the threads of the way before it go to
sleep. With two threads the native kernels compute two tiles at once, and so does "two callers": PyTorch eager
in two threads of one each; their time is of two tiles, halved, and ratios are then to the two callers.
Networks are the paper's with either spatial branch and random weights, or shipped checkpoints (vhr4, wv8,
landsat). OpenVINO runs where it is installed.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from scipy import fft

from sfiin.data.sensors import SENSORS
from sfiin.export.cost import cost, total
from sfiin.export.graph import build_graph
from sfiin.export.targets import targets
from sfiin.model.checkpoint import load_sfiin
from sfiin.model.network import SFIIN, NetworkConfig
from sfiin.runtime.backends import native, native_steps, onnx_graph
from sfiin.runtime.backends.native import Program
from sfiin.runtime.backends.native_program import compile_graph
from sfiin.runtime.backends.session import session_options
from sfiin.runtime.files import publish

WAYS = (
    "eager",
    "two callers",
    "compile",
    "plain export",
    "dft",
    "matmul",
    "matmul for ort",
    "openvino",
    "native",
)
TITLES = (
    "PyTorch eager",
    "two eager callers",
    "torch.compile",
    "ONNX Runtime, plain export",
    "ONNX Runtime, `dft`",
    "ONNX Runtime, `matmul`",
    "the same, `--target ort`",
    "OpenVINO, `matmul`",
    "native kernels",
)

CHECKPOINTS = Path(__file__).parents[1] / "sfiin" / "checkpoints"
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
    parser.add_argument("--networks", nargs="+", default=["convolution", "invertible", "vhr4"])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--profile", action="store_true", help="print where the time of `matmul` goes")
    options = parser.parse_args()
    if options.profile:
        found = {f"native {tile}": native_profile(tile) for tile in options.tiles}
        print(json.dumps({"ort 128": profile()} | found, indent=1))
        return
    if options.table:
        print(table(json.loads(options.table.read_text())))
        return
    runs = [
        measure(name, tile, threads, options.rounds, options.ways)
        for name in options.networks
        for tile in options.tiles
        for threads in options.threads
    ]
    document = {
        "command": " ".join(["python benchmarks/cpu.py", *sys.argv[1:]]),
        "cpu": _cpu(),
        "versions": {name: version(name) for name in ("torch", "onnxruntime", "onnx", "numpy")},
        "native": native.instruction_set(),
        "python": platform.python_version(),
        "runs": runs,
    }
    with publish(options.output) as part:
        part.write_text(json.dumps(document, indent=1) + "\n")
    print(table(document))


def measure(name: Any, tile: int, threads: int, rounds: int, wanted: Sequence[str]) -> dict[str, Any]:
    """All ways on one network and tile: milliseconds, ratios to eager, and the machine's limits beside
    them."""
    torch.set_num_threads(threads)
    network = network_of(name, tile)
    model = build_graph(network, (tile, tile), "matmul", 17)
    random, config, top = np.random.default_rng(0), network.config, network.sensor.peak
    low = tile // config.ratio
    ms = random.uniform(0, top, (1, config.bands, low, low)).astype(np.float32)
    pan = random.uniform(0, top, (1, 1, tile, tile)).astype(np.float32)
    makers: dict[str, Callable[[], Callable[[], object]]] = {
        "eager": lambda: _torch(network, ms, pan),
        "two callers": lambda: _callers(network, threads, ms, pan),
        "compile": lambda: _torch(torch.compile(network), ms, pan),
        "plain export": lambda: _session(_plain_export(network, ms, pan), threads, ms, pan),
        "dft": lambda: _session(build_graph(network, (tile, tile), "dft", 20), threads, ms, pan),
        "matmul": lambda: _session(model, threads, ms, pan),
        "matmul for ort": lambda: _session(
            build_graph(network, (tile, tile), "matmul", 17, BLOCK), threads, ms, pan, BLOCK
        ),
        "openvino": lambda: _openvino(model, threads, ms, pan),
        "native": lambda: _native(model, threads, ms, pan),
    }
    left_out = {"two callers"} if threads == 1 else set()
    if find_spec("openvino") is None:
        left_out.add("openvino")
    ways = {way: make() for way, make in makers.items() if way in wanted and way not in left_out}
    times = _interleaved(ways, rounds)
    spent = total(cost(model))
    base = "two callers" if "two callers" in ways else "eager"
    found: dict[str, Any] = {
        "network": name,
        "tile": tile,
        "threads": threads,
        "rounds": rounds,
        "base": base,
    }
    for kind, prefix in ((0, ""), (1, "cpu_")):
        taken = {way: [one[kind] / _tiles(way, threads) for one in all_] for way, all_ in times.items()}
        found[f"{prefix}ms"] = {way: round(1e3 * median(one), 2) for way, one in taken.items()}
        found[f"{prefix}speed"] = {
            way: round(median(a / b for a, b in zip(taken[base], one, strict=True)), 3)
            for way, one in taken.items()
        }
    found["matmul_macs"], found["matmul_bytes"] = spent.macs, spent.moved
    found["gflops"], found["gigabytes_per_second"] = round(_gemm_rate(), 1), round(_copy_rate(), 1)
    print(json.dumps(found), flush=True)
    return found


def network_of(name: Any, tile: int) -> SFIIN:
    """A shipped checkpoint's network by its name, or a spatial branch's with random weights."""
    if name in ("vhr4", "wv8", "landsat"):
        return load_sfiin(CHECKPOINTS / f"sfiin-{name}.safetensors", (tile, tile)).eval()
    torch.manual_seed(0)
    return SFIIN(NetworkConfig(spatial=name), SENSORS["vhr4"].profile).eval()


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


def native_profile(tile: int, rounds: int = 30) -> dict[str, float]:
    """Milliseconds of CPU time a tile by kind of step: the median of programs of one kind of step each."""
    model = build_graph(network_of("convolution", tile), (tile, tile), "matmul", 17)
    program = compile_graph(onnx_graph.parse(model.SerializeToString()))
    kinds: dict[str, list[native_steps.Step]] = {"whole": program.steps}
    for step in program.steps:
        name = type(step).__name__
        if isinstance(step, native_steps.Convolution):
            name = "x".join(map(str, step.weight.shape[2:])) + " convolutions"
        kinds.setdefault(name, []).append(step)
    ms, pan = np.ones((1, 4, tile // 4, tile // 4), np.float32), np.ones((1, 1, tile, tile), np.float32)
    hrms = np.empty((1, 4, tile, tile), np.float32)
    found = {}
    for name, steps in kinds.items():
        code, constants = native_steps.encode(native_steps.Program(steps, program.planes, program.buffers))
        runnable = Program(code, constants, (ms.size, pan.size, hrms.size))
        taken = []
        for _ in range(rounds):
            used = time.thread_time()
            runnable.run(ms, pan, hrms)
            taken.append(time.thread_time() - used)
        runnable.close()
        found[name] = round(1e3 * median(taken), 2)
    return found | {"the transforms alone, by pocketfft": pocketfft(tile, 5)}


def pocketfft(tile: int, branches: int, rounds: int = 30) -> float:
    """Milliseconds of CPU time of the transforms in so many frequency branches of 8 channels, by SciPy."""
    maps = np.random.default_rng(0).normal(size=(16, tile, tile)).astype(np.float32)
    spectra = fft.rfft2(maps)[:8].copy()
    taken = []
    for _ in range(rounds):
        used = time.thread_time()
        fft.rfft2(maps, workers=1)
        fft.irfft2(spectra, workers=1)
        taken.append(time.thread_time() - used)
    return round(1e3 * branches * median(taken), 2)


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
    return threads if way in ("native", "two callers") else 1


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


def _callers(network: Callable[..., Any], threads: int, ms: Any, pan: Any) -> Callable[[], object]:
    """So many threads, each of which calls PyTorch with one thread of its own."""
    inputs = torch.from_numpy(ms), torch.from_numpy(pan)
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))

    def call(_: int) -> object:
        with torch.inference_mode():
            return network(*inputs)

    def run() -> object:
        try:
            return list(pool.map(call, range(threads)))
        finally:
            torch.set_num_threads(threads)

    return run


def _openvino(model: onnx.ModelProto, threads: int, ms: Any, pan: Any) -> Callable[[], object]:
    import openvino

    core = openvino.Core()
    network = core.read_model(BytesIO(model.SerializeToString()))
    network.reshape({"ms": list(ms.shape), "pan": list(pan.shape)})
    settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(network, "CPU", settings).create_infer_request()
    return lambda: request.infer({"ms": ms, "pan": pan})


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
    thread, and for more where they are held against as many callers; else by wall-clock time."""
    titles = dict(zip(WAYS, TITLES, strict=True))
    ways = [name for name in WAYS[2:] if any(name in run["ms"] for run in document["runs"])]
    names = " | ".join(titles[name] for name in ways)
    rows = [f"| network | tile | threads | eager ms | {names} |"]
    rows.append("|---" * (len(ways) + 4) + "|")
    for run in document["runs"]:
        base = run.get("base", "eager")
        kind = "cpu_" if (run["threads"] == 1 or base == "two callers") and "cpu_ms" in run else ""
        cells = [
            run.get("network", run.get("branch")),
            run["tile"],
            run["threads"],
            f"{run[kind + 'ms'][base]:.0f}",
        ]
        speeds = run[kind + "speed"]
        cells += [f"{speeds[name]:.2f}x" if name in speeds else "" for name in ways]
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(rows)


def _cpu() -> str:
    text = Path("/proc/cpuinfo").read_text()
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line]
    vectors = next((name for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in text), "SSE")
    return f"{names[0]}, {len(names)} cores, {vectors}"


if __name__ == "__main__":
    main()
