from __future__ import annotations

import dataclasses
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from sfiin.runtime import models
from sfiin.runtime.contract import METADATA_KEY, Contract, SensorProfile, Tile
from sfiin.runtime.errors import ContractError, InputError, MismatchError

CONTRACT = Contract(
    sensor=SensorProfile("test", ("blue", "green", "red", "nir"), 4, 11, 2047.0),
    tile=Tile(32, 32, 8),
    lowering="matmul",
    precision="fp32",
    opset=17,
    network={"bands": 4},
    checkpoint="c" * 64,
    golden="d" * 64,
    versions={"onnx": onnx.__version__},
)


def write_model(path: Path, metadata: dict[str, str], weights: int = 4) -> Path:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    constant = helper.make_tensor("w", TensorProto.FLOAT, [weights], [1.0] * weights)
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "g", values[:1], values[1:], [constant]
    )
    model = helper.make_model(graph)
    helper.set_model_props(model, metadata)
    onnx.save(model, str(path))
    return path


def of_sensor(bands: int, ratio: int) -> Contract:
    sensor = dataclasses.replace(CONTRACT.sensor, bands=tuple(map(str, range(bands))), ratio=ratio)
    return dataclasses.replace(CONTRACT, sensor=sensor)


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"key": "value"},
        {"empty": "", "": "no key"},
        {f"k{i}": "ü" * i for i in range(300)},
        {METADATA_KEY: CONTRACT.to_json()},
    ],
)
def test_metadata_is_what_onnx_wrote(tmp_path: Path, metadata: dict[str, str]) -> None:
    assert models.metadata(write_model(tmp_path / "m.onnx", metadata, weights=5000)) == metadata


def test_the_contract_comes_back(tmp_path: Path) -> None:
    assert models.contract(write_model(tmp_path / "m.onnx", {METADATA_KEY: CONTRACT.to_json()})) == CONTRACT


@pytest.mark.parametrize("metadata", [{}, {METADATA_KEY: "{"}, {METADATA_KEY: '{"sensor": 1}'}])
def test_a_model_without_a_valid_contract(tmp_path: Path, metadata: dict[str, str]) -> None:
    path = write_model(tmp_path / "m.onnx", metadata)
    with pytest.raises(ContractError, match=r"m\.onnx"):
        models.contract(path)


def test_no_cut_or_changed_byte_gives_anything_but_an_explained_error(tmp_path: Path) -> None:
    whole = write_model(tmp_path / "m.onnx", {"key": "value"}).read_bytes()
    damaged = [whole[:end] for end in range(len(whole))]
    damaged += [
        whole[:i] + bytes([whole[i] ^ flip]) + whole[i + 1 :] for i in range(len(whole)) for flip in (1, 0x80)
    ]
    path = tmp_path / "damaged.onnx"
    for data in damaged:
        path.write_bytes(data)
        try:
            models.metadata(path)  # a changed byte inside the graph goes unseen here
        except InputError as error:
            assert "damaged.onnx" in str(error)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x08", id="cut varint"),
        pytest.param(b"\xff" * 64, id="endless varint"),
        pytest.param(b"hello, world", id="text"),
        pytest.param(b"\x72\xff\xff\xff\xff\x0f", id="length beyond the end"),
        pytest.param(b"\x00" * 16, id="zeros"),
        pytest.param(b"\x0b\x0c", id="group"),
        pytest.param(b"\x72\x04\x0a\x02\xff\xfe\x3a\x00", id="no UTF-8"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(InputError, match="no ONNX model"):
        models.metadata(path)


def test_a_missing_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        models.metadata(tmp_path / "none.onnx")
    with pytest.raises(InputError, match="directory"):
        models.metadata(tmp_path)


def test_the_model_that_fits_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "FOLDER", tmp_path)
    for name, bands, ratio in (("a", 4, 4), ("b", 3, 2), ("c", 4, 2)):
        write_model(tmp_path / f"{name}.onnx", {METADATA_KEY: of_sensor(bands, ratio).to_json()})
    assert [path.name for path, _ in models.shipped()] == ["a.onnx", "b.onnx", "c.onnx"]
    assert models.choose(3, 2).name == "b.onnx"
    assert models.choose(4, 2).name == "c.onnx"
    with pytest.raises(
        MismatchError, match=r"8 MS bands at ratio 4.*a\.onnx for 4 bands at ratio 4.*--model"
    ):
        models.choose(8, 4)


def test_nothing_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "FOLDER", tmp_path / "none")
    with pytest.raises(MismatchError, match="shipped: none"):
        models.choose(4, 4)


def test_the_models_in_the_package_can_be_read() -> None:
    for path, contract in models.shipped():
        assert models.choose(len(contract.sensor.bands), contract.sensor.ratio).parent == path.parent
