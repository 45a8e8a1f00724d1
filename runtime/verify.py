"""Is an artefact what it says? Whatever can be told of it here, and in words what cannot.

A model is held to its contract and run on its golden tiles; a plan to its sidecar, and run on its golden
tiles where its library and device are; a checkpoint to the digest in it; golden tiles to the contract of the
model beside them; a folder to all of these, and to its signature, if a key is given.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sfiin
from sfiin.runtime import golden, onnx_file, signatures, vouching
from sfiin.runtime.backends import plan
from sfiin.runtime.check import GATES
from sfiin.runtime.contract import CHECKPOINT_FORMAT, METADATA_KEY, SEAL, Contract, Precision
from sfiin.runtime.errors import (
    CheckFailedError,
    CheckpointError,
    InputError,
    MismatchError,
    UnavailableError,
)
from sfiin.runtime.files import check_target, publish

_SUFFIXES = (".onnx", ".plan", ".engine", ".safetensors")
_TORCH = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
}


@dataclass(frozen=True)
class Verdict:
    """What became of an artefact that was not refused: its kind, what is known of it, and what is not."""

    file: str
    kind: str
    known: tuple[str, ...]
    unknown: tuple[str, ...] = ()


def verify(path: Path, key: Path | None = None) -> list[Verdict]:
    """Judge an artefact, or all in a folder; with a `key`, the folder's signature first.

    Raises SfiinError for the first that is not what it says, with the exit code of what is wrong.
    """
    found: list[Verdict] = []
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    folder = path if path.is_dir() else path.parent
    if key is not None:
        signed = signatures.verify(folder, key)
        if path.is_file() and path.name not in signed:
            raise MismatchError(f"{path}: signature: it is not among the files that are signed in {folder}")
        found.append(
            Verdict(str(folder), "signature", (f"{len(signed)} files signed with the key of {key.name}",))
        )
    if path.is_file():
        return [*found, _judge(path)]
    inside = sorted(file for file in path.iterdir() if file.is_file() and file.suffix in _SUFFIXES)
    if not inside:
        raise InputError(f"{path}: no model, plan or checkpoint is in this folder")
    unsigned = (
        ()
        if key or not (path / signatures.NAME).exists()
        else (f"{signatures.NAME} was not verified (--key)",)
    )
    return [*found, *map(_judge, inside), *([Verdict(str(path), "folder", (), unsigned)] if unsigned else [])]


def _judge(path: Path) -> Verdict:
    with path.open("rb") as file:
        head = file.read(9)
    if path.name.endswith(".golden.npz"):
        return _golden(path)
    if head[8:] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size - 8:
        return _checkpoint(path)
    return _plan(path) if plan.is_plan(path) else _model(path)


def _model(path: Path) -> Verdict:
    model = vouching.read(path)
    contract, tiles = model.contract, golden.beside(path)
    known, unknown = [f"{contract.precision} model, graph {model.graph[:12]}"], []
    if model.vouched:
        known.append("its contract was written for these bytes")
    else:
        unknown.append(vouching.vouch(model))
    if model.vouched and contract.lowering == "plugin":
        unknown.append("its golden tiles need TensorRT with the plugin, and were not run")
    elif model.vouched and not tiles.exists():
        unknown.append(f"{tiles.name} is not beside it, so it was not run")
    elif model.vouched:
        known.append(f"golden tiles: {_replayed(model, contract.precision)}")
    if contract.derived:
        known.append(f"adopted from graph {str(contract.derived.get('graph', ''))[:12] or 'unknown'}")
    return Verdict(str(path), "model", tuple(known), tuple(unknown))


def _replayed(model: vouching.VouchedModel, precision: Precision) -> vouching.Replay:
    found, gate = vouching.replay(model), GATES[precision]
    if not found.within(gate):
        raise CheckFailedError(
            f"{model.path}: makes something else of its golden tiles: {found} (gates of {precision}: "
            f"{gate.relative_l2:.0e} and {gate.peak_share:.0e}); get it anew, or export it again"
        )
    return found


def _plan(path: Path) -> Verdict:
    sidecar = plan.read(path)
    golden.read(golden.beside(path), sidecar.contract)
    build = sidecar.build
    known = [
        f"{sidecar.contract.precision} plan of {build.flavour} {build.tensorrt}, SHA-256 {build.plan[:12]}"
    ]
    from sfiin.runtime.backends import tensorrt_session

    try:
        tensorrt_session.open_plan(path).close()
    except UnavailableError as error:
        return Verdict(str(path), "plan", tuple(known), (f"not run here: {error}",))
    return Verdict(str(path), "plan", (*known, "its golden tiles were run on this device"))


def _golden(path: Path) -> Verdict:
    stem = path.name.removesuffix(".golden.npz")
    for name in (f"{stem}.onnx", f"{stem}.plan", f"{stem}.engine"):
        owner = path.with_name(name)
        if owner.is_file():
            contract = plan.contract_of(owner)
            tiles = golden.read(path, contract)
            return Verdict(str(path), "golden tiles", (f"{len(tiles.names)} tiles of {name}",))
    raise InputError(f"{path}: no model or plan of this name is beside it, whose tiles they could be")


def _checkpoint(path: Path) -> Verdict:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + length])
        metadata = {str(key): str(value) for key, value in header.pop("__metadata__", {}).items()}
        found = _seal(metadata, header, memoryview(data)[8 + length :])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(f"{path}: its .safetensors header is damaged; fetch it again") from None
    if metadata.get("format") != CHECKPOINT_FORMAT:
        raise CheckpointError(
            f"{path}: a .safetensors file, but no sfiin checkpoint; 'sfiin import' makes one of it"
        )
    if SEAL not in metadata:
        return Verdict(str(path), "checkpoint", (), ("of an older version, without a digest of itself",))
    if metadata[SEAL] != found:
        raise CheckpointError(f"{path}: {SEAL}: changed since it was written; it is damaged, fetch it again")
    return Verdict(str(path), "checkpoint", (f"{len(header)} tensors, digest {found[:12]}",))


def _seal(metadata: dict[str, str], header: dict[str, Any], data: memoryview) -> str:
    """As `sfiin.model.checkpoint.seal`, from the file and without torch."""
    found = hashlib.sha256()
    for key in sorted(set(metadata) - {SEAL}):
        found.update(json.dumps([key, metadata[key]]).encode())
    for name in sorted(header):
        entry = header[name]
        first, last = entry["data_offsets"]
        shape = [int(side) for side in entry["shape"]]
        found.update(json.dumps([name, f"torch.{_TORCH[entry['dtype']]}", shape]).encode())
        found.update(data[first:last])
    return found.hexdigest()


def adopt(path: Path, out: Path, precision: Precision | None = None) -> Contract:
    """Write a copy of a model whose contract vouches for it as it is, with its golden tiles; the contract.

    The golden tiles must come out within the gate of the model's precision, or of the given one. The contract
    tells what it was derived from. Raises as `vouching.read` and `replay`, CheckFailedError beyond the gate,
    OutputError.
    """
    for target in (out, golden.beside(out)):
        check_target(target)
    model = vouching.read(path)
    found = _replayed(model, precision or model.contract.precision)
    contract = dataclasses.replace(
        model.contract,
        precision=precision or model.contract.precision,
        graph=model.graph,
        derived={
            "graph": model.contract.graph,
            "contract": hashlib.sha256(model.contract.to_json().encode()).hexdigest(),
            "relative_l2": found.relative_l2,
            "peak_share": found.peak_share,
            "sfiin": sfiin.__version__,
        },
    )
    outside = onnx_file.external_files(model.data) if out.parent.resolve() != path.parent.resolve() else []
    with ExitStack() as parts:
        for name in outside:
            place = out.parent / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path.parent / name, parts.enter_context(publish(place)))
        if golden.beside(out) != golden.beside(path):
            shutil.copyfile(golden.beside(path), parts.enter_context(publish(golden.beside(out))))
        part = parts.enter_context(publish(out))
        part.write_bytes(b"".join(_with_contract(model.data, contract)))
    return contract


def _with_contract(data: bytes, contract: Contract) -> Iterator[bytes]:
    """The file's fields in their order, but for the contract, which comes at the end."""
    for field in onnx_file.fields(data, 0, len(data)):
        if not onnx_file.is_entry(data, field, METADATA_KEY):
            yield data[field.begin : field.last]
    yield onnx_file.entry(METADATA_KEY, contract.to_json())
