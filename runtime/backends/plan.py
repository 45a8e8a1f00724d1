"""What is a plan, and may it run here? Its header and its sidecar, read before anything loads it.

A plan is TensorRT's own file, untouched, so that trtexec loads it too. What sfiin must know of it lies beside
it as JSON (`net.plan` and `net.plan.json`): the model's contract, and how, from what and for which devices it
was built. A TensorRT that meets a plan of another version or device says so late, in its own words, or ends
the process; hence the look at both before a library is loaded.
"""

from __future__ import annotations

import dataclasses
import platform as processor
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from sfiin.runtime import models
from sfiin.runtime.check import Parity
from sfiin.runtime.contract import (
    LONGEST_DOCUMENT,
    Contract,
    decode_sealed,
    encode_sealed,
    require_range,
    require_text,
)
from sfiin.runtime.errors import ContractError, InputError, MismatchError
from sfiin.runtime.files import publish, sha256

FORMAT = "sfiin-plan/1"

Flavour = Literal["tensorrt", "rtx"]
Compatibility = Literal["none", "same_compute_capability", "ampere_plus"]

_MAGIC: Mapping[bytes, Flavour] = {b"ftrt": "tensorrt", b"vtrt": "rtx"}
_VERSION_AT = 24

JETSONS = ("5.3", "6.2", "7.2", "8.7", "10.1", "11.0")
"""Compute capabilities of Jetsons, for which TensorRT has no hardware compatibility (Developer Guide,
"Hardware Compatibility"); Thor's was 10.1 before CUDA 13."""

MOST_TILES = 4096
"""Tiles of a plan's largest batch at most."""


@dataclass(frozen=True)
class Header:
    """What a plan's first bytes say: which library wrote it, and its version (major, minor, patch, build)."""

    flavour: Flavour
    version: tuple[int, ...]


@dataclass(frozen=True)
class Device:
    """A GPU by its name and compute capability, "8.7" for Orin."""

    name: str
    compute_capability: str


@dataclass(frozen=True)
class Build:
    """How a plan was made.

    `tensorrt` is the library's version; `device` the GPU's name, "" where it was built without one; `batch`
    the smallest, usual and largest number of tiles; `model` and `plan` are SHA-256 digests (hex) of the ONNX
    file and of the plan, `plugin` that of the plugin's library, "" where the plan needs none, which is
    `plugin_inside` the plan or beside it (`sfiin.runtime.backends.plugin`); `options` holds the builder's
    other settings; `seconds` is what building took. `checked` holds `relative_l2` and `peak_share` of the
    golden tiles on a device, and is empty as long as none has run them. `machine` is the processor's
    architecture that it was built on, "" where that is not known.
    """

    flavour: Flavour
    tensorrt: str
    device: str
    compute_capabilities: tuple[str, ...]
    batch: tuple[int, ...]
    model: str
    plan: str
    refittable: bool
    stripped: bool
    version_compatible: bool
    hardware_compatibility: Compatibility
    plugin: str
    plugin_inside: bool
    options: Mapping[str, str | int | bool]
    seconds: float
    checked: Mapping[str, float] = field(default_factory=dict)
    machine: str = ""

    def __post_init__(self) -> None:
        if len(self.batch) != 3 or not 1 <= self.batch[0] <= self.batch[1] <= self.batch[2]:
            raise ContractError(f"build.batch: must be three rising numbers from 1, not {self.batch}")
        if not self.compute_capabilities:
            raise ContractError("build.compute_capabilities: must name at least one")
        require_range("build.batch", self.batch[2], 1, MOST_TILES)
        require_range("build.seconds", self.seconds, 0, 1e9)
        for name in ("device", "model", "plan", "plugin", "machine"):
            require_text(f"build.{name}", getattr(self, name), empty=True)
        if not re.fullmatch(r"\d{1,9}(\.\d{1,9}){2,3}[\w.+-]*", self.tensorrt):
            raise ContractError(
                f"build.tensorrt: must be a version such as 10.3.0.26, not {self.tensorrt[:40]!r}"
            )


@dataclass(frozen=True)
class Sidecar:
    """What lies beside a plan."""

    contract: Contract
    build: Build
    format: str = FORMAT

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ContractError(
                f"format: this version reads '{FORMAT}', not '{self.format}'; build the plan again"
            )

    def checked(self, distance: Parity) -> Sidecar:
        """The same, with a plan's distance from the golden tiles on a device."""
        figures = {"relative_l2": distance.relative_l2, "peak_share": distance.peak_share}
        return dataclasses.replace(self, build=dataclasses.replace(self.build, checked=figures))

    def write(self, path: Path) -> None:
        """Write to an open place, such as a `publish`ed one."""
        path.write_text(encode_sealed(self) + "\n", encoding="utf-8")


def is_plan(path: Path) -> bool:
    """Whether a file begins as a plan does. Raises InputError when it cannot be read."""
    return _first_bytes(path)[:4] in _MAGIC


def beside(plan: Path) -> Path:
    """Where a plan's sidecar lies."""
    return plan.with_name(plan.name + ".json")


def read_header(plan: Path) -> Header:
    """A plan's header. Raises InputError for what is no plan."""
    first = _first_bytes(plan)
    if first[:4] not in _MAGIC or len(first) < _VERSION_AT + 4:
        known = " or ".join(get_args(Flavour))
        raise InputError(f"{plan}: no plan of {known}, or a damaged one; make it with 'sfiin build'")
    return Header(_MAGIC[first[:4]], tuple(first[_VERSION_AT : _VERSION_AT + 4]))


def read(plan: Path) -> Sidecar:
    """A plan's sidecar, once the plan is known to be the one that it describes.

    Raises InputError for a file that is missing or no plan, ContractError for a damaged sidecar,
    MismatchError, naming the field, where the two do not belong together.
    """
    header = read_header(plan)
    path = beside(plan)
    try:
        sidecar = decode_sealed(Sidecar, _text(path), str(path))
    except OSError as error:
        raise InputError(
            f"{path}: a plan's sidecar cannot be read ({error.strerror}); keep it beside the plan, or build "
            "it again"
        ) from None
    except UnicodeDecodeError:
        raise ContractError(f"{path}: not JSON (not UTF-8)") from None
    _require(header.flavour == sidecar.build.flavour, plan, "flavour", header.flavour, sidecar.build.flavour)
    found = ".".join(map(str, header.version))
    _require(
        sidecar.build.tensorrt.split(".")[:3] == found.split(".")[:3],
        plan,
        "tensorrt",
        found,
        sidecar.build.tensorrt,
    )
    digest = sha256(plan)
    _require(digest == sidecar.build.plan, plan, "plan (SHA-256)", digest[:12], sidecar.build.plan[:12])
    return sidecar


def _text(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.read(LONGEST_DOCUMENT + 1)


def contract_of(artefact: Path) -> Contract:
    """The contract of a plan or a model, as it says itself. Raises as `read`, or as `models.contract`."""
    return read(artefact).contract if is_plan(artefact) else models.contract(artefact)


def update(plan: Path, sidecar: Sidecar) -> None:
    """Replace a plan's sidecar. Raises OutputError."""
    with publish(beside(plan)) as part:
        sidecar.write(part)


def require_runs(plan: Path, build: Build, flavour: Flavour, version: str, device: Device) -> None:
    """Raise MismatchError, naming the field and the remedy, unless library and device here run such a plan.

    A plan runs with the library of its own version (major.minor.patch), a version-compatible one also with
    later ones of the same major; on a device of a compute capability it was built for, and with hardware
    compatibility on more, but never across to a Jetson or another processor (TensorRT Developer Guide,
    "Version Compatibility" and "Hardware Compatibility").
    """
    remedy = "build it here from the ONNX model with 'sfiin build'"
    if flavour != build.flavour:
        raise MismatchError(
            f"{plan}: flavour: built by {build.flavour}, but the library here is {flavour}; {remedy}"
        )
    if not _version_runs(build, version):
        what = "version-compatible " if build.version_compatible else ""
        raise MismatchError(
            f"{plan}: tensorrt: a {what}plan of version {build.tensorrt}, but the library here is {version}; "
            f"{remedy}"
        )
    here = processor.machine()
    if build.flavour == "tensorrt" and build.machine not in ("", here):
        raise MismatchError(f"{plan}: machine: built on {build.machine}, but this is {here}; {remedy}")
    if not _device_runs(build, device):
        wanted = ", ".join(build.compute_capabilities)
        raise MismatchError(
            f"{plan}: compute_capabilities: built for {wanted}"
            + (f" ({build.device})" if build.device else "")
            + f", but {device.name} has {device.compute_capability}; {remedy}"
        )


def _version_runs(build: Build, version: str) -> bool:
    made, here = _numbers(build.tensorrt), _numbers(version)
    return made == here or (build.version_compatible and made[0] == here[0] and made <= here)


def _device_runs(build: Build, device: Device) -> bool:
    if device.compute_capability in build.compute_capabilities:
        # A plan without hardware compatibility is for one model of card; TensorRT warns of others of its
        # kind.
        return True
    return (
        build.hardware_compatibility == "ampere_plus"
        and _numbers(device.compute_capability) >= (8, 0)
        and not {device.compute_capability, *build.compute_capabilities} & set(JETSONS)
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3])


def _require(holds: bool, plan: Path, name: str, found: str, told: str) -> None:
    if not holds:
        raise MismatchError(
            f"{plan}: {name}: the plan has {found}, its sidecar says {told}; they do not belong together, "
            "build again"
        )


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_VERSION_AT + 4)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
