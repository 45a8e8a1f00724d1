"""How do new weights get into a plan without building it again? By a model that holds them, and TensorRT's
refitter.

The model is one that was exported elsewhere as the plan's own was, so that a device needs neither PyTorch nor
ONNX Runtime; or a checkpoint, which is exported here with all that the plan's contract says (tile, lowering,
opset). Either way every weight comes under the name that it has in the plan. The new plan is checked on the
new weights' golden tiles before it appears.
"""

from __future__ import annotations

import dataclasses
import shutil
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx

from sfiin.export import vouched
from sfiin.export.plan_builder import checked, with_exact_inputs
from sfiin.export.targets import targets
from sfiin.runtime import golden, models
from sfiin.runtime.backends import plan, plugin
from sfiin.runtime.backends.plan import Sidecar
from sfiin.runtime.backends.tensorrt_session import require_here
from sfiin.runtime.check import Parity
from sfiin.runtime.contract import Contract
from sfiin.runtime.errors import CheckFailedError, MismatchError, UnavailableError
from sfiin.runtime.extras import requires
from sfiin.runtime.files import check_target, publish, sha256


def refit(path: Path, weights: Path, out: Path) -> Parity | None:
    """Write `out`, the plan with the weights of a model (.onnx) or a checkpoint, its sidecar and golden
    tiles; or nothing.

    Returns its distance from the golden tiles. Raises InputError or ContractError for what is no plan or no
    model, MismatchError for a plan that cannot be refitted or weights of another network, UnavailableError
    for a library or a GPU that is missing, or torch for a checkpoint, CheckFailedError when the library
    refuses the weights or the result is too far from the golden tiles, OutputError.
    """
    check_target(out)
    is_model = weights.suffix == ".onnx"
    if not is_model:
        requires(
            "export",
            "torch",
            what=f"a checkpoint ({weights.name}; a model exported elsewhere, .onnx, does not)",
        )
    sidecar = plan.read(path)
    require_refittable(path, sidecar)
    if is_model:
        require_alike(weights, vouched.load(weights)[1], path, sidecar.contract)
    else:
        require_same_network(path, sidecar, weights)
    trt = import_module(require_here(path, sidecar))
    with TemporaryDirectory() as folder:
        model = weights if is_model else exported(weights, sidecar.contract, Path(folder))
        golden.read(golden.beside(model), models.contract(model))
        beside = golden.beside(out), plan.beside(out)
        with (
            publish(out) as plan_part,
            publish(beside[0]) as golden_part,
            publish(beside[1]) as sidecar_part,
            ExitStack() as also,
        ):
            library = plugin.beside(path)
            if sidecar.build.plugin and not sidecar.build.plugin_inside:
                shutil.copyfile(library, also.enter_context(publish(plugin.beside(out))))
            onnx.save(
                with_exact_inputs(onnx.load(model), sidecar.contract), narrow := Path(folder) / "narrow.onnx"
            )
            plan_part.write_bytes(_refitted(trt, path, sidecar, narrow))
            shutil.copyfile(golden.beside(model), golden_part)
            made = dataclasses.replace(
                sidecar.build, model=sha256(model), plan=sha256(plan_part), stripped=False, checked={}
            )
            fresh = Sidecar(models.contract(model), made)
            distance = checked(plan_part, fresh, golden_part, library)
            (fresh if distance is None else fresh.checked(distance)).write(sidecar_part)
    return distance


def require_refittable(path: Path, sidecar: Sidecar) -> None:
    """Raise MismatchError, naming the field, unless a plan takes other weights."""
    contract = sidecar.contract
    if not sidecar.build.refittable:
        raise MismatchError(
            f"{path}: refittable: it was not built for that; build it again with --refit or --strip"
        )
    if contract.precision != "fp32":
        raise MismatchError(
            f"{path}: precision: which of the weights are {contract.precision} was decided by the old ones; "
            "export and build anew"
        )


def require_alike(model: Path, contract: Contract, path: Path, there: Contract) -> None:
    """Raise MismatchError, naming the field, unless a model was exported as a plan's own was."""
    for name in ("network", "sensor", "tile", "lowering", "precision", "opset", "block"):
        if getattr(contract, name) != getattr(there, name):
            raise MismatchError(
                f"{model}: {name}: {getattr(contract, name)}, but {getattr(there, name)} in {path}; export "
                "it as the plan's model was, or build a plan for it"
            )


def require_same_network(path: Path, sidecar: Sidecar, weights: Path) -> None:
    """Raise MismatchError, naming the field, unless a checkpoint is of a plan's network."""
    from sfiin.model import checkpoint

    contract = sidecar.contract
    network = checkpoint.load_sfiin(weights, (contract.tile.height, contract.tile.width))
    config = dataclasses.asdict(network.config)
    # What a contract of an older version does not name was as it is by default.
    defaults = {field.name: field.default for field in dataclasses.fields(network.config)}
    there_now = defaults | dict(contract.network)
    differing = [name for name, value in config.items() if there_now[name] != value]
    if differing:
        name = differing[0]
        there = there_now[name]
        raise MismatchError(
            f"{weights}: network.{name}: {config[name]}, but {there} in {path}; build a plan for it"
        )
    if network.sensor != contract.sensor:
        raise MismatchError(
            f"{weights}: sensor: '{network.sensor.name}', but {path} is for '{contract.sensor.name}'"
        )


def exported(weights: Path, contract: Contract, folder: Path) -> Path:
    """The checkpoint as the ONNX model that a contract's plan would be built from, with golden tiles
    beside it."""
    from sfiin.export.exporter import export_model

    model = folder / "model.onnx"
    arranged = targets()["ort"] if contract.block > 1 else None
    export_model(weights, model, contract.lowering, contract.tile, opset=contract.opset, target=arranged)
    return model


def _refitted(trt: Any, path: Path, sidecar: Sidecar, model: Path) -> bytes:
    if not hasattr(trt, "OnnxParserRefitter"):
        raise UnavailableError(
            f"TensorRT {trt.__version__} refits by the names of its own layers only; use 10 or later"
        )
    logger = trt.Logger(trt.Logger.ERROR)
    runtime = trt.Runtime(logger)
    plugin.provide(runtime, sidecar.build, plugin.beside(path), path)
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    refitter = trt.Refitter(engine, logger)
    parser = trt.OnnxParserRefitter(refitter, logger)
    if not parser.refit_from_file(str(model)) or not refitter.refit_cuda_engine():
        said = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors)) or "without saying why"
        raise CheckFailedError(f"{path}: TensorRT did not take the weights: {said}; build the plan anew")
    config = engine.create_serialization_config()
    config.clear_flag(trt.SerializationFlag.EXCLUDE_WEIGHTS)
    return bytes(memoryview(engine.serialize_with_config(config)))
