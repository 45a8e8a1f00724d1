"""How is a trained network kept, and how does the authors' `.pth` become one of ours?

A checkpoint is one `.safetensors` file: the tensors, and in its metadata the format, the architecture
(`sfiin`, or a baseline's name), the network's configuration, the sensor profile and a record of the training,
each a JSON document. Nothing in it can run code.
"""

from __future__ import annotations

import json
import pickle
import re
import struct
import warnings
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
from sfiin.runtime.contract import CHECKPOINT_FORMAT, SensorProfile, decode, encode
from sfiin.runtime.errors import CheckpointError, ContractError
from sfiin.runtime.files import publish

Architecture = Literal["sfiin", "pnn", "pannet"]

ARCHITECTURES: dict[Architecture, tuple[type[Any], type[Any]]] = {
    "sfiin": (NetworkConfig, SFIIN),
    "pnn": (BaselineConfig, PNN),
    "pannet": (BaselineConfig, PanNet),
}
"""Each architecture's configuration and network."""


@dataclass(frozen=True)
class Checkpoint:
    """A network on the CPU in float32, in evaluation mode, with the record of how it was trained."""

    network: PanSharpener
    training: Mapping[str, Any] = field(default_factory=dict)


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, atomically. Raises OutputError when that fails."""
    network = checkpoint.network
    metadata = {
        "format": CHECKPOINT_FORMAT,
        "architecture": architecture(network),
        "network": encode(network.config),
        "sensor": encode(network.sensor),
        "training": json.dumps(dict(checkpoint.training), sort_keys=True),
    }
    tensors = {
        name: tensor.detach().float().cpu().contiguous() for name, tensor in network.state_dict().items()
    }
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
    except (SafetensorError, OSError) as error:
        hint = "; read the authors' .pth with 'sfiin import'" if path.suffix in {".pth", ".pt"} else ""
        raise CheckpointError(f"{path}: not a readable .safetensors file ({error}){hint}") from None
    if metadata.get("format") != CHECKPOINT_FORMAT:
        raise CheckpointError(
            f"{path}: not an sfiin checkpoint (format {metadata.get('format')!r}, not '{CHECKPOINT_FORMAT}')"
        )
    name = metadata.get("architecture")
    if name not in ARCHITECTURES:
        raise CheckpointError(f"{path}: unknown architecture {name!r}; known: {', '.join(ARCHITECTURES)}")
    configuration, kind = ARCHITECTURES[cast(Architecture, name)]
    try:
        config = decode(configuration, _completed(name, metadata.get("network", "")), "network")
        sensor = decode(SensorProfile, metadata.get("sensor", ""), "sensor")
        network: PanSharpener = kind(config, sensor)
        training = json.loads(metadata.get("training", "{}"))
    except (ContractError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from None
    return Checkpoint(_filled(network, tensors, path), training)


def _completed(architecture: str | None, text: str) -> str:
    """A network's configuration as JSON, with the options that were not there when it was written."""
    try:
        document = json.loads(text)
    except ValueError:
        return text  # what is wrong with it, the decoder says
    if architecture != "sfiin" or not isinstance(document, dict):
        return text
    return json.dumps({"normalise": "none", "inject": "none"} | document)


def fuser(network: PanSharpener) -> Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]:
    """The network as a function of NumPy batches, as a session's `run`: ms and pan in DN to HRMS in DN."""
    device = next(network.parameters()).device

    def fuse(ms: NDArray[np.float32], pan: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad():
            fused: Tensor = network(torch.from_numpy(ms).to(device), torch.from_numpy(pan).to(device))
            return np.asarray(fused.cpu().numpy())

    return fuse


def load_authors(path: Path, sensor: SensorProfile) -> Checkpoint:
    """Read a `.pth` in the layout of the authors' release (tensors only; a pickle that holds more is
    refused).

    Bands, channels and the number of core blocks are read off the tensors' shapes; the sensor's profile,
    which the file does not hold, is given. Raises CheckpointError for another layout, or another number of
    bands than the sensor's.
    """
    tensors = {authors_name(name): tensor for name, tensor in _authors_tensors(path).items()}
    try:
        channels, bands = tensors["ms_head.weight"].shape[:2]
        blocks = tensors["gather.weight"].shape[1] // channels
        network = SFIIN(NetworkConfig(bands, channels, blocks, sensor.ratio, "invertible"), sensor)
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: not the authors' SFIIN for this sensor ({error})") from None
    return Checkpoint(_filled(network, tensors, path), {"imported": path.name})


def authors_name(name: str) -> str:
    """Our name for a tensor of the authors' release; a name that is not theirs comes back as something not
    ours."""
    for pattern, replacement in _AUTHORS_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


_AUTHORS_NAMES = (
    (r"^module\.", ""),
    (r"^process\.conv_p\.", "ms_head."),
    (r"^process\.conv_p1\.", "pan_head."),
    (r"^process\.fuse\.", "gather."),
    (r"^process\.block\.", "blocks.0."),
    (r"^process\.block(\d+)\.", r"blocks.\1."),
    (r"\.panprocess\.", ".pan."),
    (r"\.panpre\.", ".project."),
    (r"\.fre_process\.pre1\.", ".frequency.ms."),
    (r"\.fre_process\.pre2\.", ".frequency.pan."),
    (r"\.fre_process\.amp_fuse\.", ".frequency.amplitude."),
    (r"\.fre_process\.pha_fuse\.", ".frequency.phase."),
    (r"\.fre_process\.post\.", ".frequency.out."),
    (r"\.spa_process\.1\.", ".spatial.out."),
    (r"\.spa_process\.0\.F\.", ".spatial.shift_first."),
    (r"\.spa_process\.0\.G\.", ".spatial.shift_second."),
    (r"\.spa_process\.0\.H\.", ".spatial.scale_second."),
    (r"\.conv3\.", ".out."),
    (r"\.conv1\.", ".first."),
    (r"\.conv2\.", ".second."),
    (r"\.identity\.", ".shortcut."),
    (r"\.conv_1\.", ".first."),
    (r"\.conv_2\.", ".second."),
    (r"\.spa_process\.0\.invconv\.p$", ".spatial.mix.permutation"),
    (r"\.spa_process\.0\.invconv\.sign_s$", ".spatial.mix.sign"),
    (r"\.spa_process\.0\.invconv\.l$", ".spatial.mix.lower"),
    (r"\.spa_process\.0\.invconv\.u$", ".spatial.mix.upper"),
    (r"\.spa_process\.0\.invconv\.log_s$", ".spatial.mix.log_diagonal"),
    (r"\.spa_att\.", ".compensation."),
    (r"\.cha_att\.", ".attention."),
    (r"^(blocks\.\d+)\.post\.", r"\1.merge."),
    (r"^refine\.conv_in\.", "refine.head."),
    (r"^refine\.conv_last\.", "refine.tail."),
    (r"^refine\.process\.0\.conv_du\.", "refine.attention."),
    (r"^refine\.process\.0\.process\.", "refine.process."),
)


# What the restricted unpickler raises over bytes that are no pickle, or one that holds more than tensors.
_UNPICKLING = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    OSError,
    LookupError,
    ValueError,
    TypeError,
    struct.error,
)


def _authors_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():  # torch warns of pickles that it is about to refuse
            warnings.simplefilter("ignore")
            document = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except _UNPICKLING as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{path}: not a file of tensors only ({reason}); save it again as a plain state_dict"
        ) from None
    for key in ("net", "state_dict", "model"):
        if isinstance(document, dict) and isinstance(document.get(key), dict):
            document = document[key]
    if not isinstance(document, dict) or not all(isinstance(value, Tensor) for value in document.values()):
        raise CheckpointError(f"{path}: holds no state_dict of tensors")
    return document


def _filled(network: PanSharpener, tensors: Mapping[str, Tensor], path: Path) -> PanSharpener:
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
