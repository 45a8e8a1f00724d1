"""How is an ONNX graph written down? A thin layer over `onnx.helper` that names, scopes and shares.

Everything that can be computed beforehand is computed by the caller, in float64, and enters as an
initializer; a graph built here therefore has no constant subgraphs. Names are `scope/operator`, so that a
profile or a compiler's message points at the part of the network that it speaks of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, overload

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper


class GraphBuilder:
    """Collects nodes and initializers; values are referred to by name. `opset` decides an operator's form."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._scopes: list[str] = []
        self._used: Counter[str] = Counter()

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefix the names of the nodes added inside."""
        self._scopes.append(name)
        yield
        self._scopes.pop()

    @overload
    def op(self, kind: str, *inputs: str, outputs: Literal[1] = 1, **attributes: Any) -> str: ...

    @overload
    def op(self, kind: str, *inputs: str, outputs: int, **attributes: Any) -> tuple[str, ...]: ...

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str | tuple[str, ...]:
        """Add a node; returns its output's name, or a tuple of names for several outputs.

        `domain`, if among the attributes, is that of the operator's set, of version 1.
        """
        name = "/".join([*self._scopes, kind])
        self._used[name] += 1
        if self._used[name] > 1:
            name = f"{name}_{self._used[name]}"
        results = [name] if outputs == 1 else [f"{name}:{i}" for i in range(outputs)]
        self._nodes.append(helper.make_node(kind, inputs, results, name, **attributes))
        return results[0] if outputs == 1 else tuple(results)

    def constant(self, name: str, value: ArrayLike, dtype: type = np.float32) -> str:
        """An initializer, shared by its name; a second value under one name is a programming error."""
        array: NDArray[Any] = np.asarray(value, dtype)
        tensor = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        if self._initializers.setdefault(name, tensor) != tensor:
            raise ValueError(f"initializer '{name}' already holds another value")
        return name

    def scalar(self, value: float) -> str:
        """A float32 scalar, shared by its value."""
        return self.constant(f"scalar_{value:.9g}", value)

    def integers(self, values: Sequence[int]) -> str:
        """An int64 vector (axes, shapes, pads), shared by its value."""
        return self.constant("int64_" + "_".join(map(str, values)), values, np.int64)

    def reduce(self, kind: str, x: str, axes: Sequence[int]) -> str:
        """A reduction that keeps its dimensions; `axes` became an input in opset 18."""
        if self.opset < 18:
            return self.op(kind, x, axes=axes, keepdims=1)
        return self.op(kind, x, self.integers(axes), keepdims=1)

    def mean(self, x: str) -> str:
        """The spatial mean of (N, C, H, W), (N, C, 1, 1), in two stages.

        A float32 sum of all pixels at once loses 4e-5 of a constant map of 128 x 128 in ONNX Runtime, and
        6e-4 of one of 512 x 512; row by row it loses under 1e-6, and takes less time.
        """
        return self.reduce("ReduceMean", self.reduce("ReduceMean", x, (3,)), (2,))

    def model(
        self,
        inputs: Mapping[str, Sequence[int | str]],
        output: tuple[str, str, Sequence[int | str]],
        doc: str,
    ) -> onnx.ModelProto:
        """The checked model with inferred shapes.

        `inputs`: names and shapes; `output`: the public name, the value behind it, its shape. All float32.
        """
        public, value, shape = output
        self._nodes.append(helper.make_node("Identity", [value], [public], public))
        graph = helper.make_graph(
            self._nodes,
            "sfiin",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in inputs.items()],
            [helper.make_tensor_value_info(public, TensorProto.FLOAT, shape)],
            list(self._initializers.values()),
            doc,
        )
        opset = helper.make_opsetid("", self.opset)
        others = [
            helper.make_opsetid(name, 1) for name in sorted({node.domain for node in self._nodes} - {""})
        ]
        model = helper.make_model(graph, opset_imports=[opset, *others], producer_name="sfiin")
        model.ir_version = helper.find_min_ir_version_for([opset])
        onnx.checker.check_model(model, full_check=True)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True)
