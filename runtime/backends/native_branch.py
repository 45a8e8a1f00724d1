"""Where in a graph is a frequency branch, and is it of the definition that the native kernels have?

An exported branch is some sixty nodes in a scope of its own. It is known by its layers, and taken only if the
constants between them are all of `sfiin.model.spectrum`'s, its operators are those that it is made of, and
nothing but its result is used elsewhere.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sfiin.runtime.backends.onnx_graph import Graph, Node, UnknownGraphError

FLOOR, CUT, FADE, SLOPE = 1e-6, 0.2, 0.1, 0.1
"""The definition of the spectrum, which a graph's constants must repeat."""

LAYERS = ("ms", "pan", "amplitude.0", "amplitude.2", "phase.0", "phase.2", "out")
"""A branch's convolutions, in order."""

_SCOPE = "/frequency/"
_OPERATORS = {"Atan": 1, "Sin": 1, "Cos": 1, "Sqrt": 2, "Abs": 2, "LeakyRelu": 2}


@dataclass(frozen=True)
class Branch:
    """A branch's nodes, and of these the outer layers and those of its networks."""

    nodes: tuple[Node, ...]
    leading: tuple[Node, Node]
    networks: tuple[Node, ...]
    trailing: Node


def branches(graph: Graph) -> dict[str, Branch]:
    """The branches by the scope around each. Raises UnknownGraphError for one of another kind."""
    found: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if (where := scope(node)) and node.op != "SpectralFusion":
            found.setdefault(where, []).append(node)
    return {where: _branch(graph, nodes) for where, nodes in found.items()}


def scope(node: Node) -> str:
    """The scope around the branch that a node is in, "" for a node outside."""
    return node.name.rpartition(_SCOPE)[0]


def require_definition(graph: Graph, branch: Branch, pixels: int) -> None:
    """Raise UnknownGraphError unless the branch's constants are the definition's, for maps of so many
    pixels."""
    wanted = {FLOOR * pixels, 1e-30, 1.0, 0.0, 1e30, -1.0, math.pi / 2, CUT, math.pi / FADE}
    wanted |= {math.pi - FADE, FADE - math.pi}
    constants = [
        graph.constants[name] for node in branch.nodes for name in node.inputs if name in graph.constants
    ]
    found = {float(value) for value in constants if value.ndim == 0 and value.dtype == np.float32}
    slopes = [node.attributes.get("alpha") for node in branch.nodes if node.op == "LeakyRelu"]
    turned = {math.cos(CUT), math.sin(CUT), -math.sin(CUT)}  # by operators, or in the transform's matrices
    found = {value for value in found if not any(math.isclose(value, one, rel_tol=1e-6) for one in turned)}
    if len(found) != len(wanted) or not np.allclose(sorted(found), sorted(wanted), rtol=1e-6, atol=0):
        raise UnknownGraphError("a frequency branch of another definition")
    if not all(isinstance(slope, float) and math.isclose(slope, SLOPE, rel_tol=1e-6) for slope in slopes):
        raise UnknownGraphError("a frequency branch with other slopes")


def weights(graph: Graph, branch: Branch) -> list[NDArray[np.float32]]:
    """Weights, (outputs, inputs), and biases of the two networks' layers, in turn."""
    found: list[NDArray[np.float32]] = []
    for layer in branch.networks:
        if len(layer.inputs) != 3 or any(name not in graph.constants for name in layer.inputs[1:]):
            raise UnknownGraphError("a frequency branch's layer without constant weights")
        weight, bias = (graph.constants[name] for name in layer.inputs[1:])
        found += [weight.reshape(weight.shape[:2]), bias]
    return found


def _branch(graph: Graph, nodes: Sequence[Node]) -> Branch:
    layers = [node for node in nodes if node.op == "Conv"]
    names = [".".join(node.inputs[1].rsplit(".frequency.", 1)[-1].split(".")[:-1]) for node in layers]
    if tuple(names) != LAYERS:
        raise UnknownGraphError("a frequency branch of other layers")
    counts = Counter(node.op for node in nodes)
    if any(counts[op] != count for op, count in _OPERATORS.items()):
        raise UnknownGraphError("a frequency branch of other operators")
    own = {node.name for node in nodes}
    inside = {name for node in nodes for name in node.outputs}
    read = {name for node in graph.nodes if node.name not in own for name in node.inputs}
    if read & inside != set(layers[-1].outputs) or set(graph.outputs) & inside:
        raise UnknownGraphError("a frequency branch with other results")
    return Branch(tuple(nodes), (layers[0], layers[1]), tuple(layers[2:-1]), layers[-1])
