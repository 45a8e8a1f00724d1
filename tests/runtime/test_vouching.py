"""Models that are what their contracts say, and what becomes of others."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from sfiin.export.vouched import graph_digest, with_contract
from sfiin.runtime import golden, models, onnx_file, vouching
from sfiin.runtime.backends.session import OnnxSession
from sfiin.runtime.contract import METADATA_KEY
from sfiin.runtime.errors import CheckFailedError, ContractError, InputError, MismatchError, SfiinError

Change = Callable[[onnx.ModelProto], object]


def altered(model: Path, folder: Path, change: Change, *, tiles: bool = True) -> Path:
    """A copy after a change, with the contract and the golden tiles of the original."""
    loaded = onnx.load(model)
    change(loaded)
    copy = folder / "altered.onnx"
    onnx.save(loaded, copy)
    if tiles:
        shutil.copy(golden.beside(model), golden.beside(copy))
    return copy


def scaled(factor: float) -> Change:
    def change(model: onnx.ModelProto) -> None:
        weight = next(
            tensor for tensor in model.graph.initializer if tensor.data_type == 1 and len(tensor.dims) == 4
        )
        values = numpy_helper.to_array(weight) * np.float32(factor)
        weight.CopyFrom(numpy_helper.from_array(values, weight.name))

    return change


def half_inputs(model: onnx.ModelProto) -> None:
    for given in model.graph.input:
        given.type.tensor_type.elem_type = TensorProto.FLOAT16
        for node in model.graph.node:
            node.input[:] = [f"{name}_f" if name == given.name else name for name in node.input]
        cast = onnx.helper.make_node("Cast", [given.name], [f"{given.name}_f"], to=TensorProto.FLOAT)
        model.graph.node.insert(0, cast)


def one_tile(model: onnx.ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1


def contract_of(model: onnx.ModelProto, **changes: object) -> None:
    document = json.loads(next(prop.value for prop in model.metadata_props if prop.key == METADATA_KEY))
    for key, value in changes.items():
        document.pop(key) if value is None else document.__setitem__(key, value)
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(document)})


def inputs() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return (
        random.integers(0, 2047, (3, 4, 8, 8)).astype(np.float32),
        random.integers(0, 2047, (3, 1, 32, 32)).astype(np.float32),
    )


def test_the_shipped_models_are_vouched_for() -> None:
    for path, contract in models.shipped():
        found = vouching.read(path)
        assert found.vouched
        assert found.graph == contract.graph == graph_digest(onnx.load(path))
        assert vouching.vouch(found) == ""


def test_an_unaltered_copy_needs_no_golden_tiles(small_model: Path, tmp_path: Path) -> None:
    copy = altered(small_model, tmp_path, lambda _: None, tiles=False)
    with OnnxSession(copy) as session:
        assert session.notes == []


@pytest.mark.parametrize("factor", [0.0, 1.05, -3.0])
def test_other_weights_are_refused_before_they_run(small_model: Path, tmp_path: Path, factor: float) -> None:
    with pytest.raises(CheckFailedError, match="makes something else of its golden tiles: relative L2"):
        OnnxSession(altered(small_model, tmp_path, scaled(factor)))


def test_without_golden_tiles_other_weights_are_refused_too(small_model: Path, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match=r"graph: .*no golden tiles beside it"):
        OnnxSession(altered(small_model, tmp_path, scaled(1.0001), tiles=False))


def test_a_contract_of_an_older_version_is_taken_at_its_tiles(small_model: Path, tmp_path: Path) -> None:
    """Without a digest of the graph, and without one of itself."""
    old = altered(
        small_model, tmp_path, lambda model: contract_of(model, graph=None, digest=None, derived=None)
    )
    with OnnxSession(old) as session, OnnxSession(small_model) as now:
        assert "of an older version" in session.notes[0]
        np.testing.assert_array_equal(session.run(*inputs()), now.run(*inputs()))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"opset": 18}, "digest: a field was changed"),
        ({"digest": "0" * 64}, "digest: a field was changed"),
        (
            {"tile": {"height": 10**9, "width": 10**9, "overlap": 8}, "digest": None},
            "tile.height: must lie in",
        ),
        ({"tile": {"height": 64, "width": 64, "overlap": 8}, "digest": None}, "tile: the graph's 'ms' is"),
        ({"influence": {"edge": 1e300}, "digest": None}, "influence.edge: must lie"),
    ],
)
def test_an_edited_contract_is_refused(
    small_model: Path, tmp_path: Path, change: dict[str, object], text: str
) -> None:
    copy = altered(small_model, tmp_path, lambda model: contract_of(model, **change))
    with pytest.raises((ContractError, MismatchError), match=text) as failure:
        OnnxSession(copy)
    assert failure.value.exit_code == 4


def test_typed_inputs_are_fed_what_they_want(small_model: Path, tmp_path: Path) -> None:
    """FP16 holds every number of 11 bits, so that the result is the same."""
    with (
        OnnxSession(altered(small_model, tmp_path, half_inputs)) as session,
        OnnxSession(small_model) as plain,
    ):
        np.testing.assert_array_equal(session.run(*inputs()), plain.run(*inputs()))
        assert "computes the same on its golden tiles" in session.notes[0]


def test_a_graph_for_one_tile_at_a_time_is_given_one(small_model: Path, tmp_path: Path) -> None:
    with OnnxSession(altered(small_model, tmp_path, one_tile)) as session, OnnxSession(small_model) as plain:
        np.testing.assert_allclose(session.run(*inputs()), plain.run(*inputs()), atol=1e-2)


def other_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[3].dim_value = 31


def lacks_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "sharp"


def too_large(model: onnx.ModelProto) -> None:
    """A tebibyte of zeros, added to a result."""
    size = numpy_helper.from_array(np.array([1 << 38], np.int64), "huge")
    model.graph.initializer.append(size)
    model.graph.node.insert(0, onnx.helper.make_node("ConstantOfShape", ["huge"], ["zeros"]))
    model.graph.node.insert(1, onnx.helper.make_node("ReduceSum", ["zeros"], ["nothing"], keepdims=0))
    name = model.graph.node[-1].output[0]
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(onnx.helper.make_node("Add", ["before", "nothing"], [name]))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (other_output, "tile: the graph's 'hrms' is"),
        (lacks_output, "graph: makes sharp of ms, pan"),
        (too_large, "altered.onnx|does not run"),
    ],
)
def test_a_graph_that_is_not_its_contracts_is_refused(
    small_model: Path, tmp_path: Path, change: Change, text: str
) -> None:
    with pytest.raises(SfiinError, match=text):
        OnnxSession(altered(small_model, tmp_path, change))


def test_weights_outside_the_model_are_part_of_its_digest(small_model: Path, tmp_path: Path) -> None:
    model = onnx.load(small_model)
    contract = models.contract(small_model)
    path = tmp_path / "outside.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=512)
    assert onnx_file.external_files(path.read_bytes()) == ["weights.bin"]
    digest = onnx_file.digest(path.read_bytes(), tmp_path)
    inside = onnx.load(path, load_external_data=False)
    sealed = dataclasses.replace(contract, graph=digest)
    onnx.helper.set_model_props(inside, {METADATA_KEY: sealed.to_json()})
    path.write_bytes(inside.SerializeToString())
    with OnnxSession(path) as session, OnnxSession(small_model) as plain:
        np.testing.assert_array_equal(session.run(*inputs()), plain.run(*inputs()))
    data = bytearray((tmp_path / "weights.bin").read_bytes())
    data[100] ^= 0x40
    (tmp_path / "weights.bin").write_bytes(data)
    with pytest.raises(MismatchError, match="graph: its graph or weights are not those"):
        OnnxSession(path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(InputError, match="weights that lie outside the model cannot be read"):
        OnnxSession(path)


@pytest.mark.parametrize("name", ["../w", "/etc/passwd", "a/../../w", ""])
def test_weights_outside_the_folder_are_not_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="outside its folder"):
        onnx_file.within(tmp_path, name)


def test_a_new_contract_keeps_other_metadata(small_model: Path) -> None:
    model = onnx.load(small_model)
    entry = model.metadata_props.add()
    entry.key, entry.value = "mine", "kept"
    before = graph_digest(model)
    sealed = with_contract(model, models.contract(small_model))
    assert sealed.graph == before == graph_digest(model)
    assert {prop.key for prop in model.metadata_props} == {"mine", METADATA_KEY}
