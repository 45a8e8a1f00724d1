"""Will a target read this graph? A check without that target, of any ONNX model, against the tables of
`targets.toml`.

A finding names a node, what is wrong with it for the target, and the remedy. An error is what the target
refuses or gets wrong, a warning what no document promises, a note what the person who builds the engine has
to know.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, defs, inliner

from sfiin.export.nodes import Place, Value, array, described, inferred, places, type_name, weights
from sfiin.export.targets import Condition, Severity, Target, target, targets
from sfiin.runtime.contract import PLUGIN
from sfiin.runtime.errors import CheckFailedError, InputError

__all__ = ["Finding", "Severity", "Target", "load", "preflight", "require", "target", "targets"]

# What a protobuf message, and a TensorRT tensor that is indexed by int32, can hold at most.
LIMIT = 2**31 - 1

SPECIFICATION = "https://onnx.ai/onnx/operators/"
_DOMAIN = ("", "ai.onnx")
# Where a type comes into a graph; what follows from it is not told again. Weights of int64 are mostly axes
# and shapes.
_ENTRANCES = {"double": ("(input)", "(weight)", "Cast", "Constant"), "": ("(input)",)}
_INPUT, _MODEL, _WEIGHT = "(input)", "(model)", "(weight)"
_RANKS: dict[Severity, int] = {"error": 0, "warning": 1, "note": 2}

# The value whose type the matrices speak of: the first input, but for these.
_BY_INPUT = {"Where": 1}
_BY_OUTPUT = frozenset({"Constant", "ConstantOfShape", "EyeLike", "OneHot", "RandomNormal", "RandomUniform"})


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that a target will not read, or not as meant.

    `node` and `operator` name where ("(input)", "(weight)" and "(model)" for what is no node), `index` is the
    node's position in its graph, `source` the document behind the statement. `count` nodes have the same; the
    first is named.
    """

    severity: Severity
    node: str
    operator: str
    problem: str
    remedy: str
    source: str
    index: int | None = None
    count: int = 1

    def __str__(self) -> str:
        where = f"{self.operator} '{self.node}'" + ("" if self.index is None else f" (node {self.index})")
        return (
            f"{where}{f' and {self.count - 1} more' if self.count > 1 else ''}: {self.problem}; {self.remedy}"
        )


def load(path: Path) -> onnx.ModelProto:
    """A model without its external data. Raises InputError for what is missing, over 2 GB, or no ONNX
    model."""
    try:
        if path.stat().st_size > LIMIT:
            raise InputError(
                f"{path}: over 2 GB, which no protobuf reader takes; save the weights beside it "
                "(onnx.save(..., save_as_external_data=True))"
            )
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except DecodeError:
        raise InputError(f"{path}: no ONNX model, or a damaged one") from None
    if not model.graph.output or not model.opset_import:
        raise InputError(f"{path}: no ONNX model, or a damaged one (it has no outputs or no opset)")
    return model


def preflight(model: onnx.ModelProto, target: Target, folder: Path | None = None) -> list[Finding]:
    """What `target` will not read in `model`, errors first; equal findings are one, with their count.

    The weights may be left in their files; `folder` is where those are looked for, if given.
    """
    return _aggregated(
        [*_of_model(model, target), *_of_weights(model, target, folder), *_of_graph(model, target)]
    )


def require(model: onnx.ModelProto, target: Target, folder: Path | None = None) -> None:
    """Raise CheckFailedError with the first error's text and how many there are, if there are any."""
    errors = [finding for finding in preflight(model, target, folder) if finding.severity == "error"]
    if errors:
        more = f" (and {len(errors) - 1} more; 'sfiin preflight' lists them)" if len(errors) > 1 else ""
        raise CheckFailedError(f"{target.title} will not read this model: {errors[0]}{more}")


def _aggregated(findings: Iterable[Finding]) -> list[Finding]:
    merged: dict[tuple[str, ...], Finding] = {}
    for finding in findings:
        key = (finding.severity, finding.operator, finding.problem, finding.remedy)
        first = merged.setdefault(key, dataclasses.replace(finding, count=0))
        merged[key] = dataclasses.replace(first, count=first.count + 1)
    return sorted(merged.values(), key=lambda finding: _RANKS[finding.severity])


# --- the model as a whole ---


def _of_model(model: onnx.ModelProto, target: Target) -> Iterator[Finding]:
    opset = _opset(model)
    if target.ir is not None and model.ir_version > target.ir:
        yield Finding(
            target.newer_model,
            f"IR version {model.ir_version}",
            _MODEL,
            f"newer than {target.ir}, the last that this version knows",
            f"set model.ir_version = {target.ir} (onnx.helper.find_min_ir_version_for tells what the opset "
            "needs)",
            target.sources["ir"],
        )
    if opset > target.opset:
        yield Finding(
            target.newer_model,
            f"opset {opset}",
            _MODEL,
            f"newer than {target.opset}, the last that is documented",
            _older(target),
            target.sources["versions"],
        )
    if model.functions and not target.functions:
        name = model.functions[0].name
        remedy = "inline them (onnx.inliner.inline_local_functions)"
        problem = "local functions are not read before TensorRT 9.0"
        yield Finding("error", name, "(function)", problem, remedy, target.sources["functions"])


def _older(target: Target) -> str:
    return f"export with --opset {target.opset} or lower, or convert (onnx.version_converter.convert_version)"


def _opset(model: onnx.ModelProto) -> int:
    return next((entry.version for entry in model.opset_import if entry.domain in _DOMAIN), 1)


def _of_weights(model: onnx.ModelProto, target: Target, folder: Path | None) -> Iterator[Finding]:
    total = 0
    for tensor in weights(model):
        yield from _of_type(target, tensor.name, _WEIGHT, type_name(tensor.data_type), None)
        if tensor.data_location == TensorProto.EXTERNAL:
            yield from _of_file(tensor, folder)
        else:
            total += _bytes(tensor)
    if total > LIMIT:
        remedy = "save the weights beside it (onnx.save(..., save_as_external_data=True))"
        yield Finding(
            "error", model.graph.name, _MODEL, "its weights exceed the 2 GB of a file", remedy, SPECIFICATION
        )


def _bytes(tensor: TensorProto) -> int:
    elements = Value("", tuple(tensor.dims)).elements or 0
    try:
        return elements * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    except (KeyError, ValueError, TypeError):
        return 0


def _of_file(tensor: TensorProto, folder: Path | None) -> Iterator[Finding]:
    location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    if folder is not None and not (folder / location).is_file():
        problem = f"its data should be in '{location}', which is not there"
        remedy = "put that file beside the model, or save the model again with its weights"
        yield Finding("error", tensor.name, _WEIGHT, problem, remedy, SPECIFICATION)


# --- the graph ---


def _of_graph(model: onnx.ModelProto, target: Target) -> Iterator[Finding]:
    try:
        graph = inferred(model)
    except onnx.shape_inference.InferenceError as error:
        problem = f"ONNX finds the graph contradictory ({' '.join(str(error).split())[:200]})"
        yield Finding("error", model.graph.name, _MODEL, problem, "export it anew", SPECIFICATION)
        return
    if graph.functions:
        graph = inferred(inliner.inline_local_functions(graph))
    opset = _opset(graph)
    known = {tensor.name for tensor in graph.graph.initializer}
    for info in graph.graph.input:
        if info.name not in known:
            yield from _of_input(info, target)
    for place in places(graph):
        yield from _of_node(place, target, opset)


def _of_input(info: onnx.ValueInfoProto, target: Target) -> Iterator[Finding]:
    value = described(info)
    yield from _of_type(target, info.name, _INPUT, value.type, None)
    yield from _of_size(target, info.name, _INPUT, value, None)
    if not target.profile:
        return
    source = target.sources["versions"]
    if value.shape is None:
        problem, remedy = "has no shape, so its number of dimensions is unknown", "give the input a shape"
        yield Finding("warning", info.name, _INPUT, problem, remedy, source)
    elif None in value.shape[1:]:
        problem = "has dynamic dimensions besides the batch; a Fourier transform's matrices fit one tile only"
        remedy = "export for one tile, or give an optimisation profile with the range of every dimension"
        yield Finding("warning", info.name, _INPUT, problem, remedy, source)
    elif None in value.shape:
        problem, remedy = (
            "has a dynamic batch",
            "give an optimisation profile (smallest, usual, largest batch)",
        )
        yield Finding("note", info.name, _INPUT, problem, remedy, source)


def _of_node(place: Place, target: Target, opset: int) -> Iterator[Finding]:
    operator, domain = place.node.op_type, place.node.domain
    if domain not in _DOMAIN:
        yield from _of_custom(place, target)
    else:
        yield from _of_operator(place, target, opset)
        yield from _of_signature(place, opset)
    for rule in target.rules:
        if (
            operator in rule.operators
            and domain in _DOMAIN
            and all(_holds(condition, place) for condition in rule.conditions)
        ):
            yield _finding(place, rule.severity, rule.problem, rule.remedy, rule.source)
    for name in place.node.output:
        value = place.scope.value(name)
        yield from _of_type(target, place.name, operator, value.type, place.index)
        yield from _of_size(target, place.name, operator, value, place.index)
        if value.type in target.io_only and name not in place.graph_outputs and domain in _DOMAIN:
            problem = f"makes {value.type} inside the graph; the target has it for inputs and outputs only"
            yield _finding(
                place, "error", problem, "use int32 or a float type inside", target.sources["types"]
            )


def _of_operator(place: Place, target: Target, opset: int) -> Iterator[Finding]:
    operator, source = place.node.op_type, target.sources["operators"]
    listed = operator in target.operators if target.operators is not None else defs.has(operator)
    if not listed or operator in target.missing:
        yield _finding(place, "error", "is not supported", _replacement(operator, target), source)
        return
    if _is_newer_form(operator, opset, target.opset):
        problem = f"its form in opset {opset} is newer than opset {target.opset}, and may be misread"
        yield _finding(place, target.newer_form, problem, _older(target), target.sources["versions"])
    if target.operators is None or not target.operators[operator]:
        return
    kind = _spoken_of(place).type
    kind = target.converted.get(kind, kind)
    if kind in target.types and kind not in target.operators[operator]:
        promised = ", ".join(sorted(target.operators[operator]))
        severity: Severity = "error" if kind in target.io_only else "warning"
        yield _finding(
            place, severity, f"takes {promised}, not {kind}", f"Cast its input from {kind}", source
        )


def _replacement(operator: str, target: Target) -> str:
    remedies = {
        "DFT": "export with --fourier matmul (native DFT needs TensorRT 11.2 or ONNX Runtime 1.27)",
        "STFT": "write the transform as MatMul with constant matrices",
        "Atan2": "write it with Atan, Less and Mul",
    }
    other = "write it in operators of the target's list"
    plugin = {
        "plugin": ", or bring a plugin of that name",
        "library": ", or register a library with it",
        "none": "",
    }
    return remedies.get(operator, other + plugin[target.custom])


def _is_newer_form(operator: str, opset: int, limit: int) -> bool:
    """Whether the operator changed after opset `limit`; what came after it altogether is left to the
    lists."""
    if opset <= limit:
        return False
    try:
        then, now = (defs.get_schema(operator, version).since_version for version in (limit, opset))
    except defs.SchemaError:
        return False
    return bool(now > then)


def _of_custom(place: Place, target: Target) -> Iterator[Finding]:
    node, source = place.node, target.sources["domains"]
    if node.domain in target.domains:
        return
    if target.operators is not None and node.op_type in target.operators:
        problem = (
            f"is of domain '{node.domain}', but the parser goes by the name and reads ONNX's {node.op_type}"
        )
        yield _finding(place, "warning", problem, "rename it if something else is meant", source)
    elif (node.domain, node.op_type) == PLUGIN:
        yield _of_plugin(place, target)
    elif target.custom == "plugin":
        problem = f"is no ONNX operator (domain '{node.domain}') and needs a plugin of that name"
        remedy = "load the plugin's library before parsing (trtexec --staticPlugins or --plugins)"
        yield _finding(place, "warning", problem, remedy, source)
    elif target.custom == "library":
        problem = f"is no ONNX operator (domain '{node.domain}')"
        library = "register the library that has it (SessionOptions.register_custom_ops_library)"
        remedy = f"{library}, or export without it"
        yield _finding(place, "error", problem, remedy, source)
    else:
        problem = f"is no ONNX operator (domain '{node.domain}'), and the target has no plugins"
        yield _finding(place, "error", problem, "export without it (--fourier matmul)", source)


def _of_plugin(place: Place, target: Target) -> Finding:
    """Our own node, of which more can be said than of any other."""
    remedy = "export with --fourier matmul"
    if target.custom == "plugin":
        problem = "is a frequency branch as one node, and needs sfiin's TensorRT plugin of that name"
        remedy = (
            f"give its library to 'sfiin build --plugin' (trtexec: --staticPlugins or --plugins), or {remedy}"
        )
        return _finding(place, "warning", problem, remedy, target.sources["domains"])
    problem = (
        "is a frequency branch as one node, for TensorRT with sfiin's plugin, which the target cannot load"
    )
    return _finding(place, "error", problem, remedy, target.sources["domains"])


# --- values and their types ---


def _of_type(target: Target, node: str, operator: str, kind: str, index: int | None) -> Iterator[Finding]:
    source = target.sources["types"]
    if not kind:
        return
    if not target.knows_type(kind):
        problem = f"is of type {kind}, which the target does not have"
        remedy = "use float or int32; an image of uint16 is converted before it goes in"
        yield Finding("error", node, operator, problem, remedy, source, index)
    elif kind in target.converted and operator in _ENTRANCES.get(kind, _ENTRANCES[""]):
        problem = f"is of type {kind}, which the target reads as {target.converted[kind]}"
        remedy = f"make it {target.converted[kind]}, so that what is computed is what was checked"
        yield Finding("warning", node, operator, problem, remedy, source, index)


def _of_size(target: Target, node: str, operator: str, value: Value, index: int | None) -> Iterator[Finding]:
    if value.shape is not None and target.rank is not None and len(value.shape) > target.rank:
        problem = f"has {len(value.shape)} dimensions, more than {target.rank}"
        yield Finding(
            "error", node, operator, problem, "merge dimensions with Reshape", target.sources["rank"], index
        )
    if target.large_tensor is not None and (value.elements or 0) > LIMIT:
        problem = "has more than 2147483647 elements"
        remedy = "use smaller tiles or a smaller batch"
        yield Finding(target.large_tensor, node, operator, problem, remedy, target.sources["limits"], index)


def _of_signature(place: Place, opset: int) -> Iterator[Finding]:
    """Inputs that share a type parameter have one type, and one that ONNX allows: every runtime asks for
    that."""
    try:
        schema = defs.get_schema(place.node.op_type, opset)
    except defs.SchemaError:
        return
    allowed = {
        constraint.type_param_str: constraint.allowed_type_strs for constraint in schema.type_constraints
    }
    found: dict[str, str] = {}
    for index, name in enumerate(place.node.input):
        kind = place.scope.value(name).type
        formal = schema.inputs[min(index, len(schema.inputs) - 1)] if schema.inputs else None
        if not name or not kind or formal is None:
            continue
        if (
            formal.type_str in allowed
            and f"tensor({kind})" not in allowed[formal.type_str]
            and _is_tensor(kind)
        ):
            problem = f"ONNX gives it no input of type {kind}"
            yield _finding(place, "error", problem, f"Cast it from {kind}", SPECIFICATION)
        first = found.setdefault(formal.type_str, kind)
        if first != kind and formal.is_homogeneous:
            problem = f"mixes inputs of {first} and {kind}"
            yield _finding(place, "error", problem, f"Cast one of them ({first} or {kind})", SPECIFICATION)


def _is_tensor(kind: str) -> bool:
    return kind.upper() in TensorProto.DataType.keys()  # noqa: SIM118


def _spoken_of(place: Place) -> Value:
    operator = place.node.op_type
    if operator in _BY_OUTPUT:
        return place.scope.value(place.node.output[0])
    return place.scope.value(place.input(_BY_INPUT.get(operator, 0)))


# --- rules ---


def _holds(condition: Condition, place: Place) -> bool:
    if condition.outputs is not None:
        return sum(map(bool, place.node.output)) > condition.outputs
    if condition.attribute is not None:
        return _attribute_holds(condition, place.attribute(condition.attribute, condition.default))
    return _input_holds(condition, place)


def _attribute_holds(condition: Condition, value: object) -> bool:
    if condition.matches is not None:
        return re.search(condition.matches, str(value or "")) is not None
    if condition.one_of is not None:
        return value in condition.one_of
    return condition.none_of is not None and value not in condition.none_of


def _input_holds(condition: Condition, place: Place) -> bool:
    name = place.input(condition.input)
    value, constant = place.scope.value(name), place.scope.constant(name)
    if condition.state == "absent" or not name:
        return condition.state == "absent" and not name
    if condition.types and value.type not in condition.types:
        return False
    if condition.rank is not None:
        return value.shape is not None and not condition.rank[0] <= len(value.shape) <= condition.rank[1]
    if condition.state == "computed":
        return not place.scope.is_foldable(name)
    if condition.state == "several":
        return (value.elements or 0) > 1
    numbers = None if constant is None or condition.state != "nonzero" else array(constant)
    return condition.state in ("given", None) or (numbers is not None and bool(numbers.any()))


def _finding(place: Place, severity: Severity, problem: str, remedy: str, source: str) -> Finding:
    return Finding(severity, place.name, place.node.op_type, problem, remedy, source, place.index)
