"""Will INT8 pay on a device? An estimate before any work, layer by layer, with its reasons.

A layer takes the longer of its arithmetic and its memory: multiply-adds at the device's dense rate, bytes at
its bandwidth, each layer by itself. What INT8 can lose by:

- Tensor cores take channels in whole packs. TensorRT keeps INT8 in packs of 32 channels (CHW32) and FP16 in
  packs of 8 (HWC8) (TensorRT Developer Guide, "I/O Formats"; "Optimizing for Tensor Cores"), so a map of 8
  channels has the bytes of 32 in INT8: twice those of FP16.
- An activation that no INT8 convolution made is rounded by a layer of its own, which reads and writes it once
  more.
- A layer bound by memory gains no more than its bytes shrink.

It is an upper bound for both precisions: launches, caches and fusion of what is not a convolution are left
out. It has not been held against a GPU yet.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from sfiin.calibration.quantize import Candidate
from sfiin.export.precision_rules import Graph
from sfiin.runtime.toml import parse

PAYS = 1.1
"""From which gain of the whole network on INT8 is worth its loss."""

PACK = {"int8": 32, "fp16": 8}
_BYTES = {"int8": 1, "fp16": 2}
_FUSED = ("LeakyRelu", "Relu")
"""What TensorRT computes inside the convolution before it."""


@dataclass(frozen=True)
class Device:
    """Dense rates in 10^12 operations a second, bandwidth in 10^9 bytes a second, and where they are
    published."""

    title: str
    int8: float
    fp16: float
    bandwidth: float
    source: str


@dataclass(frozen=True)
class Layer:
    """A convolution that may become INT8: estimated microseconds a tile in both precisions, and what speaks
    against it.

    `reformat` is the part of `int8` that rounding its activation takes; `bound` tells what it waits for in
    INT8.
    """

    node: str
    fp16: float
    int8: float
    reformat: float
    bound: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Advice:
    """`gain`: how many times as fast as in FP16 the whole network would be, with its `rest`
    (microseconds)."""

    device: Device
    gain: float
    rest: float
    layers: tuple[Layer, ...]

    @property
    def pays(self) -> bool:
        """Whether INT8 is recommended."""
        return self.gain >= PAYS

    @property
    def reasons(self) -> list[str]:
        """Why, most common first, with the number of layers."""
        found = Counter(reason for layer in self.layers for reason in layer.reasons)
        return [f"{reason} ({count} of {len(self.layers)} layers)" for reason, count in found.most_common()]

    def summary(self) -> str:
        """One line."""
        what = "INT8 should pay" if self.pays else "FP16 is recommended"
        estimate = f"an estimated {self.gain:.2f}x of FP16's speed, from {PAYS:g}x on it pays"
        return f"{self.device.title}: {what}: {estimate}"


@cache
def devices() -> Mapping[str, Device]:
    """The known devices by name."""
    text = files("sfiin.calibration").joinpath("devices.toml").read_text("utf-8")
    return {name: Device(**fields) for name, fields in parse(text).items()}


def advise(graph: Graph, candidates: Sequence[Candidate], device: Device) -> Advice:
    """What INT8 would do for a float32 graph whose `candidates` become it and whose other layers are FP16."""
    chosen = {candidate.node for candidate in candidates}
    layers = []
    rest = 0.0
    for node in graph.nodes:
        if node.name in chosen:
            layers.append(_layer(graph, node.name, chosen, device))
        elif node.op_type not in _FUSED:
            rest += _microseconds(graph.macs(node), _moved(graph, node.name, "fp16", 1), "fp16", device)[0]
    whole = rest + sum(layer.fp16 for layer in layers)
    return Advice(device, whole / max(rest + sum(layer.int8 for layer in layers), 1e-12), rest, tuple(layers))


def _layer(graph: Graph, name: str, chosen: Collection[str], device: Device) -> Layer:
    node = next(node for node in graph.nodes if node.name == name)
    outputs, inputs = graph.weights[node.input[1]].shape[:2]
    times, reasons = {}, []
    for kind in ("fp16", "int8"):
        padded = math.prod(_packed(side, kind) / side for side in (inputs, outputs))
        times[kind], bound = _microseconds(
            graph.macs(node) * padded, _moved(graph, name, kind, PACK[kind]), kind, device
        )
    reformat = 0.0 if _made_in_int8(graph, node.input[0], chosen) else _reformat(graph, node.input[0], device)
    if inputs % PACK["int8"] or outputs % PACK["int8"]:
        reasons.append(f"channels fill no packs of {PACK['int8']}")
    if reformat:
        reasons.append("its activation needs a layer of its own to be rounded")
    if bound == "memory":
        reasons.append("bound by memory, also in INT8")
    return Layer(name, times["fp16"], times["int8"] + reformat, reformat, bound, tuple(reasons))


def _microseconds(macs: float, moved: float, kind: str, device: Device) -> tuple[float, str]:
    """Time, and what it goes by."""
    arithmetic = 2 * macs / (getattr(device, kind) * 1e6)
    memory = moved / (device.bandwidth * 1e3)
    return max(arithmetic, memory), "arithmetic" if arithmetic > memory else "memory"


def _moved(graph: Graph, name: str, kind: str, pack: int) -> float:
    """Bytes of a layer's inputs and outputs, channels in packs; weights, which stay in caches, are left
    out."""
    node = next(node for node in graph.nodes if node.name == name)
    return sum(
        _bytes(graph, value, kind, pack) for value in (*node.input, *node.output) if value in graph.values
    )


def _bytes(graph: Graph, value: str, kind: str, pack: int) -> float:
    shape = [side or 1 for side in graph.values[value].shape or ()]
    if len(shape) >= 4:
        shape[1] = -(-shape[1] // pack) * pack
    return _BYTES[kind] * math.prod(shape)


def _reformat(graph: Graph, value: str, device: Device) -> float:
    moved = _bytes(graph, value, "fp16", PACK["fp16"]) + _bytes(graph, value, "int8", PACK["int8"])
    return moved / (device.bandwidth * 1e3)


def _made_in_int8(graph: Graph, value: str, chosen: Collection[str]) -> bool:
    """Whether a quantised convolution makes the value, but for what is fused into it."""
    node = graph.maker.get(value)
    while node is not None and node.op_type in _FUSED:
        node = graph.maker.get(node.input[0])
    return node is not None and node.name in chosen


def _packed(channels: int, kind: str) -> int:
    return -(-channels // PACK[kind]) * PACK[kind]
