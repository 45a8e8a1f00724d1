"""Which numbers flow through a graph? Every float value's range over some tiles, beside what FP16 can hold.

The FP32 graph runs in ONNX Runtime with its inner values as outputs, some at a time, so that a large tile's
do not have to fit into memory all at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from sfiin.data.pairs import Pair, load_folder
from sfiin.export.nodes import Value, described
from sfiin.runtime.backends.session import import_onnxruntime
from sfiin.runtime.contract import Contract, Tile
from sfiin.runtime.errors import InputError

LARGEST, LEAST_NORMAL, LEAST = 65504.0, 2.0**-14, 2.0**-24
"""FP16's largest number, its least with all eleven bits, and its least; half of that and less becomes
zero."""

Inputs = Mapping[str, NDArray[np.float32]]

_BELOW_NORMAL = float(np.nextafter(np.float32(LEAST_NORMAL), np.float32(0)))
_CHUNK = 1 << 30  # bytes of values fetched in one run


@dataclass(frozen=True)
class Range:
    """One value over all tiles: largest magnitude, shares of its elements, and what rounding to FP16 does to
    it.

    `subnormal`: not zero, and with less than eleven bits in FP16; `flushed`: the part of those that becomes
    zero; `loss`: relative L2 distance that rounding brings, some 2e-4 where eleven bits are left, infinite on
    overflow.
    """

    maximum: float
    subnormal: float
    flushed: float
    loss: float


def audit(model: onnx.ModelProto, tiles: Sequence[Inputs]) -> dict[str, Range]:
    """The range of every float32 value that a node of the model makes, in the order of its nodes.

    `tiles` are the inputs of one run each, at least one.
    """
    batch = max(len(array) for tile in tiles for array in tile.values())
    found: dict[str, Range] = {}
    for names in _chunks(_values(model), batch):
        session = open_model(showing(model, names))
        parts = [[_sums(array) for array in session.run(names, dict(tile))] for tile in tiles]
        found.update((name, _joined(sums)) for name, *sums in zip(names, *parts, strict=True))
    return found


def calibration_tiles(folder: Path, contract: Contract, most: int = 8) -> list[Inputs]:
    """At most so many tiles of a folder's `.npz` pairs, spread evenly over all that there are.

    Raises InputError where no pair has the model's bands and ratio, or none is as large as its tile.
    """
    ratio, tile = contract.sensor.ratio, contract.tile
    pairs = load_folder(folder, len(contract.sensor.bands), ratio)
    places = [
        (pair, row, col)
        for pair in pairs
        for row in range(0, pair.pan.shape[1] - tile.height + 1, tile.height)
        for col in range(0, pair.pan.shape[2] - tile.width + 1, tile.width)
    ]
    if not places:
        raise InputError(
            f"{folder}: no pair is as large as the tile, {tile.height}x{tile.width}; export a smaller one"
        )
    chosen = [places[i] for i in np.unique(np.linspace(0, len(places) - 1, most).astype(int))]
    return [_tile(pair, row, col, tile) for pair, row, col in chosen]


def as_inputs(ms: NDArray[Any], pan: NDArray[Any]) -> list[Inputs]:
    """Tiles (K, B, h, w) and (K, 1, H, W) in DN as a graph's inputs, one tile each."""
    return [
        {"ms": m[None].astype(np.float32), "pan": p[None].astype(np.float32)}
        for m, p in zip(ms, pan, strict=True)
    ]


def open_model(model: onnx.ModelProto) -> Any:
    """The model in ONNX Runtime, on one CPU thread."""
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def values(model: onnx.ModelProto) -> dict[str, Value]:
    """Type and shape of every value that is no weight, as inferred."""
    graph = model.graph
    return {info.name: described(info) for info in (*graph.input, *graph.value_info, *graph.output)}


def _tile(pair: Pair, row: int, col: int, tile: Tile) -> Inputs:
    ratio = pair.ratio
    coarse = np.s_[:, row // ratio : (row + tile.height) // ratio, col // ratio : (col + tile.width) // ratio]
    return {
        "ms": pair.ms[coarse][None],
        "pan": pair.pan[None, :, row : row + tile.height, col : col + tile.width],
    }


def _values(model: onnx.ModelProto) -> Iterator[tuple[str, Value]]:
    known = values(model)
    made = (name for node in model.graph.node for name in node.output)
    return ((name, known[name]) for name in made if known[name].type == "float")


def _chunks(named: Iterator[tuple[str, Value]], batch: int) -> Iterator[list[str]]:
    chunk: list[str] = []
    size = 0
    for name, value in named:
        size += 4 * batch * math.prod(side or 1 for side in value.shape or ())
        if chunk and size > _CHUNK:
            yield chunk
            chunk, size = [], 0
        chunk.append(name)
    yield chunk


def showing(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The model with these of its inner values as its outputs."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    del shown.graph.output[:]
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return shown


def measured(parts: Sequence[NDArray[np.float32]]) -> Range:
    """The range of one value, given as its tensors."""
    return _joined([_sums(part) for part in parts])


@dataclass(frozen=True)
class _Sums:
    maximum: float
    small: int
    flushed: int
    size: int
    energy: float
    error: float


def _sums(array: NDArray[np.float32]) -> _Sums:
    magnitude = np.abs(array)
    zero, small, flushed = (
        int(np.count_nonzero(magnitude <= limit)) for limit in (0, _BELOW_NORMAL, LEAST / 2)
    )
    with np.errstate(over="ignore", invalid="ignore"):
        # NumPy takes ten times as long; PyTorch warns of arrays that may not be written to.
        error = torch.from_numpy(np.require(array, requirements="W")).half().float().numpy() - array
        squares = float(np.vdot(array, array)), float(np.vdot(error, error))
    return _Sums(float(magnitude.max()), small - zero, flushed - zero, array.size, *squares)


def _joined(parts: Sequence[_Sums]) -> Range:
    size, energy, error = (sum(getattr(part, key) for part in parts) for key in ("size", "energy", "error"))
    return Range(
        float(np.max([part.maximum for part in parts])),
        sum(part.small for part in parts) / size,
        sum(part.flushed for part in parts) / size,
        math.sqrt(error / energy) if energy else 0.0,
    )
