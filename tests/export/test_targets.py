"""The tables: complete, consistent with ONNX, and each entry with its source."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import TensorProto, defs

from sfiin.export.targets import target, targets
from sfiin.runtime.errors import InputError
from sfiin.runtime.toml import parse

# Operators that TensorRT's matrices list although they are no longer, or never were, in ONNX.
FOREIGN = {"ImageScaler", "ParametricSoftplus", "ScaledTanh"}
TYPES = {name.lower() for name in TensorProto.DataType.keys()}  # noqa: SIM118


def test_the_targets_and_their_jetpacks() -> None:
    assert list(targets()) == [
        "trt8.5",
        "trt8.6",
        "trt10.3",
        "trt11.2",
        "jetpack5",
        "jetpack6.0",
        "jetpack6",
        "rtx",
        "ort",
    ]
    for jetpack, tensorrt in (("jetpack5", "trt8.5"), ("jetpack6.0", "trt8.6"), ("jetpack6", "trt10.3")):
        assert target(jetpack).operators == target(tensorrt).operators
        assert target(jetpack).rules == target(tensorrt).rules
        assert target(jetpack).title.startswith("JetPack")
    with pytest.raises(InputError, match=r"'trt9' is no target; known are trt8\.5, trt8\.6"):
        target("trt9")


@pytest.mark.parametrize("name", targets())
def test_every_entry_is_of_onnx_and_has_a_source(name: str) -> None:
    entry = target(name)
    present = {"ir": entry.ir, "rank": entry.rank, "functions": not entry.functions}
    assert set(entry.sources) == {
        "versions",
        "types",
        "operators",
        "limits",
        "domains",
        *(group for group, there in present.items() if there),
    }
    assert all(entry.sources.values())
    assert entry.types <= TYPES | {"*"}
    assert entry.opset <= defs.onnx_opset_version()
    for operator, types in (entry.operators or {}).items():
        assert operator in FOREIGN or defs.has(operator), operator
        assert types <= TYPES
    for rule in entry.rules:
        assert rule.source.startswith("https://") or "seen with" in rule.source or rule.source == "unverified"
        assert rule.problem[0].islower() or rule.problem.startswith(("K ", "antialiasing"))
        assert all(defs.has(operator) for operator in rule.operators)


@pytest.mark.parametrize("name", targets())
def test_conditions_name_what_the_operators_have(name: str) -> None:
    """A misspelt attribute, or an input that no form of the operator has, would make a rule that never
    speaks."""
    for rule in target(name).rules:
        for operator in rule.operators:
            schema = defs.get_schema(operator)
            for condition in rule.conditions:
                assert condition.attribute is None or condition.attribute in schema.attributes, operator
                assert condition.input < len(schema.inputs), operator


def test_no_source_is_idle() -> None:
    """Every document in the list stands behind an entry."""
    path = Path(__file__).parents[2] / "export" / "targets.toml"
    document = parse(path.read_text("utf-8"))
    tables = [table for table in document["targets"].values() if "sources" in table]
    used = {rule["source"] for rule in document["rules"]} | {
        key for table in tables for key in table["sources"].values()
    }
    assert used == set(document["sources"])


def test_what_the_matrices_say() -> None:
    """Rows picked by hand from the documents."""
    sine = frozenset({"float", "float16"})
    assert target("trt8.5").operators is not None
    rows = {name: entry.operators or {} for name, entry in targets().items()}
    assert rows["trt8.5"]["Sin"] == sine
    assert rows["trt10.3"]["Sin"] == sine | {"bfloat16"}
    assert rows["trt8.6"]["Add"] == sine | {"int32"}
    assert rows["trt10.3"]["DequantizeLinear"] == {"int8", "int4", "float8e4m3fn"}
    since = {
        "LayerNormalization": "trt8.6",
        "GroupNormalization": "trt8.6",
        "Trilu": "trt8.5",
        "STFT": "trt11.2",
        "Gelu": "trt10.3",
        "DFT": "trt11.2",
        "Swish": "trt11.2",
        "Atan": "trt8.5",
    }
    order = ["trt8.5", "trt8.6", "trt10.3", "trt11.2"]
    for operator, first in since.items():
        assert [operator in rows[name] for name in order] == [i >= order.index(first) for i in range(4)], (
            operator
        )
    assert not any("Atan2" in row or "BitShift" in row for row in rows.values())
    assert "DFT" not in rows["rtx"]
    assert (target("trt8.5").opset, target("trt10.3").opset, target("trt11.2").opset) == (17, 20, 24)
