"""How is a scene sharpened from Python? The functions behind `sfiin.sharpen` and its like.

They and the commands go the same way, through `sfiin.runtime.station.runner`: the same checks, the same
bytes.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import rasterio
import typer
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from sfiin.runtime import models
from sfiin.runtime.backends.classical import Method
from sfiin.runtime.backends.select import Choice, open_session
from sfiin.runtime.backends.session import Session
from sfiin.runtime.commands.scene_options import SceneOptions
from sfiin.runtime.contract import Contract
from sfiin.runtime.errors import InputError, SceneError
from sfiin.runtime.scenes.names import named
from sfiin.runtime.scenes.product import Compression, Kind
from sfiin.runtime.station.job import Job, Settings
from sfiin.runtime.station.remote import split
from sfiin.runtime.station.run_report import RunReport
from sfiin.runtime.station.runner import Station

Name = str | os.PathLike[str]
Progress = Callable[[int, int], None]

_OPTIONS = frozenset(field.name for field in fields(SceneOptions))

_INTEGERS = (np.uint8, np.uint16, np.int16, np.uint32, np.int32)


@dataclass(frozen=True)
class Report:
    """What a run did. `document` is the whole of it, as `sfiin run --json` prints it.

    `size` is (height, width) in PAN pixels; `seconds` is wall time; `clipped` counts samples that the
    product's type could not hold, by kind; `notes` are the sentences that the command prints.
    """

    output: Path
    model: str
    bands: tuple[str, ...]
    size: tuple[int, int]
    tiles: int
    seconds: float
    nodata: int
    clipped: Mapping[str, int]
    notes: tuple[str, ...]
    document: Mapping[str, Any]

    @classmethod
    def of(cls, report: RunReport) -> Report:
        """From the report of a station."""
        return cls(
            output=Path(report.output),
            model=report.model,
            bands=report.bands,
            size=(report.size[0], report.size[1]),
            tiles=report.tiles,
            seconds=report.seconds,
            nodata=report.nodata,
            clipped=report.clipped,
            notes=report.notes,
            document=report.document(),
        )


class Model:
    """An open model. Use it as a context, or close it."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def contract(self) -> Contract:
        """What the model promises: sensor, tile, precision, and where it came from."""
        return self._session.contract

    def run(self, ms: NDArray[Any], pan: NDArray[Any]) -> NDArray[np.float32]:
        """Fuse tiles: MS (N, B, h, w) and PAN (N, 1, H, W), DN, of the contract's tile; one tile without N
        will do.

        Returns HRMS (N, B, H, W) float32, DN, neither rounded nor clipped; without N for one tile. Raises
        SceneError for other shapes.
        """
        one = np.ndim(ms) == 3
        tiles = [
            np.asarray(image, np.float32)[None] if one else np.asarray(image, np.float32)
            for image in (ms, pan)
        ]
        for name, image in zip(("ms", "pan"), tiles, strict=True):
            if image.shape[1:] != self.contract.shapes[name] or len(image) != len(tiles[0]):
                raise SceneError(
                    f"{name}: of shape {np.shape(image)}, but the model takes tiles of "
                    f"{self.contract.shapes[name]}"
                )
        hrms = self._session.run(tiles[0], tiles[1])
        return hrms[0] if one else hrms

    def close(self) -> None:
        """Free what the backend holds."""
        self._session.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()


def open_model(model: Name, *, provider: Choice = "auto", threads: int = 0) -> Model:
    """Open a model (.onnx), a plan, or a shipped model by its name, such as "sfiin-vhr4".

    `provider` is what it runs on: "auto", "native", "cpu", "cuda" or "tensorrt". On a CPU `threads` tiles are
    computed at once, each by one thread (0: as many as there are CPUs). Raises InputError for no model,
    ContractError for one without a contract, MismatchError for a plan of another machine, UnavailableError
    where its backend is missing.
    """
    return Model(open_session(_model(model), provider, threads))


def sharpen(
    pan: NDArray[Any],
    ms: NDArray[Any],
    model: Name | None = None,
    *,
    nodata: float | None = None,
    progress: Progress | None = None,
    provider: Choice = "auto",
    threads: int = 0,
    batch: int = 1,
    overlap: int | None = None,
    coregister: bool | Literal["no", "shift", "local"] = "no",
    max_shift: float = 1.5,
    gain: float = 1.0,
) -> NDArray[Any]:
    """Sharpen arrays, tiled and blended as `sfiin run` does it.

    `pan`: (H, W) or (1, H, W); `ms`: (B, h, w) with H = h * ratio, in the model's order of bands; DN, integer
    or floating; they cover the same ground. `model`: a file or a shipped model's name, None for a shipped one
    that fits. `nodata` is a value that says "no data" in both, and in the result. `progress` is told tiles
    done, of how many. The rest is as the options of `sfiin run`. Returns HRMS (B, H, W) of the type of `ms`,
    DN.

    Raises SceneError for arrays that cannot be used, MismatchError where no model fits, AlignmentError where
    PAN and MS do not lie on one another, UnavailableError without a backend.
    """
    images = {"pan": _image(pan, "pan"), "ms": _image(ms, "ms")}
    with tempfile.TemporaryDirectory(prefix="sfiin-") as name, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # arrays have no georeference
        folder = Path(name)
        for key, image in images.items():
            _write(folder / f"{key}.tif", image, nodata)
        sharpen_files(
            folder / "pan.tif",
            folder / "ms.tif",
            folder / "hrms.tif",
            model=model,
            compress="none",
            provider=provider,
            threads=threads,
            batch=batch,
            overlap=overlap,
            coregister=coregister,
            max_shift=max_shift,
            gain=gain,
            progress=progress,
        )
        with rasterio.open(folder / "hrms.tif") as file:
            hrms: NDArray[Any] = file.read()
    return hrms


def sharpen_files(
    pan: Name,
    ms: Name | Sequence[Name],
    out: Name,
    *,
    model: Name | None = None,
    provider: Choice = "auto",
    threads: int = 0,
    batch: int = 1,
    overlap: int | None = None,
    force: bool = False,
    format: Kind = "gtiff",
    compress: Compression = "deflate",
    overviews: bool = False,
    gain: float = 1.0,
    memory: int | str | None = None,
    coregister: bool | Literal["no", "shift", "local"] = "no",
    max_shift: float = 1.5,
    search: int = 128,
    require_alignment: bool = False,
    bands: str | None = None,
    method: Method | None = None,
    mtf: str | None = None,
    height: float | None = None,
    dem: str | None = None,
    quicklook: bool = False,
    stac: bool = False,
    acquired: str | None = None,
    report: bool = False,
    outliers: Literal["nodata", "refuse"] = "nodata",
    require_signature: Name | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Sharpen a scene of files into a GeoTIFF, as `sfiin run` does it; keyword arguments are its options.

    `ms` is one file, or one a band in the model's order; `memory` is in bytes, or as "2GiB". Raises
    InputError and its kinds for what cannot be read, MismatchError for what does not belong together,
    AlignmentError, UnavailableError, and OutputError for what exists or cannot be written; nothing is
    published then.
    """
    given = {name: value for name, value in locals().items() if name in _OPTIONS}
    options = SceneOptions(
        **given
        | {
            "memory": None if memory is None else str(memory),
            "coregister": "shift" if coregister is True else coregister or "no",
            "require_signature": None if require_signature is None else Path(require_signature),
        }
    )
    several = [ms] if isinstance(ms, (str, os.PathLike)) else list(ms)
    found = [named(os.fspath(name)) for name in (pan, *several)]
    place, upload = split(os.fspath(out))
    job = Job(found[0], tuple(found[1:]), place, None if model is None else _model(model), upload=upload)
    with Station(_settings(options)) as station:
        return Report.of(station.run(job, progress))


def _settings(options: SceneOptions) -> Settings:
    try:
        return options.settings()
    except typer.BadParameter as error:
        raise InputError(error.message) from None


def _model(model: Name) -> Path:
    """The file of a model that may be named as a shipped one."""
    path = Path(model)
    shipped = models.FOLDER / f"{path.name}.onnx"
    if str(path) == path.name and not path.exists() and shipped.is_file():
        return shipped
    if not path.exists() and str(path) == path.name and not path.suffix:
        names = ", ".join(sorted(found.stem for found in models.FOLDER.glob("*.onnx")))
        raise InputError(f"{model}: no such file, and no shipped model of this name; those are {names}")
    return path


def _image(image: NDArray[Any], name: Literal["pan", "ms"]) -> NDArray[Any]:
    """(B, H, W), of a type that a file can hold without loss."""
    found = np.asarray(image)
    found = found[None] if name == "pan" and found.ndim == 2 else found
    if found.ndim != 3 or not found.size or (name == "pan" and len(found) != 1):
        wanted = "(H, W) or (1, H, W)" if name == "pan" else "(bands, h, w)"
        raise SceneError(f"{name}: an array of shape {np.shape(image)}; give {wanted}")
    if found.dtype.kind == "f":
        return found.astype(np.float32 if found.dtype.itemsize < 8 else np.float64)
    if found.dtype.kind in "iu":
        low, high = int(found.min()), int(found.max())
        for kind in (found.dtype.type, *_INTEGERS):
            if kind in _INTEGERS and np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
                return found.astype(kind)
    raise SceneError(
        f"{name}: values of type {found.dtype} are no DN; give integers of at most 32 bits, or floats"
    )


def _write(path: Path, image: NDArray[Any], nodata: float | None) -> None:
    size = {"count": len(image), "height": image.shape[1], "width": image.shape[2]}
    with rasterio.open(path, "w", driver="GTiff", dtype=image.dtype, nodata=nodata, **size) as file:
        file.write(image)
