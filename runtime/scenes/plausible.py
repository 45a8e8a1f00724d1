"""Can these files be PAN and MS of the sensor, by their bands, kinds and numbers?

Digital numbers (DN) go into the model. Where files hold other numbers, such as reflectance, `gain` says how
many DN make one; without it, floats that are fractions and numbers beyond twice the sensor's peak are
refused, not guessed at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rasterio.enums import ColorInterp

from sfiin.runtime.contract import SensorProfile
from sfiin.runtime.errors import MismatchError, SceneError
from sfiin.runtime.scenes.layer import Image, Layer
from sfiin.runtime.scenes.names import title

_REFLECTANCE = 1.5  # the largest value of floats that are taken for reflectance
_EXCESS = 2.0  # how often the sensor's peak may be exceeded
_ZEROS = 0.01  # the share of zeros from which on they are mentioned


def check_pan(pan: Layer, ms: Sequence[Any]) -> None:
    """Raise SceneError where PAN is no single band."""
    if len(pan.bands) != 1:
        hint = (
            "are PAN and MS swapped?"
            if len(ms) == 1 and ms[0].count == 1
            else "give the panchromatic band alone"
        )
        raise SceneError(f"{pan.file.name}: PAN has {len(pan.bands)} bands instead of one; {hint}")


def check_kinds(layers: Sequence[Layer]) -> None:
    """Raise SceneError for numbers that are no light: complex ones, and a colour table's."""
    for layer in layers:
        if any("complex" in dtype for dtype in layer.dtypes):
            raise SceneError(
                f"{layer.file.name}: data of type {layer.dtypes[0]}; complex numbers cannot be sharpened"
            )
        if ColorInterp.palette in layer.colours:
            raise SceneError(
                f"{layer.file.name}: numbers of a colour table, not of light; give the original image"
            )


def check_scale(layer: Layer, values: Image, sensor: SensorProfile) -> None:
    """Raise MismatchError for values, some of the layer's, that are no DN of the sensor."""
    name = layer.file.name
    likely = values[layer.outliers.is_light(values)]
    most = float(likely.max()) if likely.size else 0.0
    fractions = np.dtype(layer.dtypes[0]).kind == "f" or layer.gain != 1
    if fractions and likely.size and most <= _REFLECTANCE < sensor.scale:
        raise MismatchError(
            f"scale: {name} holds fractions up to {most:.3g} (reflectance?), the model wants digital "
            f"numbers up to {sensor.peak}; give the product in digital numbers, or --gain, how many make 1"
        )
    # A few hot pixels do not make another sensor, nor do many that say of themselves that they are no data.
    values = values[values < layer.outliers.fill]
    bright = float(np.percentile(values, 99)) if values.size else 0.0
    if bright > _EXCESS * sensor.peak:
        raise MismatchError(
            f"bits: {name} holds values around {bright:.0f}, the model wants {sensor.bits} bits "
            f"(up to {sensor.peak}); use a model for this sensor, or the product in its original digital "
            "numbers, or --gain, how many of them make 1"
        )


def zero_notes(shares: Sequence[tuple[str, float]]) -> tuple[str, ...]:
    """What is to be said of the files' shares of valid values that are 0, which many writers mean as
    nodata."""
    called = [title(name) for name, _ in shares]
    many = ", ".join(
        f"{share:.0%} of {title(name) if called.count(title(name)) == 1 else name}"
        for name, share in shares
        if share > _ZEROS
    )
    if not many:
        return ()
    declare = "if they are not, declare them, e.g. with gdal_edit.py -a_nodata 0"
    return (f"zeros are {many}: no file says that they are nodata, and they are taken as data; {declare}",)
