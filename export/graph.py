"""How does SFIIN look as an ONNX graph? `sfiin.model.network`, part by part, in standard operators.

What the network computes anew each time although it is constant is computed here once, in float64: the scale
between DN and network units is folded into the first and the last convolutions, the invertible mixing into
one 1x1 convolution, the bicubic resampling into a grouped convolution and a depth-to-space.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from itertools import zip_longest
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import Tensor, nn

from sfiin.export import spectral_fusion
from sfiin.export.fourier import LOWERINGS, Fourier, amplitude_and_phase, maps_from
from sfiin.export.graph_builder import GraphBuilder
from sfiin.export.local_graph import SCOPE, LocalGraph
from sfiin.model.network import (
    SFIIN,
    ConvolutionBranch,
    CoreBlock,
    DenseBlock,
    FrequencyBranch,
    InvertibleBranch,
    Refinement,
    ResidualPair,
)
from sfiin.model.resample import AlignedUpsample, Upsample
from sfiin.runtime.contract import Lowering

Array = NDArray[np.float64]
Domain = Literal["tile", "bins", "pooled"]


def build_graph(
    network: SFIIN, tile: tuple[int, int], lowering: Lowering, opset: int, block: int = 1
) -> onnx.ModelProto:
    """The network for tiles of (height, width) PAN pixels, with a free batch dimension.

    Inputs `ms` (batch, B, h, w) and `pan` (batch, 1, H, W), output `hrms` (batch, B, H, W): float32, DN.
    `block` above 1 arranges the convolutions for a runtime that computes so many output channels at once
    (`Contract.block`).
    """
    (height, width), config = tile, network.config
    if lowering == "plugin":
        spectral_fusion.register()
    fourier = None if lowering == "plugin" else LOWERINGS[lowering](height, width)
    emitter = _Emitter(network, GraphBuilder(opset), fourier, tile, block)
    ratio, bands = config.ratio, config.bands
    return emitter.graph.model(
        {"ms": ("batch", bands, height // ratio, width // ratio), "pan": ("batch", 1, height, width)},
        ("hrms", emitter.network(network), ("batch", bands, height, width)),
        f"SFIIN, {bands} bands, ratio {ratio}, tile {height} x {width}, Fourier transform by {lowering}",
    )


class _Emitter:
    """Adds the parts of one network to one graph; each method mirrors a `forward` of `sfiin.model.network`.

    Without a Fourier lowering, a frequency branch is one node of sfiin's plugin.
    """

    def __init__(
        self, network: SFIIN, graph: GraphBuilder, fourier: Fourier | None, tile: tuple[int, int], block: int
    ) -> None:
        self.graph, self.op, self.fourier, self.tile, self.at_once = graph, graph.op, fourier, tile, block
        self._names = {id(module): name for name, module in network.named_modules()}

    def network(self, net: SFIIN) -> str:
        scale = net.sensor.scale
        if net.config.is_plain:
            ms_up = self.upsample(net.upsample, "ms")
            residual = self.core(net, ms_up, "pan", gain_in=1 / scale, gain_out=scale)
            return self.op("Add", residual, ms_up)
        local = LocalGraph(net.injection, self.graph, self.tile)
        with self.graph.scope(SCOPE):
            ends = local.look("ms", "pan", scale)
        result = self.core(net, ends.ms, ends.pan)
        with self.graph.scope(SCOPE):
            return local.joined(ends, result, scale)

    def core(self, net: SFIIN, ms: str, pan: str, gain_in: float = 1.0, gain_out: float = 1.0) -> str:
        """All between the heads' inputs and what the refinement makes; gains are on both ends."""
        m = self.conv(net.ms_head, ms, gain_in=gain_in)
        p = self.conv(net.pan_head, pan, gain_in=gain_in)
        fused = []
        for i, block in enumerate(net.blocks):
            with self.graph.scope(f"block{i}"):
                assert isinstance(block, CoreBlock)
                m, p = self.block(block, m, p)
                fused.append(m)
        gathered = self.op("Concat", *fused, axis=1) if len(fused) > 1 else m
        return self.refinement(net.refine, self.conv(net.gather, gathered), gain_out=gain_out)

    def upsample(self, part: nn.Module, x: str) -> str:
        """MS on the PAN grid: by a convolution to phases, or, with aligned corners, by a matrix for each
        side."""
        with self.graph.scope("upsample"):
            if isinstance(part, AlignedUpsample):
                rows, columns = (_array(part.matrix(side // part.ratio)) for side in self.tile)
                tall = self.op("MatMul", self.graph.constant("upsample.rows", rows), x)
                return self.op("MatMul", tall, self.graph.constant("upsample.columns", columns.T))
            assert isinstance(part, Upsample)
            padded = self.op("Pad", x, self.graph.integers((0, 0, 2, 2, 0, 0, 2, 2)), mode="edge")
            weight = self.graph.constant("upsample.weight", _array(part.weight))
            phases = self.op("Conv", padded, weight, group=part.bands, kernel_shape=(5, 5))
            return self.op("DepthToSpace", phases, blocksize=part.ratio, mode="CRD")

    def block(self, part: CoreBlock, m: str, p: str) -> tuple[str, str]:
        op = self.op
        p_next = self.conv(part.pan, p)
        p = self.conv(part.project, p_next)
        f = self.frequency(part.frequency, m, p)
        with self.graph.scope("spatial"):
            s = _SPATIAL[type(part.spatial)](self, part.spatial, m, p)
        with self.graph.scope("compensation"):
            gate = op("Sigmoid", self.layers(part.compensation, op("Sub", s, f)))
            r = op("Add", op("Mul", f, gate), s)
        with self.graph.scope("integration"):
            both = op("Concat", r, f, axis=1)
            weights = op("Sigmoid", self.layers(part.attention, self.statistics(both), "pooled"))
            merged = op("Add", self.conv(part.merge, op("Mul", both, weights)), m)
        return merged, p_next

    def frequency(self, part: FrequencyBranch, m: str, p: str) -> str:
        """The branch in orthonormal units: what is 1 / sqrt(H W) of the unnormalised spectrum overflows in no
        type.

        All layers are homogeneous but for the amplitude's biases, so the gain goes into the convolutions
        around it.
        """
        gain = 1 / math.sqrt(math.prod(self.tile))
        with self.graph.scope("frequency"):
            if self.fourier is None:
                return self.spectral_fusion(part, m, p, gain)
            both = self.op(
                "Concat",
                *(self.conv(conv, x, gain_out=gain) for conv, x in ((part.ms, m), (part.pan, p))),
                axis=1,
            )
            amplitude, phase = amplitude_and_phase(self.graph, both, self.fourier, self.tile)
            amplitude = self.layers(part.amplitude, amplitude, "bins", unit=gain)
            phase = self.layers(part.phase, phase, "bins")
            maps = maps_from(self.graph, amplitude, phase, self.fourier)
            return self.conv(part.out, self.op("Abs", maps), gain_in=1 / gain)

    def spectral_fusion(self, part: FrequencyBranch, m: str, p: str, gain: float) -> str:
        """The branch as one node, whose transform is orthonormal by itself; the weights are its inputs."""
        pairs: dict[str, nn.Module] = {"ms": part.ms, "pan": part.pan, "out": part.out}
        for name, layers in (("amplitude", part.amplitude), ("phase", part.phase)):
            pairs |= {f"{name}_first": layers[0], f"{name}_second": layers[2]}
        weights = []
        for name in spectral_fusion.WEIGHTS:
            layer, kind = name.rsplit("_", 1)
            array = _array(pairs[layer].get_parameter(kind))
            if kind == "weight":
                array = array[:, :, 0, 0]
            elif layer.startswith("amplitude"):
                array = array * gain
            weights.append(self.graph.constant(f"{self._names[id(pairs[layer])]}.{kind}", array))
        attributes: dict[str, Any] = {"domain": spectral_fusion.DOMAIN, **spectral_fusion.ATTRIBUTES}
        return self.op(spectral_fusion.NAME, m, p, *weights, **attributes)  # type: ignore[no-any-return]

    def statistics(self, x: str) -> str:
        """Spatial standard deviation plus mean, (N, C, 1, 1)."""
        mean = self.graph.mean(x)
        centred = self.op("Sub", x, mean)
        variance = self.graph.mean(self.op("Mul", centred, centred))
        return self.op("Add", self.op("Sqrt", self.op("Max", variance, self.graph.scalar(1e-12))), mean)

    def convolution_branch(self, part: ConvolutionBranch, m: str, p: str) -> str:
        return self.layers(part.fuse, self.op("Concat", m, p, axis=1))

    def invertible_branch(self, part: InvertibleBranch, m: str, p: str) -> str:
        op = self.op
        folded = _array(copy.deepcopy(part.mix).double().matrix())[:, :, None, None]
        matrix = self.graph.constant(f"{self._names[id(part)]}.mix", folded)
        mixed = op("Conv", op("Concat", m, p, axis=1), matrix)
        half = len(part.mix.sign) // 2
        first, second = op("Split", mixed, self.graph.integers((half, half)), axis=1, outputs=2)
        first = op("Add", first, self.dense(part.shift_first, second))
        log_scale = op("Tanh", op("Mul", self.dense(part.scale_second, first), self.graph.scalar(0.5)))
        scale = op("Exp", op("Mul", log_scale, self.graph.scalar(part.CLAMP)))
        second = op("Add", op("Mul", second, scale), self.dense(part.shift_second, first))
        return self.conv(part.out, op("Concat", first, second, axis=1))

    def dense(self, part: DenseBlock, x: str) -> str:
        first = self.op("LeakyRelu", self.residual_pair(part.first, x), alpha=0.2)
        second = self.op("LeakyRelu", self.residual_pair(part.second, first), alpha=0.2)
        return self.conv(part.out, self.op("Concat", x, first, second, axis=1), slope=0.2)

    def residual_pair(self, part: ResidualPair, x: str) -> str:
        deep = self.conv(part.second, self.conv(part.first, x, slope=0.1), slope=0.1)
        return self.op("Add", deep, self.conv(part.shortcut, x))

    def refinement(self, part: Refinement, x: str, gain_out: float) -> str:
        with self.graph.scope("refine"):
            x = self.conv(part.head, x)
            pooled = self.graph.mean(self.layers(part.process, x))
            attention = self.layers(part.attention, pooled, "pooled")
            x = self.op("Add", self.op("Mul", attention, pooled), x)
            return self.conv(part.tail, x, gain_out=gain_out)

    def layers(self, part: nn.Module, x: str, domain: Domain = "tile", unit: float = 1.0) -> str:
        """Layers in turn; with x in other units, the biases are in those units, too."""
        for layer, follower in zip_longest(*(tuple(part.children())[i:] for i in (0, 1))):
            if isinstance(layer, nn.Conv2d):
                slope = follower.negative_slope if isinstance(follower, nn.LeakyReLU) else None
                x = self.conv(layer, x, gain_in=1 / unit, gain_out=unit, domain=domain, slope=slope)
            elif not isinstance(layer, nn.LeakyReLU):  # which its convolution has taken along
                x = self.op({nn.ReLU: "Relu", nn.Sigmoid: "Sigmoid"}[type(layer)], x)
        return x

    def conv(
        self,
        part: nn.Conv2d,
        x: str,
        *,
        gain_in: float = 1.0,
        gain_out: float = 1.0,
        domain: Domain = "tile",
        slope: float | None = None,
    ) -> str:
        """A convolution that keeps the size, and a leaky rectifier of that slope, if any.

        Gains on its input and output go into weight and bias. Where no pixel has a neighbour, any order will
        do: bins are (N, C, P), and with blocks pixels become so, because a block of a 1x1 convolution costs
        more than it saves.
        """
        name = self._names[id(part)]
        assert part.bias is not None
        weight, bias = _array(part.weight) * (gain_in * gain_out), _array(part.bias) * gain_out
        (out, _, *kernel), shape = weight.shape, self.graph.integers
        if domain == "bins":
            return self._activated(name, x, weight[..., 0], bias, slope, kernel_shape=(1,), pads=(0, 0))
        if kernel == [1, 1] and domain == "tile" and self.at_once > 1:
            pixels = self.op("Reshape", x, shape((0, 0, -1)))
            pixels = self._activated(
                name, pixels, weight[..., 0], bias, slope, kernel_shape=(1,), pads=(0, 0)
            )
            return self.op("Reshape", pixels, shape((0, 0, *self.tile)))
        rows = rows_at_once(self.at_once, out, self.tile[0]) if kernel == [3, 3] else 1
        if rows == 1:
            pads = [side // 2 for side in kernel] * 2
            return self._activated(name, x, weight, bias, slope, kernel_shape=kernel, pads=pads)
        wide, repeated = in_rows(weight, rows), np.repeat(bias, rows)
        window = {"kernel_shape": (rows + 2, 3), "strides": (rows, 1), "pads": (1, 1, 1, 1)}
        return self._in_order(self._activated(name, x, wide, repeated, slope, **window), out, rows)

    def _activated(
        self, name: str, x: str, weight: Array, bias: Array, slope: float | None, **window: Any
    ) -> str:
        names = self.graph.constant(f"{name}.weight", weight), self.graph.constant(f"{name}.bias", bias)
        x = self.op("Conv", x, *names, **window)
        return x if slope is None else self.op("LeakyRelu", x, alpha=slope)

    def _in_order(self, x: str, channels: int, rows: int) -> str:
        """(N, C * rows, H / rows, W), as `in_rows` makes them, to (N, C, H, W)."""
        (height, width), shape = self.tile, self.graph.integers
        x = self.op("Reshape", x, shape((0, channels, rows, height // rows, width)))
        x = self.op("Transpose", x, perm=(0, 1, 3, 2, 4))
        return self.op("Reshape", x, shape((0, channels, height, width)))


def rows_at_once(block: int, channels: int, height: int) -> int:
    """How many rows of pixels a convolution of few channels can compute as channels of their own, to fill
    a block."""
    return max(rows for rows in range(1, max(1, block // channels) + 1) if height % rows == 0)


def in_rows(weight: Array, rows: int) -> Array:
    """A 3x3 kernel (C, D, 3, 3) for `rows` rows of output at once: (C * rows, D, rows + 2, 3), for strides
    (rows, 1).

    Its output's channel c * rows + j is row j of channel c. A third of its taps, for two rows a quarter, are
    zero; it pays where a runtime leaves more than that of a block empty.
    """
    out, channels = weight.shape[:2]
    wide = np.zeros((out, rows, channels, rows + 2, 3))
    for row in range(rows):
        wide[:, row, :, row : row + 3] = weight
    return wide.reshape(out * rows, channels, rows + 2, 3)


_SPATIAL: dict[type[nn.Module], Callable[..., str]] = {
    ConvolutionBranch: _Emitter.convolution_branch,
    InvertibleBranch: _Emitter.invertible_branch,
}


def _array(tensor: Tensor) -> Array:
    return tensor.detach().cpu().double().numpy()
