"""Which of the shipped models is for a scene? Of those of its ratio, the one with most bands that the scene
has."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sfiin.runtime import models
from sfiin.runtime.errors import InputError, MismatchError, SfiinError
from sfiin.runtime.scenes import bands, limits
from sfiin.runtime.scenes.grid import is_located
from sfiin.runtime.scenes.names import Name
from sfiin.runtime.scenes.raster import open_raster


def fitting(
    pan: Name,
    ms: Sequence[Name],
    chosen: str | None = None,
    stated: Sequence[str | None] | None = None,
) -> Path:
    """The shipped model for a scene: of those of its ratio, the one with most bands that the scene has.

    `chosen` is which of MS' bands to take, `stated` what metadata say of them (`sfiin.runtime.scenes.bands`).
    Raises SceneError for files that cannot be used, MismatchError where no model fits.
    """
    with ExitStack() as stack:
        files = [stack.enter_context(open_raster(path)) for path in (*ms, pan)]
        for file in files:
            limits.check_file(file)
        found = bands.look(files[:-1], stated)
        ratio = _ratio(files[-1], files[0])
        tried = [
            (path, promise.sensor.bands, _reason(found, promise.sensor.bands, chosen))
            for path, promise in models.shipped()
            if promise.sensor.ratio == ratio
        ]
        fits = [(len(names), path) for path, names, reason in tried if reason is None]
        if fits:
            return max(fits, key=lambda fit: fit[0])[1]
        for _, names, reason in tried:
            if reason and len(names) == len(found):
                raise reason
        try:
            return models.choose(len(found), ratio)
        except MismatchError as error:
            raise MismatchError(f"{error}, or sharpen without a model, by --method gsa") from None


def _reason(found: Sequence[bands.Band], wanted: Sequence[str], chosen: str | None) -> SfiinError | None:
    """Why a scene's bands are not a model's, or None."""
    try:
        bands.choose(found, wanted, chosen)
    except (InputError, MismatchError) as error:
        return error
    return None


def _ratio(pan: Any, ms: Any) -> int:
    """MS pixel size over PAN pixel size, by size where there is no georeference."""
    if is_located(pan) and is_located(ms):
        return round(float(ms.res[1] / pan.res[1]))
    return round(float(pan.height / ms.height))
