"""How is a trained network kept?

A checkpoint is one `.safetensors` file: the tensors, and in its metadata the format, the architecture
(`sfiin`, or a baseline's name), the network's configuration, the sensor profile and a record of the training,
each a JSON document. Nothing in it can run code.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from sfiin.model.baselines import PNN, BaselineConfig, PanNet
from sfiin.model.network import SFIIN, NetworkConfig, PanSharpener
from sfiin.model.tile_size import for_tile
from sfiin.runtime.contract import CHECKPOINT_FORMAT, SEAL, SensorProfile, decode, encode
from sfiin.runtime.errors import CheckpointError, ContractError
from sfiin.runtime.files import publish

Architecture = Literal["sfiin", "pnn", "pannet"]

ARCHITECTURES: dict[Architecture, tuple[type[Any], type[Any]]] = {
    "sfiin": (NetworkConfig, SFIIN),
    "pnn": (BaselineConfig, PNN),
    "pannet": (BaselineConfig, PanNet),
}
"""Each architecture's configuration and network."""

_FOREIGN = {".pth", ".pt", ".ckpt", ".bin", ".tar", ".pkl", ".pt2"}


@dataclass(frozen=True)
class Checkpoint:
    """A network on the CPU in float32, in evaluation mode, with the record of how it was trained."""

    network: PanSharpener
    training: Mapping[str, Any] = field(default_factory=dict)


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, atomically. Raises OutputError when that fails."""
    network = checkpoint.network
    metadata: dict[str, str] = {
        "format": CHECKPOINT_FORMAT,
        "architecture": architecture(network),
        "network": encode(network.config),
        "sensor": encode(network.sensor),
        "training": json.dumps(dict(checkpoint.training), sort_keys=True),
    }
    tensors = {
        name: tensor.detach().float().cpu().contiguous() for name, tensor in network.state_dict().items()
    }
    metadata[SEAL] = seal(metadata, tensors)
    with publish(path) as part:
        part.write_bytes(serialise(tensors, metadata))


def architecture(network: PanSharpener) -> Architecture:
    """The name under which a network's class is known. Raises KeyError for another class."""
    return {kind: name for name, (_, kind) in ARCHITECTURES.items()}[type(network)]


def load_sfiin(path: Path, tile: tuple[int, int] | None = None) -> SFIIN:
    """The SFIIN in a checkpoint, for the tile that it was trained on or for one of (height, width) PAN
    pixels.

    Raises CheckpointError as `load` does, and for a baseline's checkpoint.
    """
    loaded = load(path)
    network = loaded.network
    if not isinstance(network, SFIIN):
        raise CheckpointError(f"{path}: holds {architecture(network)}, a baseline; this is for SFIIN only")
    return for_tile(network, loaded.training, tile) if tile else network


def load(path: Path) -> Checkpoint:
    """Read a checkpoint. Raises CheckpointError for anything but a complete one of this format."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except (SafetensorError, OSError, ValueError, MemoryError) as error:
        if path.suffix in _FOREIGN:
            raise CheckpointError(
                f"{path}: no checkpoint of sfiin; 'sfiin import {path.name} -o NEW.safetensors' makes one of "
                "weights that another program wrote"
            ) from None
        raise CheckpointError(f"{path}: not a readable .safetensors file ({error})") from None
    if metadata.get("format") != CHECKPOINT_FORMAT:
        raise CheckpointError(
            f"{path}: not an sfiin checkpoint (format {metadata.get('format')!r}, not "
            f"'{CHECKPOINT_FORMAT}'); 'sfiin import {path.name} -o NEW.safetensors' makes one of an SFIIN's "
            "weights"
        )
    if metadata.get(SEAL, "") not in ("", seal(metadata, tensors)):
        raise CheckpointError(f"{path}: {SEAL}: changed since it was written; it is damaged, fetch it again")
    name = metadata.get("architecture", "sfiin")  # the first version knew no other
    if name not in ARCHITECTURES:
        raise CheckpointError(f"{path}: unknown architecture {name!r}; known: {', '.join(ARCHITECTURES)}")
    configuration, kind = ARCHITECTURES[cast(Architecture, name)]
    try:
        config = decode(configuration, _completed(name, metadata.get("network", "")), "network")
        sensor = decode(SensorProfile, metadata.get("sensor", ""), "sensor")
        _require_plausible(config, tensors)
        network: PanSharpener = kind(config, sensor)
        training = _record(metadata.get("training", "{}"))
    except (ContractError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from None
    return Checkpoint(filled(network, tensors, path), training)


def _record(text: str) -> dict[str, Any]:
    """The record of a training, in which a figure may be NaN. Raises ValueError for anything else."""
    try:
        record = json.loads(text)
    except RecursionError:
        raise ValueError("training: nested too deep") from None
    if not isinstance(record, dict):
        raise ValueError("training: no JSON object")  # noqa: TRY004 (a file's fault, not the caller's)
    return record


def seal(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) over a checkpoint's metadata, but for itself, and its tensors, by name."""
    found = hashlib.sha256()
    for key in sorted(set(metadata) - {SEAL}):
        found.update(json.dumps([key, metadata[key]]).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        found.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _require_plausible(config: Any, tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError for a configuration far beyond the tensors, before a network of its size is made."""
    largest = max((side for tensor in tensors.values() for side in tensor.shape), default=0)
    for field_ in dataclasses.fields(config):
        value = getattr(config, field_.name)
        if isinstance(value, int) and value > max(64, largest):
            raise ValueError(f"network.{field_.name}: {value} is more than its tensors are large")


def _completed(architecture: str | None, text: str) -> str:
    """A network's configuration as JSON, with the options that were not there when it was written."""
    try:
        document = json.loads(text)
    except ValueError:
        return text  # what is wrong with it, the decoder says
    if architecture != "sfiin" or not isinstance(document, dict):
        return text
    earlier = {
        "branches": "both",
        "interaction": "dual",
        "normalise": "none",
        "inject": "none",
        "resample": "half-pixel",
    }
    return json.dumps(earlier | document)


def fuser(network: PanSharpener) -> Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]:
    """The network as a function of NumPy batches, as a session's `run`: ms and pan in DN to HRMS in DN."""
    device = next(network.parameters()).device

    def fuse(ms: NDArray[np.float32], pan: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad():
            fused: Tensor = network(torch.from_numpy(ms).to(device), torch.from_numpy(pan).to(device))
            return np.asarray(fused.cpu().numpy())

    return fuse


def filled(network: PanSharpener, tensors: Mapping[str, Tensor], path: Path) -> PanSharpener:
    """The network with these tensors, in float32 and evaluation mode. Raises CheckpointError, naming
    `path`."""
    try:
        network.load_state_dict(dict(tensors))
    except RuntimeError as error:
        problem = " ".join(str(error).split())
        raise CheckpointError(f"{path}: its tensors do not fit its configuration: {problem[:300]}") from None
    bad = [name for name, tensor in network.state_dict().items() if not tensor.isfinite().all()]
    if bad:
        raise CheckpointError(
            f"{path}: tensor '{bad[0]}' holds NaN or infinity; the training that wrote it diverged"
        )
    return network.float().eval()
