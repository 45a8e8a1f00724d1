"""Refitting, up to where a GPU would be needed; and what is refused before."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
import torch

from sfiin.data.sensors import SENSORS
from sfiin.export import refit as refit_module
from sfiin.export.refit import exported, refit, require_refittable, require_same_network
from sfiin.model import checkpoint
from sfiin.model.network import SFIIN, NetworkConfig
from sfiin.runtime import extras, golden, models
from sfiin.runtime.backends import plan
from sfiin.runtime.backends.plan import Build, Sidecar
from sfiin.runtime.errors import MismatchError, UnavailableError
from sfiin.runtime.files import sha256

Planned = Callable[..., tuple[Path, Sidecar]]


@pytest.fixture
def planned(small_model: Path, tmp_path: Path) -> Planned:
    """A refittable plan's bytes and sidecar; changes go to the build, or as `contract=` to the contract."""

    def write(contract: dict[str, Any] | None = None, **changes: Any) -> tuple[Path, Sidecar]:
        path = tmp_path / "net.plan"
        path.write_bytes(b"ftrt" + bytes(20) + bytes((10, 3, 0, 26)))
        shutil.copy(golden.beside(small_model), golden.beside(path))
        build = Build(
            "tensorrt",
            "10.3.0.26",
            "Orin",
            ("8.7",),
            (1, 1, 4),
            sha256(small_model),
            sha256(path),
            True,
            False,
            False,
            "none",
            "",
            False,
            {},
            1.0,
        )
        promised = dataclasses.replace(models.contract(small_model), **(contract or {}))
        sidecar = Sidecar(promised, dataclasses.replace(build, **changes))
        plan.update(path, sidecar)
        return path, sidecar

    return write


def saved(path: Path, sensor: str = "vhr4", **config: Any) -> Path:
    torch.manual_seed(7)
    network = SFIIN(NetworkConfig(**{"blocks": 1, **config}), SENSORS[sensor].profile)
    checkpoint.save(path, checkpoint.Checkpoint(network))
    return path


@pytest.mark.parametrize(
    ("build", "contract", "weights", "said"),
    [
        ({"refittable": False}, {}, {}, "refittable: it was not built for that"),
        ({}, {"precision": "fp16"}, {}, "precision: .* fp16 was decided by the old ones"),
        ({}, {}, {"channels": 16}, r"network\.channels: 16, but 8 in"),
        ({}, {}, {"blocks": 2}, r"network\.blocks: 2, but 1 in"),
        ({}, {}, {"sensor": "gaofen2"}, "sensor: 'gaofen2', but"),
    ],
)
def test_what_cannot_be_refitted_is_refused_by_field(
    planned: Planned,
    tmp_path: Path,
    build: dict[str, Any],
    contract: dict[str, Any],
    weights: dict[str, Any],
    said: str,
) -> None:
    path, _ = planned(contract, **build)
    with pytest.raises(MismatchError, match=said):
        refit(path, saved(tmp_path / "new.safetensors", **weights), tmp_path / "new.plan")
    assert not (tmp_path / "new.plan").exists()


def test_new_weights_come_under_the_names_of_the_plans_model(
    planned: Planned, tmp_path: Path, small_model: Path
) -> None:
    path, sidecar = planned()
    weights = saved(tmp_path / "new.safetensors")
    require_refittable(path, sidecar)
    require_same_network(path, sidecar, weights)
    fresh = exported(weights, sidecar.contract, tmp_path)
    old, new = (onnx.load(file).graph for file in (small_model, fresh))
    assert [(weight.name, tuple(weight.dims)) for weight in old.initializer] == [
        (weight.name, tuple(weight.dims)) for weight in new.initializer
    ]
    assert [node.op_type for node in old.node] == [node.op_type for node in new.node]
    assert any(a.raw_data != b.raw_data for a, b in zip(old.initializer, new.initializer, strict=True))
    golden.read(golden.beside(fresh), models.contract(fresh))


class TensorRT:
    """TensorRT as far as a refit uses it, which takes what it is given: the new plan is a plan of its own."""

    __version__ = "10.3.0.26"

    class Logger:
        ERROR = 0

        def __init__(self, level: int) -> None:
            pass

    class SerializationFlag:
        EXCLUDE_WEIGHTS = 0

    def __init__(self) -> None:
        self.given: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        made = SimpleNamespace(
            deserialize_cuda_engine=self.engine,
            refit_from_file=self.take,
            refit_cuda_engine=lambda: True,
            num_errors=0,
        )
        if name in ("Runtime", "Refitter", "OnnxParserRefitter"):
            return lambda *_: made
        raise AttributeError(name)

    def take(self, path: str) -> bool:
        self.given.append(Path(path).read_bytes())
        return True

    @staticmethod
    def engine(data: bytes) -> Any:
        config = SimpleNamespace(clear_flag=lambda _flag: True)
        return SimpleNamespace(
            create_serialization_config=lambda: config, serialize_with_config=lambda _config: data + b"new"
        )


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> TensorRT:
    """As on a Jetson: TensorRT, and no torch."""
    trt = TensorRT()
    monkeypatch.setattr(refit_module, "require_here", lambda *_: "tensorrt")
    monkeypatch.setattr(refit_module, "import_module", lambda _name: trt)
    monkeypatch.setattr(refit_module, "checked", lambda *_: None)
    monkeypatch.setitem(sys.modules, "torch", None)
    return trt


def test_a_model_that_was_exported_elsewhere_gives_its_weights_without_torch(
    planned: Planned, tmp_path: Path, small_model: Path, library: TensorRT
) -> None:
    path, sidecar = planned()
    (tmp_path / "new").mkdir()
    out = tmp_path / "new" / "new.plan"
    assert refit(path, small_model, out) is None
    assert onnx.load_model_from_string(library.given[0]).graph.initializer[0].name
    fresh = plan.read(out)
    assert fresh.contract == models.contract(small_model)
    assert (fresh.build.model, fresh.build.stripped) == (sha256(small_model), False)
    assert golden.beside(out).read_bytes() == golden.beside(small_model).read_bytes()
    assert sidecar.build.plan != fresh.build.plan


def test_a_model_that_was_exported_otherwise_is_refused_by_field(
    planned: Planned, tmp_path: Path, small_model: Path
) -> None:
    tile = dataclasses.replace(models.contract(small_model).tile, height=64)
    path, _ = planned({"tile": tile})
    with pytest.raises(MismatchError, match=r"tile: .*export it as the plan's model was"):
        refit(path, small_model, tmp_path / "new.plan")


def test_a_checkpoint_needs_torch_and_a_model_does_not(
    planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = saved(tmp_path / "new.safetensors")
    path, _ = planned()
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "torch" else object())
    with pytest.raises(
        UnavailableError, match=r"torch is not installed; a checkpoint \(new.safetensors; a model"
    ):
        refit(path, weights, tmp_path / "new.plan")


def test_without_tensorrt_it_says_what_is_missing(planned: Planned, tmp_path: Path) -> None:
    from importlib.util import find_spec

    if find_spec("tensorrt"):
        pytest.skip("TensorRT is installed")
    path, _ = planned()
    with pytest.raises(UnavailableError, match="needs tensorrt, which is not installed"):
        refit(path, saved(tmp_path / "new.safetensors"), tmp_path / "new.plan")
    assert {file.name for file in tmp_path.iterdir()} == {
        "net.plan",
        "net.plan.json",
        "net.golden.npz",
        "new.safetensors",
    }
