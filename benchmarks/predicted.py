"""How long should a tile take on a GPU that nobody here has? Bytes and operations, kernel by kernel.

    python benchmarks/predicted.py -o benchmarks/predicted.json       # needs no GPU; --table FILE prints one

Written down before anything is measured, so that the first measurement judges it. A kernel takes the longer
of its bytes over the memory's bandwidth and its operations over the arithmetic's rate, both as the vendor
states them, and no less than LAUNCH. What a compiler does is between two bounds: `single`, every layer of the
graph a kernel of its own; `fused`, pointwise layers join the kernel that made their input, where nobody else
reads that.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from sfiin.export.cost import macs_of, shapes_of
from sfiin.export.exporter import export_model
from sfiin.export.plugin import host
from sfiin.runtime.contract import Lowering, Tile
from sfiin.runtime.files import publish

CHECKPOINT = Path(__file__).parents[1] / "sfiin" / "checkpoints" / "sfiin-vhr4.safetensors"
LAUNCH = 2e-6
"""Seconds that a kernel takes at least inside a CUDA graph: an assumption, to be judged with the rest."""

POINTWISE = {
    *("Abs", "Add", "Atan", "Cast", "Clip", "Cos", "Div", "Equal", "Exp"),
    *("Greater", "LeakyRelu", "Less", "Max", "Min", "Mul", "Neg", "Not", "Reciprocal"),
    *("Sigmoid", "Sign", "Sin", "Sqrt", "Sub", "Where", "And", "Or", "Relu"),
}
FREE = {"Reshape", "Unsqueeze", "Squeeze", "Identity", "Constant", "Shape"}

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Gpu:
    """Operations (10^12 a second, FP32 outside the tensor cores: TF32 is off), bandwidth (10^9 bytes a
    second), shared memory of a block and of a multiprocessor (KiB)."""

    name: str
    fp32: float
    bandwidth: float
    block: int
    every: int


GPUS = (
    Gpu("Jetson AGX Orin 64GB", 5.3, 204.8, 163, 164),  # Technical Brief: 2048 CUDA cores at 1.3 GHz
    Gpu("GeForce RTX 4090", 82.6, 1008.0, 99, 100),  # NVIDIA Ada GPU Architecture, appendix A
)


@dataclass(frozen=True)
class Kernel:
    """What a kernel moves (bytes) and computes (operations, two for a multiply-add)."""

    kind: str
    moved: int
    operations: int

    def seconds(self, gpu: Gpu) -> float:
        """How long it takes."""
        return max(LAUNCH, self.moved / (gpu.bandwidth * 1e9), self.operations / (gpu.fp32 * 1e12))


def main() -> int:
    """Predict, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/predicted.json"))
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the table of a JSON file, and end")
    options = parser.parse_args()
    if options.table:
        print(table(json.loads(options.table.read_text(encoding="utf-8"))))
        return 0
    lowerings: tuple[Lowering, ...] = ("matmul", "plugin")
    rows = [
        row
        for side in (128, 256)
        for lowering in lowerings
        for row in predicted(exported(lowering, side), lowering, side)
    ]
    document = {
        "command": "python benchmarks/predicted.py",
        "checkpoint": CHECKPOINT.name,
        "precision": "fp32",
        "launch_seconds": LAUNCH,
        "gpus": [asdict(gpu) for gpu in GPUS],
        "rows": rows,
    }
    with publish(options.output) as part:
        part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(table(document))
    return 0


def exported(lowering: Lowering, side: int) -> onnx.ModelProto:
    """The shipped checkpoint's graph of a tile."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        export_model(CHECKPOINT, path, lowering, Tile(side, side, side // 4), opset=17)
        return with_shapes(onnx.load(path))


def with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with all shapes inferred; a node of the plugin gives what its first input is."""
    nodes = [node for node in model.graph.node if node.domain == "sfiin"]
    for _ in range(len(nodes) + 1):
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        known = {value.name: value for value in model.graph.value_info}
        for node in nodes:
            if node.input[0] in known and node.output[0] not in known:
                value = model.graph.value_info.add()
                value.CopyFrom(known[node.input[0]])
                value.name = node.output[0]
    return model


def predicted(model: onnx.ModelProto, lowering: str, side: int) -> Iterator[dict[str, object]]:
    """Milliseconds a tile by GPU and batch, and what the time goes to."""
    for gpu in GPUS:
        for batch in (1, 4, 16):
            shapes = shapes_of(model, batch)
            ways = {name: kernels(model, shapes, gpu, fused=name == "fused") for name in ("single", "fused")}
            ms = {name: 1e3 * sum(k.seconds(gpu) for k in found) / batch for name, found in ways.items()}
            idle = sum(LAUNCH for k in ways["fused"] if k.seconds(gpu) == LAUNCH)
            yield {
                "gpu": gpu.name,
                "lowering": lowering,
                "tile": side,
                "batch": batch,
                "kernels": {name: len(found) for name, found in ways.items()},
                "ms_a_tile": {name: round(value, 4) for name, value in ms.items()},
                "share_at_launch": round(1e3 * idle / batch / ms["fused"], 3),
                "share": shares(ways["fused"], gpu),
                "measured_ms_a_tile": None,
            }


def shares(found: list[Kernel], gpu: Gpu) -> dict[str, float]:
    """By kind of kernel, its part of the time; those under a hundredth are left out."""
    whole = sum(kernel.seconds(gpu) for kernel in found)
    parts: dict[str, float] = {}
    for kernel in found:
        parts[kernel.kind] = parts.get(kernel.kind, 0.0) + kernel.seconds(gpu) / whole
    return {
        kind: round(part, 3) for kind, part in sorted(parts.items(), key=lambda row: -row[1]) if part >= 0.01
    }


def kernels(model: onnx.ModelProto, shapes: Shapes, gpu: Gpu, *, fused: bool) -> list[Kernel]:
    """The graph as kernels."""
    found: list[Kernel] = []
    nodes = real_nodes(model)
    # By the names of the graph itself: a product's length is its input's after the reshape.
    macs = {node.output[0]: macs_of(node, shapes) for node in model.graph.node if node.output}
    for group in groups(nodes, fused=fused):
        if group[0].domain == "sfiin":
            found += plugin_kernels(shapes[group[0].input[0]], gpu)
            continue
        made = {name for node in group for name in node.output}
        read = {name for node in group for name in node.input if name} - made
        inside = {id(node) for node in group}
        others = {name for node in nodes if id(node) not in inside for name in node.input}
        kept = made & (others | {value.name for value in model.graph.output})
        moved = sum(4 * math.prod(shapes.get(name, ())) for name in (*read, *kept))
        arithmetic = sum(
            2 * macs[node.output[0]] or math.prod(shapes.get(node.output[0], ())) for node in group
        )
        found.append(Kernel(group[0].op_type, moved, arithmetic))
    return found


def real_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The graph's nodes without those that only give the same memory another name, whose readers read the
    first."""
    first: dict[str, str] = {}
    found = []
    for given in model.graph.node:
        if given.op_type in FREE:
            if given.input:
                first[given.output[0]] = first.get(given.input[0], given.input[0])
            continue
        node = onnx.NodeProto()
        node.CopyFrom(given)
        node.input[:] = [first.get(name, name) for name in given.input]
        found.append(node)
    return found


def groups(nodes: Sequence[onnx.NodeProto], *, fused: bool) -> list[list[onnx.NodeProto]]:
    """Nodes that make one kernel each, in the graph's order."""
    readers: dict[str, int] = {}
    for node in nodes:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    own: dict[str, list[onnx.NodeProto]] = {}
    found: list[list[onnx.NodeProto]] = []
    for node in nodes:
        joined = next((own[name] for name in node.input if name in own and readers[name] == 1), None)
        if fused and joined is not None and node.op_type in POINTWISE and joined[0].domain != "sfiin":
            joined.append(node)
        else:
            joined = [node]
            found.append(joined)
        own.update(dict.fromkeys(node.output, joined))
    return found


def plugin_kernels(shape: tuple[int, ...], gpu: Gpu) -> list[Kernel]:
    """The plugin's kernels, by its README's table of traffic, in float."""
    batch, channels, height, width = shape
    whole = host.columns(channels, height, gpu.block << 10, gpu.every << 10)[0] > 0
    maps = 4 * batch * channels * height * width
    bins = batch * height * (width // 2 + 1)
    networks = 2 * 2 * 3 * channels * channels * bins  # two networks of 2C and C inputs for each of C outputs
    fourier = int(2.5 * batch * channels * height * width * math.log2(height * width)) * 3 // 2
    traffic = [("RowsForward", 4, 2 * 2 * channels * maps // 4 + fourier // 2), ("Floors", 0, 0)]
    columns = [("Columns", 4, fourier // 3), ("Bins", 3, networks), ("Columns", 2, fourier // 6)]
    traffic += [("WholeColumns", 3, networks + fourier // 2)] if whole else columns
    traffic += [("RowsInverse", 2, fourier // 4), ("Out", 2, 2 * channels * maps // 4)]
    return [Kernel(f"plugin's {name}", count * maps, operations) for name, count, operations in traffic]


def table(document: Mapping[str, object]) -> str:
    """The rows as Markdown."""
    rows = document["rows"]
    assert isinstance(rows, list)
    lines = [
        "| GPU | tile | batch | lowering | kernels | predicted ms a tile | of it at launch | measured |",
        "|---" * 8 + "|",
    ]
    for row in rows:
        count, ms = row["kernels"], row["ms_a_tile"]
        measured = row["measured_ms_a_tile"] or "not yet"
        cells = (
            row["gpu"],
            row["tile"],
            row["batch"],
            row["lowering"],
            f"{count['fused']} to {count['single']}",
        )
        figures = (
            f"{ms['fused']:.2f} to {ms['single']:.2f}",
            f"{100 * row['share_at_launch']:.0f}%",
            measured,
        )
        lines.append("| " + " | ".join(map(str, (*cells, *figures))) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
