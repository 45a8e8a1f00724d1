"""What does a model promise, and to whom? The contract that travels inside every artefact.

An exported model carries its contract as JSON in the ONNX metadata under `sfiin.contract`. It says which
sensor's digital numbers go in (band names and order, ratio, bits, scale), on which tile, how the Fourier
transform was lowered, in which precision, and from which checkpoint it came, and names by digest the graph
that it was written for and the golden tiles it was checked on. The document ends with a digest of itself, so
that a changed field shows. Whoever means harm can make both anew: against that there are signatures.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from sfiin.runtime import documents
from sfiin.runtime.contract_versions import written_by
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
    "plugin": f"TensorRT with the plugin {'::'.join(PLUGIN)}, or the native kernels; onnxruntime cannot run "
    "it",
}
"""What runs a model, by its lowering."""

SEAL = "digest"
"""The key of a document's digest of itself."""

LONGEST_DOCUMENT = 1 << 20
"""Characters of a document; one that is longer is not read."""

_LONGEST_TEXT, _MOST_BANDS, _WIDEST_TILE, _LARGEST_RATIO, _MOST_BLOCKED = 1000, 64, 16384, 64, 1024

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
        require_text("sensor.name", self.name)
        if not self.bands:
            raise ContractError("sensor.bands: must name at least one band")
        if len(self.bands) > _MOST_BANDS or len(set(self.bands)) < len(self.bands):
            raise ContractError(f"sensor.bands: must be {_MOST_BANDS} different names at most")
        for band in self.bands:
            require_text("sensor.bands", band)
        if self.ratio < 2:
            raise ContractError(f"sensor.ratio: must be 2 or more, not {self.ratio}")
        require_range("sensor.ratio", self.ratio, 2, _LARGEST_RATIO)
        require_range("sensor.bits", self.bits, 1, 32)
        if not self.scale > 0:
            raise ContractError(f"sensor.scale: must be positive, not {self.scale}")
        require_range("sensor.scale", self.scale, 1e-6, 1e12)

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
        for side in ("height", "width"):
            require_range(f"tile.{side}", getattr(self, side), 1, _WIDEST_TILE)
        if not 0 <= self.overlap < min(self.height, self.width):
            raise ContractError(
                f"tile.overlap: must lie in 0..{min(self.height, self.width) - 1}, not {self.overlap}"
            )


def _later(default: Any) -> Any:
    """A field that documents of older versions do not have."""
    return dataclasses.field(default=default, metadata={"later": True})


def _later_mapping() -> Any:
    return dataclasses.field(default_factory=dict, metadata={"later": True})


@dataclass(frozen=True)
class Contract:
    """Everything a runtime must know, and may refuse over, before it runs a model.

    `network` is the network's configuration; `checkpoint` and `golden` are SHA-256 digests (hex) of the
    checkpoint's and the golden tiles' files, `graph` that of the graph, weights included
    (`sfiin.runtime.onnx_file`), empty in models of versions that did not write it and in a plan's contract
    where it is the model's; `versions` names the packages that made the artefact. `derived` tells what an
    adopted model was made from, and is empty for an exported one. `lowering_choice` holds the target and the
    figures by which `--fourier auto` chose the lowering, and is empty where it was given. `influence` is how
    far a tile's border shows, `edge`, and further figures of `sfiin.export.influence`; empty where it was not
    measured. `home` is the range of each figure of `sfiin.runtime.quality.ground` over what was trained on,
    empty where it is not recorded; files from before it have none. `block` is the number of output channels
    that a convolution is arranged for: 16 for ONNX Runtime on a CPU, 1 where it is left to the compiler.
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
    lowering_choice: Mapping[str, float | str] = _later_mapping()
    influence: Mapping[str, float] = _later_mapping()
    home: Mapping[str, tuple[float, ...]] = _later_mapping()
    block: int = _later(1)
    graph: str = _later("")
    derived: Mapping[str, str | float] = _later_mapping()
    format: str = FORMAT

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ContractError(
                f"format: this version reads '{FORMAT}', not '{self.format}'; take the version that wrote "
                "it, or export the model again"
            )
        self._require_ranges()
        ratio = self.sensor.ratio
        for side in ("height", "width"):
            if getattr(self.tile, side) % ratio:
                raise ContractError(
                    f"tile.{side}: {getattr(self.tile, side)} is no multiple of the ratio {ratio}"
                )

    def _require_ranges(self) -> None:
        require_range("opset", self.opset, 1, 100)
        require_range("block", self.block, 1, _MOST_BLOCKED)
        for name in ("checkpoint", "golden", "graph"):
            require_text(name, getattr(self, name), empty=True)
        for name in ("network", "versions", "lowering_choice", "influence", "derived"):
            for key, value in getattr(self, name).items():
                require_text(name, key)
                if isinstance(value, str):
                    require_text(f"{name}.{key}", value, empty=True)
                else:
                    require_range(f"{name}.{key}", value, -1e12, 1e12)
        if "edge" in self.influence:
            require_range("influence.edge", self.influence["edge"], 0, _WIDEST_TILE)

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
        """The contract as one JSON document with sorted keys, its digest among them."""
        return encode_sealed(self)

    @classmethod
    def from_json(cls, text: str) -> Contract:
        """Read `to_json`'s document, of this version or an older one (`sfiin.runtime.contract_versions`).

        Raises ContractError, naming the field, for anything else.
        """
        return decode_sealed(cls, text, "contract")


def require_text(field: str, value: str, *, empty: bool = False) -> None:
    """Raise ContractError for a text that is empty, endless, or holds what no line of text does."""
    if not (value or empty) or len(value) > _LONGEST_TEXT or not value.isprintable():
        raise ContractError(f"{field}: must be a short, printable text, not {value[:40]!r}")


def require_range(field: str, value: float, low: float, high: float) -> None:
    """Raise ContractError for a number outside low..high, or for none."""
    if not (math.isfinite(value) and low <= value <= high):
        raise ContractError(f"{field}: must lie in {low:g}..{high:g}, not {value!s:.40}")


def encode(value: Any) -> str:
    """A dataclass as JSON with sorted keys, the inverse of `decode`."""
    return documents.encode(value)


def encode_sealed(value: Any) -> str:
    """A dataclass as JSON, with the digest of all else in it; the inverse of `decode_sealed`."""
    document = documents.document(value)
    return json.dumps(document | {SEAL: _seal(document)}, sort_keys=True)


def _seal(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def decode(cls: type[_T], text: str, what: str) -> _T:
    """Read a dataclass from JSON, strictly: every field must be there, known, and of its declared type.

    Raises ContractError that names `what` and the field.
    """
    return _read(cls, parse(text, what), what)


def decode_sealed(cls: type[_T], text: str, what: str) -> _T:
    """Read a dataclass as `decode` does, and hold it to the digest in its document, where there is one.

    The digest is of the fields that were written, which in an older document are fewer than today's; the
    oldest have none. Raises ContractError, also for a document that was changed.
    """
    document = parse(text, what)
    seal = document.pop(SEAL, None) if isinstance(document, dict) else None
    value = _read(cls, document, what)
    # What was written lacks fields that came later; a whole number may stand for what is written as 1.0.
    if seal not in (None, _seal(document), _seal(documents.document(value))):
        raise ContractError(
            f"{what}: {SEAL}: a field was changed since it was written; it is damaged, or was edited; make "
            "it again"
        )
    return value


def _read(cls: type[_T], document: Any, what: str) -> _T:
    try:
        return documents.build(cls, document, what, ContractError)
    except ContractError as error:
        raise ContractError(f"{error}{written_by(document)}") from None


def parse(text: str, what: str) -> Any:
    """JSON as it should be: no document without end or bottom, no NaN, no key twice. Raises ContractError."""
    return documents.parse(text, what, ContractError, LONGEST_DOCUMENT)
