"""How do the weights of another program become an SFIIN of ours? By their names, whatever was put around
them.

Trainers wrap a network's weights in a document, put prefixes before their names, and leave counters among
them. Behind that stand the names of the authors' release, or our own. Bands, channels and the number of core
blocks are read off the tensors' shapes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sfiin.model import foreign_file
from sfiin.model.checkpoint import Checkpoint, filled
from sfiin.model.network import SFIIN, NetworkConfig, Resampling, SpatialBranch
from sfiin.runtime.contract import SensorProfile
from sfiin.runtime.errors import CheckpointError

PREFERRED = (
    "params_ema",
    "ema",
    "model_ema",
    "state_dict_ema",
    "ema_state_dict",
    "net",
    "state_dict",
    "model_state_dict",
    "model",
    "params",
)
"""Keys under which the weights to deploy lie, where there are several: smoothed ones first."""

_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_MODULES = {"process", "refine", "ms_head", "pan_head", "blocks", "gather"}
"""First parts of the names of an SFIIN's tensors, the authors' and ours."""

_COUNTERS = {"total_ops", "total_params", "n_averaged", "num_batches_tracked"}
_ANCHORS = ("process.conv_p.weight", "ms_head.weight")
_REPARAMETERISED = re.compile(r"\.(parametrizations\.|weight_[guv]$|weight_orig$)")


@dataclass(frozen=True)
class Weights:
    """An SFIIN's tensors by our names, and what is to be said of how they were found."""

    tensors: Mapping[str, Tensor]
    notes: tuple[str, ...]

    @property
    def channels(self) -> int:
        """The network's feature channels."""
        return int(self.tensors["ms_head.weight"].shape[0])

    @property
    def bands(self) -> int:
        """The bands of MS."""
        return int(self.tensors["ms_head.weight"].shape[1])


def read(path: Path) -> Weights:
    """The weights of an SFIIN in a file of another program. Raises CheckpointError for any other file."""
    document = foreign_file.read(path)
    found = list(foreign_file.tensors_in(document))
    if not found:
        raise CheckpointError(f"{path}: holds no state_dict of tensors")
    candidates = [(keys, *split) for keys, tensors in found if (split := _behind_prefix(tensors))]
    if not candidates:
        raise CheckpointError(_no_sfiin(path, found))
    most = max(len(own) for _, own, _ in candidates)
    whole = [candidate for candidate in candidates if len(candidate[1]) == most]  # averages may lack buffers
    keys, tensors, other = min(whole, key=lambda candidate: _rank(candidate[0]))
    for name, tensor in tensors.items():
        _require_plain(name, tensor, path)
    notes = []
    if len(candidates) > 1:
        left = ", ".join(
            ".".join(other_keys) or "the top" for other_keys, *_ in candidates if other_keys != keys
        )
        notes.append(f"taken from '{'.'.join(keys) or 'the top'}'; there are weights under {left}, too")
    other += [name for name in tensors if not _is_inside(ours(name))]
    if other:
        named = ", ".join(other[:3])
        notes.append(
            f"left out: {len(other)} tensors that are not the network's "
            f"({named}{', ...' if other[3:] else ''})"
        )
    if any(tensor.dtype in (torch.float16, torch.bfloat16) for tensor in tensors.values()):
        notes.append("its weights are in half precision, and are kept in float32")
    inside = {ours(name): tensor for name, tensor in tensors.items()}
    weights = Weights({name: tensor for name, tensor in inside.items() if _is_inside(name)}, tuple(notes))
    _require_order(weights.tensors, path)
    return weights


def _require_plain(name: str, tensor: Tensor, path: Path) -> None:
    """Raise CheckpointError for a tensor that holds no plain real numbers."""
    signs = name.rpartition(".")[2] in ("p", "sign_s", "permutation", "sign")
    kind = "" if tensor.dtype.is_floating_point or (signs and not tensor.is_complex()) else str(tensor.dtype)
    if tensor.is_meta or tensor.is_quantized or tensor.layout is not torch.strided or kind:
        what = "without data" if tensor.is_meta else kind.removeprefix("torch.") or "of no plain layout"
        raise CheckpointError(
            f"{path}: {name[:80]} is {what}, not of floating point; save the weights that it was converted "
            "from"
        )


def _require_order(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise CheckpointError for convolutions that are not (outputs, inputs, rows, columns), as PyTorch has
    them."""
    for name, inputs in (("ms_head.weight", None), ("pan_head.weight", 1)):
        shape = tuple(tensors[name].shape) if name in tensors else (1, inputs or 1, 3, 3)
        if len(shape) != 4 or shape[2:] != (3, 3) or inputs not in (None, shape[1]):
            raise CheckpointError(
                f"{path}: {theirs(name)} is {shape}, not (channels, {inputs or 'bands'}, 3, 3): its axes lie "
                "in another order than PyTorch's, or it is another network"
            )


def as_checkpoint(
    weights: Weights, sensor: SensorProfile, path: Path, resample: str = "half-pixel"
) -> Checkpoint:
    """The weights as a network for a sensor. Raises CheckpointError, naming `path`, where they do not fit."""
    tensors = weights.tensors
    if weights.bands != len(sensor.bands):
        raise CheckpointError(
            f"{path}: not for this sensor: the network has {weights.bands} bands, '{sensor.name}' has "
            f"{len(sensor.bands)} ({', '.join(sensor.bands)}); name its sensor with --sensor, or its bands "
            "with --bands"
        )
    gather = tensors.get("gather.weight")
    if gather is None:
        raise CheckpointError(f"{path}: lacks {theirs('gather.weight')}; the checkpoint is not complete")
    spatial: SpatialBranch = (
        "invertible" if any(".spatial.mix." in name for name in tensors) else "convolution"
    )
    way: Resampling = "align-corners" if resample == "align-corners" else "half-pixel"
    try:
        blocks = gather.shape[1] // weights.channels
        config = NetworkConfig(weights.bands, weights.channels, blocks, sensor.ratio, spatial, resample=way)
        network = SFIIN(config, sensor)
    except (ValueError, IndexError, ZeroDivisionError) as error:
        raise CheckpointError(f"{path}: not the shapes of an SFIIN ({error})") from None
    expected = network.state_dict()
    known = {name: tensor for name, tensor in tensors.items() if name in expected}
    _require_all(expected, known, path)
    more = sorted(name for name in set(tensors) - set(known) if _is_inside(name))
    if more:
        named = ", ".join(theirs(name) for name in more[:3])
        raise CheckpointError(
            f"{path}: has {len(more)} tensors that SFIIN has no place for ({named}); without them it would "
            "be another network, so it is not imported"
        )
    return Checkpoint(filled(network, known, path), {"imported": path.name})


def _require_all(expected: Mapping[str, Tensor], known: Mapping[str, Tensor], path: Path) -> None:
    lacking = [name for name in expected if name not in known]
    if lacking:
        named = ", ".join(theirs(name) for name in lacking[:3])
        raise CheckpointError(
            f"{path}: lacks {len(lacking)} tensors of an SFIIN ({named}); save the whole network again"
        )
    for name, tensor in known.items():
        if name.endswith(".mix.permutation") and not _is_permutation(tensor):
            raise CheckpointError(f"{path}: {theirs(name)} is no permutation; the file is damaged")
        if not tensor.isfinite().all():
            raise CheckpointError(f"{path}: {theirs(name)} holds NaN or infinity; its training diverged")
        if tensor.shape != expected[name].shape:
            wanted = tuple(expected[name].shape)
            raise CheckpointError(
                f"{path}: {theirs(name)} is {tuple(tensor.shape)}, but {wanted} in such an SFIIN"
            )


def _behind_prefix(
    tensors: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], list[str]] | None:
    """The network's tensors without what stands before their names, and the names of all others; None if
    none."""
    clean: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        parts = [part for part in name.split(".") if part not in _WRAPPERS]
        clean.setdefault(".".join(parts), tensor)
    prefixes = [
        name.removesuffix(anchor)
        for anchor in _ANCHORS
        for name in clean
        if name == anchor or name.endswith(f".{anchor}")
    ]
    if not prefixes:
        return None
    prefix = min(prefixes, key=lambda prefix: ("ema" not in prefix.lower(), len(prefix)))
    own, other = {}, []
    for name, tensor in clean.items():
        if name.rpartition(".")[2] in _COUNTERS:
            continue
        if name.startswith(prefix):
            own[name.removeprefix(prefix)] = tensor
        else:
            other.append(name)
    return own, other


def _is_inside(name: str) -> bool:
    """Whether a tensor, by our name, lies in the network; what lies beside it, such as a loss, is left
    out."""
    return name.partition(".")[0] in _MODULES


def _is_permutation(matrix: Tensor) -> bool:
    """One 1 in each row and column, and 0 elsewhere."""
    if matrix.dim() != 2:
        return False
    values = matrix.float()
    zero_or_one = ((values == 0) | (values == 1)).all()
    return bool(zero_or_one and (values.sum(0) == 1).all() and (values.sum(1) == 1).all())


def _rank(keys: tuple[str, ...]) -> tuple[int, int]:
    known = [PREFERRED.index(key) for key in keys if key in PREFERRED]
    return min(known, default=len(PREFERRED)), len(keys)


def _no_sfiin(path: Path, found: list[tuple[tuple[str, ...], dict[str, Tensor]]]) -> str:
    """What the weights are instead, as far as that can be told."""
    _, tensors = max(found, key=lambda entry: len(entry[1]))
    name = next(iter(tensors))
    weights = [tensor for tensor in tensors.values() if tensor.dim() == 4]
    shapes = f"its tensors begin with {name[:60]} {tuple(tensors[name].shape)}"
    if any(_REPARAMETERISED.search(name) for name in tensors):
        return (
            f"{path}: its weights are kept in parts (weight or spectral normalisation); remove that before "
            "saving, with torch.nn.utils.parametrize.remove_parametrizations or remove_weight_norm"
        )
    if len(weights) == 3 and weights[0].shape[-1] == 9:
        return f"{path}: a PNN, no SFIIN ({shapes}); 'sfiin train --architecture pnn' trains one"
    return (
        f"{path}: no SFIIN: {shapes}; "
        "import knows the names of the authors' release (process.conv_p) and our own"
    )


def ours(name: str) -> str:
    """Our name for a tensor of the authors' release; a name that is not theirs comes back as it is."""
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def theirs(name: str) -> str:
    """A name of ours as the authors' release spells it, for messages."""
    parts = re.fullmatch(r"blocks\.(\d+)\.(.*)", name)
    if parts:
        block = f"process.block{parts[1] if int(parts[1]) else ''}"
        return f"{block}.{_inner(parts[2])}"
    for ours_, theirs_ in _OUTER.items():
        if name.startswith(f"{ours_}."):
            return f"{theirs_}{name.removeprefix(ours_)}"
    return name


def _inner(name: str) -> str:
    if name.startswith("spatial.mix."):
        return f"spa_process.0.invconv.{_MIX.get(name.rpartition('.')[2], name.rpartition('.')[2])}"
    for ours_, theirs_ in _INNER.items():
        if name.startswith(f"{ours_}."):
            return f"{theirs_}{name.removeprefix(ours_)}"
    return name


_OUTER = {
    "ms_head": "process.conv_p",
    "pan_head": "process.conv_p1",
    "gather": "process.fuse",
    "refine.head": "refine.conv_in",
    "refine.tail": "refine.conv_last",
    "refine.attention": "refine.process.0.conv_du",
    "refine.process": "refine.process.0.process",
}
_INNER = {
    "pan": "panprocess",
    "project": "panpre",
    "frequency.ms": "fre_process.pre1",
    "frequency.pan": "fre_process.pre2",
    "frequency.amplitude": "fre_process.amp_fuse",
    "frequency.phase": "fre_process.pha_fuse",
    "frequency.out": "fre_process.post",
    "spatial.out": "spa_process.1",
    "spatial.mix": "spa_process.0.invconv",
    "spatial.shift_first": "spa_process.0.F",
    "spatial.shift_second": "spa_process.0.G",
    "spatial.scale_second": "spa_process.0.H",
    "compensation": "spa_att",
    "attention": "cha_att",
    "merge": "post",
}
_MIX = {"permutation": "p", "sign": "sign_s", "lower": "l", "upper": "u", "log_diagonal": "log_s"}
_NAMES = (
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
