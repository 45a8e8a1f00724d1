"""Which models come with the package, which one fits a scene, and what does a model's file say of itself?

The contract is read straight from the file (`sfiin.runtime.onnx_file`), so that neither onnx nor a backend is
needed.
"""

from __future__ import annotations

from pathlib import Path

from sfiin.runtime import onnx_file
from sfiin.runtime.contract import METADATA_KEY, Contract
from sfiin.runtime.errors import ContractError, InputError, MismatchError

FOLDER = Path(__file__).parent / "models"

LARGEST = (1 << 31) - 1
"""Bytes of an ONNX file at most; the format allows no more."""


def shipped() -> list[tuple[Path, Contract]]:
    """The package's models with their contracts, by file name."""
    return [(path, contract(path)) for path in sorted(FOLDER.glob("*.onnx"))]


def choose(bands: int, ratio: int) -> Path:
    """The shipped model for scenes of `bands` MS bands whose pixels are `ratio` PAN pixels wide.

    Raises MismatchError, naming what is shipped, when none fits.
    """
    models = shipped()
    for path, promise in models:
        if (len(promise.sensor.bands), promise.sensor.ratio) == (bands, ratio):
            return path
    offers = "; ".join(
        f"{path.name} for {len(promise.sensor.bands)} bands at ratio {promise.sensor.ratio}"
        for path, promise in models
    )
    raise MismatchError(
        f"no shipped model fits {bands} MS bands at ratio {ratio} (shipped: {offers or 'none'}); give one "
        "with --model"
    )


def contract(path: Path) -> Contract:
    """A model's contract. Raises InputError for what is no ONNX model, ContractError for one without a
    contract."""
    return read_contract(metadata(path), path)


def read_contract(metadata: dict[str, str], model: Path) -> Contract:
    """The contract in a model's ONNX metadata. Raises ContractError, naming the model and the field."""
    if METADATA_KEY not in metadata:
        raise ContractError(f"{model}: no sfiin contract inside; make the model with 'sfiin export'")
    try:
        return Contract.from_json(metadata[METADATA_KEY])
    except ContractError as error:
        raise ContractError(f"{model}: {error}") from None


def metadata(path: Path) -> dict[str, str]:
    """An ONNX model's metadata. Raises InputError for a file that is missing or no model."""
    return metadata_of(read(path), path)


def metadata_of(data: bytes, path: Path) -> dict[str, str]:
    """The metadata in a model's bytes. Raises InputError, naming the file, for what is no model."""
    try:
        return onnx_file.metadata(data)
    except ValueError:
        raise _no_model(path) from None


def read(path: Path) -> bytes:
    """A model's bytes. Raises InputError for a file that is missing, too large, or begins as no model
    does."""
    try:
        with path.open("rb") as file:
            first = file.read(1)
            begins = first and first[0] >> 3 and first[0] & 7 in (0, 2)  # a field's number and its kind
            if path.stat().st_size > LARGEST or not begins:
                raise _no_model(path)
            return first + file.read()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _no_model(path: Path) -> InputError:
    return InputError(f"{path}: no ONNX model, or a damaged one")
