"""Are these the bytes that a model's contract was written for; and if not, do they compute the same?

A model is read once, and what is judged is what runs. Its contract names the digest of its graph, weights
included. Where the digest is another one, or there is none, as in models of older versions, the golden tiles
decide: a process of its own, with a bound on its memory, runs them through the model, for nobody has vouched
for the file. A copy that makes of them what it should (one that was simplified, say) is taken, and that is
said; any other is refused before it sees a scene.

Digests find damage and mistakes. Against whoever makes a file and its digests anew there are signatures.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sfiin.runtime import children, golden, models, onnx_file
from sfiin.runtime.check import GATES, Gate
from sfiin.runtime.contract import NEEDS, Contract
from sfiin.runtime.errors import CheckFailedError, InputError, MismatchError, SfiinError

PATIENCE = 300
"""Seconds that the golden tiles may take in a process of their own."""

FED = {"float32": np.float32, "float16": np.float16, "float64": np.float64}
"""Types of inputs and outputs that sessions feed and take."""

EXACT_BITS = 11
"""Bits of the largest digital numbers that FP16 holds as they are."""


@dataclass(frozen=True)
class VouchedModel:
    """A model's bytes, as they were judged.

    `sha256` is of the whole file, `graph` the digest of its graph. `vouched`: whether the contract names that
    digest. `external`: whether weights lie in other files, which a backend has to read by itself.
    """

    path: Path
    data: bytes
    contract: Contract
    signature: onnx_file.Signature
    sha256: str
    graph: str
    external: bool

    @property
    def vouched(self) -> bool:
        """Whether these are the bytes that the contract was written for."""
        return self.graph == self.contract.graph

    @property
    def batch(self) -> int | None:
        """How many tiles go in at once, None where that is free."""
        return next((value.shape[0] for value in self.signature.inputs if value.shape), None)

    @property
    def types(self) -> dict[str, str]:
        """The inputs' types by name."""
        return {value.name: value.dtype for value in self.signature.inputs}


@dataclass(frozen=True)
class Replay:
    """How far a model is from its golden tiles: relative L2, and the largest difference as a share of the
    peak."""

    relative_l2: float
    peak_share: float

    def within(self, gate: Gate) -> bool:
        """Whether both are inside the gate."""
        return self.relative_l2 <= gate.relative_l2 and self.peak_share <= gate.peak_share

    def __str__(self) -> str:
        return f"relative L2 {self.relative_l2:.1e}, at most {self.peak_share:.1e} of the peak"


def read(path: Path) -> VouchedModel:
    """A model's bytes, with a graph that has the inputs and outputs of its contract.

    Raises InputError for what is no ONNX model, ContractError for one without a valid contract, MismatchError
    for a graph of another tile, another number of bands or another type than its contract's.
    """
    data = models.read(path)
    contract = models.read_contract(models.metadata_of(data, path), path)
    try:
        signature = onnx_file.signature(data)
        graph = onnx_file.digest(data, path.parent)
        external = bool(onnx_file.external_files(data))
    except ValueError:
        raise InputError(f"{path}: no ONNX model, or a damaged one") from None
    _require_fitting(signature, contract, path)
    return VouchedModel(path, data, contract, signature, hashlib.sha256(data).hexdigest(), graph, external)


def vouched_contract(path: Path) -> Contract:
    """The contract of a model that may run. Raises as `read` and `vouch`."""
    found = read(path)
    vouch(found)
    return found.contract


def vouch(model: VouchedModel) -> str:
    """What is to be said of a model that may run, "" where its contract vouches for its bytes.

    Raises MismatchError for one that nothing vouches for, CheckFailedError for one that makes something else
    of its golden tiles; see `replay` for more.
    """
    if model.vouched:
        return _of_tiles(model)
    known = bool(model.contract.graph)
    why = (
        "its graph or weights are not those that its contract was written for"
        if known
        else "its contract is of an older version, which did not vouch for its bytes"
    )
    tiles = golden.beside(model.path)
    if not model.contract.golden or not tiles.exists():
        raise MismatchError(
            f"{model.path}: graph: {why}, and there are no golden tiles beside it to try it on "
            f"({tiles.name}); put them there, or export it again"
        )
    gate = GATES[model.contract.precision]
    found = replay(model)
    if not found.within(gate):
        raise CheckFailedError(
            f"{model.path}: {why}, and it makes something else of its golden tiles: {found} (gates "
            f"{gate.relative_l2:.0e} and {gate.peak_share:.0e}); get it anew, or export it again"
        )
    remedy = "export it again to have it vouched for"
    return f"{model.path.name}: {why}, but it computes the same on its golden tiles ({found}); {remedy}"


def replay(model: VouchedModel) -> Replay:
    """Run a model's golden tiles through it in ONNX Runtime, in a process of its own.

    Raises MismatchError for a lowering that ONNX Runtime does not run, InputError or MismatchError for the
    tiles, CheckFailedError for a model that cannot be run to the end.
    """
    if model.contract.lowering == "plugin":
        raise MismatchError(
            f"{model.path}: graph: not the one that its contract was written for, and its golden tiles need "
            f"{NEEDS['plugin'].split(';')[0]}; export it again"
        )
    golden.read(golden.beside(model.path), model.contract)  # what is wrong with them is said here
    command = children.command("sfiin.runtime.replay", str(model.path))
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        raise CheckFailedError(
            f"{model.path}: its golden tiles were not done in {PATIENCE} s; it was not run"
        ) from None
    try:
        found = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        raise CheckFailedError(
            f"{model.path}: ONNX Runtime died of its golden tiles (exit code {done.returncode}); it was not "
            "run"
        ) from None
    if "error" in found:
        raise _error(found["error"], int(found["exit_code"]))
    if found["sha256"] != model.sha256:
        raise InputError(f"{model.path}: changed while it was read; try again when it is complete")
    return Replay(_number(found["relative_l2"]), _number(found["peak_share"]))


def _of_tiles(model: VouchedModel) -> str:
    """A word about golden tiles beside a model that are not its own; without any there is none."""
    tiles = golden.beside(model.path)
    if not tiles.exists():
        return ""
    try:
        found = hashlib.sha256(tiles.read_bytes()).hexdigest()
    except OSError:
        return f"{tiles.name}: cannot be read; the model could not be tried on it"
    return (
        "" if found == model.contract.golden else f"{tiles.name}: not the golden tiles of the model beside it"
    )


def _error(text: str, code: int) -> SfiinError:
    kinds = {3: InputError, 4: MismatchError, 6: CheckFailedError}
    return kinds.get(code, CheckFailedError)(text)


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _require_fitting(signature: onnx_file.Signature, contract: Contract, path: Path) -> None:
    found = {value.name: value for value in (*signature.inputs, *signature.outputs)}
    names = [value.name for value in signature.inputs]
    if sorted(names) != ["ms", "pan"] or "hrms" not in {value.name for value in signature.outputs}:
        outputs = ", ".join(value.name[:40] for value in signature.outputs)
        raise MismatchError(
            f"{path}: graph: makes {outputs or 'nothing'} of {', '.join(names)[:80] or 'nothing'}, not hrms "
            "of ms and pan; make the model with 'sfiin export'"
        )
    for name, shape in contract.shapes.items():
        value = found[name]
        sides = value.shape
        if name == "hrms" and sides is None:
            continue
        if sides is None or len(sides) != 4 or not _agree(sides[1:], shape, free=name == "hrms"):
            told = "x".join("?" if side is None else str(side) for side in sides or ())
            raise MismatchError(
                f"{path}: tile: the graph's '{name}' is {told or 'of no shape'}, its contract says "
                f"Nx{'x'.join(map(str, shape))}; export the model again"
            )
        if value.dtype not in FED:
            raise MismatchError(
                f"{path}: the graph's '{name}' is {value.dtype}, which is not fed; convert it with inputs "
                f"and outputs of {' or '.join(FED)}"
            )
        if value.dtype == "float16" and name != "hrms" and contract.sensor.bits > EXACT_BITS:
            raise MismatchError(
                f"{path}: sensor.bits: '{name}' is float16, which holds {EXACT_BITS} bits, not "
                f"{contract.sensor.bits}; convert it with float32 inputs"
            )
    if len({found[name].shape[0] for name in ("ms", "pan")}) > 1:  # type: ignore[index]
        raise MismatchError(
            f"{path}: graph: 'ms' and 'pan' take different numbers of tiles; export the model again"
        )


def _agree(sides: tuple[int | None, ...], shape: tuple[int, ...], *, free: bool) -> bool:
    return len(sides) == len(shape) and all(
        found == side or (free and found is None) for found, side in zip(sides, shape, strict=True)
    )
