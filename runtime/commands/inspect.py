"""What is this file? `sfiin inspect` tells a checkpoint, a model and a scene apart by what they hold."""

from __future__ import annotations

import dataclasses
import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sfiin.runtime.commands.console import print_json, print_table
from sfiin.runtime.commands.options import Json, Quiet
from sfiin.runtime.contract import CHECKPOINT_FORMAT, NEEDS
from sfiin.runtime.errors import CheckpointError, InputError, SceneError, SfiinError

_METADATA = (".txt", ".imd", ".xml", ".dim", ".json")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def inspect(
    *,
    file: Annotated[
        Path,
        typer.Argument(help="A checkpoint, a model, an image, or a delivery's folder.", show_default=False),
    ],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what a checkpoint, a model or a scene is."""
    document = describe(file)
    if as_json:
        print_json(document)
    elif not quiet:
        print_table(f"{file}: {document['kind']}", _flat(document))


def describe(path: Path) -> dict[str, Any]:
    """What a file is, as a JSON document whose `kind` is "checkpoint", "model" or "scene".

    Raises InputError for a file that is missing or of another kind, and its subclasses, or ContractError, for
    a damaged one.
    """
    if path.is_dir() or (path.suffix.lower() in _METADATA and _is_delivery(path)):
        return _delivery(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    about = {"file": str(path), "bytes": size}
    if head.startswith(_TIFF):
        return {"kind": "scene", **about, **_scene(path)}
    if head[8:] == b"{" and int.from_bytes(head[:8], "little") <= size - 8:
        return {"kind": "checkpoint", **about, **_checkpoint(path)}
    if _is_pickle(path, head):
        raise CheckpointError(
            f"{path}: weights of PyTorch, which are a program; 'sfiin import {path.name} -o NEW.safetensors' "
            "makes a checkpoint of them, and runs none of it"
        )
    return {**_model_or_image(path), **about}


def _is_pickle(path: Path, head: bytes) -> bool:
    """Whether a file begins as a pickle does, or is an archive that holds one."""
    if not head.startswith(b"PK"):
        return head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(("data.pkl", "archive_format")) for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError):
        return False


def _model_or_image(path: Path) -> dict[str, Any]:
    """A file without a signature is tried as a model; GDAL, which reads a hundred formats, has the last
    word."""
    from sfiin.runtime import models

    try:
        metadata = models.metadata(path)
    except InputError:
        try:
            return {"kind": "scene", **_scene(path)}
        except SceneError:
            raise InputError(
                f"{path}: neither a checkpoint, nor an ONNX model, nor an image that GDAL reads"
            ) from None
    contract = models.read_contract(metadata, path)
    return {"kind": "model", "needs": NEEDS[contract.lowering], "contract": dataclasses.asdict(contract)}


def _scene(path: Path) -> dict[str, Any]:
    from sfiin.runtime.scenes import scene

    document = scene.describe(path)
    # JSON has no NaN, the usual nodata of floats.
    nodata = document["nodata"]
    return {**document, "nodata": str(nodata) if nodata is not None and not math.isfinite(nodata) else nodata}


def _is_delivery(path: Path) -> bool:
    from sfiin.runtime.scenes.deliveries import is_delivery

    return is_delivery(path)


def _delivery(path: Path) -> dict[str, Any]:
    """A provider's delivery: what is PAN and MS, and which shipped model fits."""
    from sfiin.runtime.scenes.deliveries import find
    from sfiin.runtime.station.fitting import fitting

    found = find(path)
    try:
        model = fitting(found.pan, found.ms, None, found.bands).name
    except SfiinError as error:
        model = f"none: {error}"
    images = {"pan_image": _scene(found.pan), "ms_image": _scene(found.ms[0])}
    return {"kind": "delivery", "file": str(path), **found.document(), **images, "model": model}


def _checkpoint(path: Path) -> dict[str, Any]:
    metadata, tensors = _header(path)
    found = metadata.get("format")
    if found != CHECKPOINT_FORMAT:
        raise CheckpointError(
            f"{path}: a .safetensors file, but no sfiin checkpoint (format {found!r}); weights of an SFIIN "
            f"become one by 'sfiin import {path.name} -o NEW.safetensors'"
        )
    documents = {key: _document(path, key, metadata.get(key)) for key in ("network", "sensor", "training")}
    parameters = sum(math.prod(shape) for shape in tensors.values())
    return {"format": found, "tensors": len(tensors), "parameters": parameters, **documents}


def _header(path: Path) -> tuple[dict[str, str], dict[str, list[int]]]:
    """Metadata and the tensors' shapes from the header of a .safetensors file.

    That is the header's length in eight bytes, little-endian, then the header, in JSON; the tensors' bytes
    follow.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length)
    try:
        header = json.loads(text)
        metadata = dict(header.pop("__metadata__", {}))
        end = max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
        complete = path.stat().st_size == 8 + length + end
        shapes = {name: [int(side) for side in tensor["shape"]] for name, tensor in header.items()}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        raise CheckpointError(f"{path}: its .safetensors header is damaged") from None
    if not complete:
        raise CheckpointError(
            f"{path}: its size is not what its header says; it was cut short, fetch it again"
        )
    return metadata, shapes


def _document(path: Path, key: str, text: str | None) -> Any:
    try:
        return json.loads(text or "")
    except (ValueError, TypeError):
        raise CheckpointError(f"{path}: its metadata hold no JSON document '{key}'") from None


def _flat(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """A nested document as rows of dotted names and values."""
    for key, value in document.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            yield prefix + key, ", ".join("-" if item is None else str(item) for item in value)
        else:
            yield prefix + key, value
