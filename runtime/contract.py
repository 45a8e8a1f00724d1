"""What does a model promise, and to whom? The contract that travels inside every artefact.

An exported model carries its contract as JSON in the ONNX metadata under `sfiin.contract`. It says which
sensor's digital numbers go in (band names and order, ratio, bits, scale), on which tile, how the Fourier
transform was lowered, in which precision, and from which checkpoint it came, and names by digest the golden
tiles it was checked on.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from sfiin.runtime.errors import ContractError

METADATA_KEY = "sfiin.contract"
FORMAT = "sfiin-contract/1"
CHECKPOINT_FORMAT = "sfiin-checkpoint/1"

Lowering = Literal["matmul", "dft", "plugin"]
Precision = Literal["fp32", "fp16", "mixed", "int8"]

PLUGIN = ("sfiin", "SpectralFusion")
"""Domain and name of the node that the lowering `plugin` makes of a frequency branch."""

NEEDS: Mapping[Lowering, str] = {
    "matmul": "any ONNX runtime",
    "dft": "onnxruntime 1.27 or later",
    "plugin": f"TensorRT with the plugin {'::'.join(PLUGIN)}; onnxruntime cannot run it",
}
"""What runs a model, by its lowering."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class SensorProfile:
    """What the sensor delivers, as the network expects it.

    `bands` are the MS bands' names in order; `ratio` is MS pixel size over PAN pixel size; `bits` is the
    nominal bit depth of the digital numbers (DN); `scale` is the DN that the network sees as 1.0.
    """

    name: str
    bands: tuple[str, ...]
    ratio: int
    bits: int
    scale: float

    def __post_init__(self) -> None:
        if not self.bands:
            raise ContractError("sensor.bands: must name at least one band")
        if self.ratio < 2:
            raise ContractError(f"sensor.ratio: must be 2 or more, not {self.ratio}")
        if not 1 <= self.bits <= 32:
            raise ContractError(f"sensor.bits: must lie in 1..32, not {self.bits}")
        if not self.scale > 0:
            raise ContractError(f"sensor.scale: must be positive, not {self.scale}")

    @property
    def peak(self) -> int:
        """The largest DN of the nominal bit depth, the peak of PSNR: 2**bits - 1."""
        return (1 << self.bits) - 1


@dataclass(frozen=True)
class Tile:
    """The size a model runs on, in PAN pixels; amplitudes depend on it, so it is part of the model.

    `overlap` is how many PAN pixels neighbouring tiles of a scene share.
    """

    height: int
    width: int
    overlap: int

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ContractError(f"tile: sides must be positive, not {self.height}x{self.width}")
        if not 0 <= self.overlap < min(self.height, self.width):
            raise ContractError(
                f"tile.overlap: must lie in 0..{min(self.height, self.width) - 1}, not {self.overlap}"
            )


@dataclass(frozen=True)
class Contract:
    """Everything a runtime must know, and may refuse over, before it runs a model.

    `network` is the network's configuration; `checkpoint` and `golden` are SHA-256 digests (hex) of the
    checkpoint's and the golden tiles' files; `versions` names the packages that made the artefact.
    `lowering_choice` holds the target and the figures by which `--fourier auto` chose the lowering, and is
    empty where it was given. `influence` is how far a tile's border shows, `edge`, and further figures of
    `sfiin.export.influence`; empty where it was not measured. `block` is the number of output channels that a
    convolution is arranged for: 16 for ONNX Runtime on a CPU, 1 where it is left to the compiler.
    """

    sensor: SensorProfile
    tile: Tile
    lowering: Lowering
    precision: Precision
    opset: int
    network: Mapping[str, int | str]
    checkpoint: str
    golden: str
    versions: Mapping[str, str]
    lowering_choice: Mapping[str, float | str] = dataclasses.field(default_factory=dict)
    influence: Mapping[str, float] = dataclasses.field(default_factory=dict)
    block: int = 1
    format: str = FORMAT

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ContractError(
                f"format: this version reads '{FORMAT}', not '{self.format}'; export the model again"
            )
        ratio = self.sensor.ratio
        for side in ("height", "width"):
            if getattr(self.tile, side) % ratio:
                raise ContractError(
                    f"tile.{side}: {getattr(self.tile, side)} is no multiple of the ratio {ratio}"
                )

    @property
    def safe_overlap(self) -> int:
        """The fewest PAN pixels that neighbours must share to hand over where neither sees its border; 0:
        unknown."""
        return min(
            2 * int(self.influence.get("edge", 0)), min(self.tile.height, self.tile.width) - self.sensor.ratio
        )

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the model's inputs `ms` and `pan` and of its output `hrms`, without the batch."""
        size, ratio, bands = (self.tile.height, self.tile.width), self.sensor.ratio, len(self.sensor.bands)
        return {"ms": (bands, *(side // ratio for side in size)), "pan": (1, *size), "hrms": (bands, *size)}

    def to_json(self) -> str:
        """The contract as one JSON document with sorted keys."""
        return encode(self)

    @classmethod
    def from_json(cls, text: str) -> Contract:
        """Read `to_json`'s document. Raises ContractError, naming the field, for anything else."""
        return decode(cls, text, "contract")


def encode(value: Any) -> str:
    """A dataclass as JSON with sorted keys, the inverse of `decode`."""
    return json.dumps(dataclasses.asdict(value), sort_keys=True)


def decode(cls: type[_T], text: str, what: str) -> _T:
    """Read a dataclass from JSON, strictly: every field must be there, known, and of its declared type.

    Raises ContractError that names `what` and the field.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ContractError(f"{what}: not JSON ({error})") from None
    return _build(cls, document, what)  # type: ignore[no-any-return]


def _build(kind: Any, value: Any, field: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, field)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return _expect(value in arguments, value, field, " or ".join(map(repr, arguments)))
    if origin is tuple:
        _expect(isinstance(value, list), value, field, "a list")
        return tuple(_build(arguments[0], item, f"{field}[{i}]") for i, item in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        _expect(isinstance(value, dict), value, field, "an object")
        return {key: _build(arguments[1], item, f"{field}.{key}") for key, item in value.items()}
    accepted = (int, float) if kind is float else arguments or (kind,)
    _expect(
        isinstance(value, accepted) and (bool in accepted or not isinstance(value, bool)),
        value,
        field,
        _name(kind),
    )
    return float(value) if kind is float else value


def _build_dataclass(kind: Any, value: Any, field: str) -> Any:
    _expect(isinstance(value, dict), value, field, "an object")
    hints = get_type_hints(kind)
    for key in value:
        if key not in hints:
            raise ContractError(f"{field}.{key}: unknown field; the file is of another version of sfiin")
    for key in hints:
        if key not in value:
            raise ContractError(
                f"{field}.{key}: missing field; the file is damaged or of another version of sfiin"
            )
    return kind(**{key: _build(hint, value[key], f"{field}.{key}") for key, hint in hints.items()})


def _expect(holds: bool, value: Any, field: str, wanted: str) -> Any:
    if not holds:
        raise ContractError(f"{field}: expected {wanted}, found {value!r}")
    return value


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind))
