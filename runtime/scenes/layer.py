"""What does a file give where a window of it is read? Pixels in digital numbers, and where each is valid.

A pixel is valid where its file says so: by a mask in the file or beside it (.msk), which as everywhere in
GDAL stands above nodata values, else by the nodata value of each band; by an alpha band (above 0); and only
where it is finite. What is not declared is data: a 0 is a 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioIOError
from rasterio.windows import Window

from sfiin.runtime.errors import SceneError
from sfiin.runtime.scenes import bands
from sfiin.runtime.scenes.outliers import Outliers
from sfiin.runtime.scenes.raster import reason

_SAMPLES, _SAMPLE_SIDE = 4, 128  # windows per axis, pixels
_SEARCHED = 4 << 20  # bytes at once

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Layer:
    """An open file, those of its bands that are data, how many DN make one of its numbers, and its alpha
    bands."""

    file: Any
    bands: tuple[int, ...]
    gain: float
    outliers: Outliers
    alphas: tuple[int, ...] = ()

    @classmethod
    def of(
        cls, file: Any, indices: Sequence[int], gain: float, outliers: Outliers, wanted: int | None = None
    ) -> Layer:
        """Some of a file's bands, which are images (`sfiin.runtime.scenes.bands`); the others are alpha."""
        images = bands.images(file, wanted)
        return cls(file, tuple(indices), gain, outliers, tuple(i for i in file.indexes if i not in images))

    @property
    def names(self) -> list[str | None]:
        """The bands' descriptions."""
        return [self.file.descriptions[i - 1] for i in self.bands]

    @property
    def colours(self) -> list[ColorInterp]:
        """The bands' colour interpretation."""
        return [self.file.colorinterp[i - 1] for i in self.bands]

    @property
    def dtypes(self) -> list[str]:
        """The bands' data types, by name."""
        return [self.file.dtypes[i - 1] for i in self.bands]

    @property
    def nodata(self) -> list[float | None]:
        """The bands' nodata values."""
        return [self.file.nodatavals[i - 1] for i in self.bands]

    @property
    def may_lack(self) -> bool:
        """Whether pixels may be invalid though no value is nodata: by a mask, or because they are not
        finite."""
        if any(np.dtype(dtype).kind == "f" for dtype in self.dtypes):
            return True
        unmasked = {MaskFlags.all_valid, MaskFlags.alpha}
        flags = [self.file.mask_flag_enums[i - 1] for i in self.bands]
        return bool(self.alphas) or any(unmasked.isdisjoint(each) for each in flags)

    def load(self, window: Window) -> tuple[Image, Mask]:
        """Pixels in DN, with gaps filled, and where each is valid, both (bands, height, width).

        What alpha hides is often an image all the same, such as below a cloud mask: where its values are
        within those around it, it says more of what surrounds the valid pixels than a filling does.
        """
        image, declared, shown = self._read(window)
        valid = declared & shown
        if self.outliers.possible:
            self.outliers.sift(image, valid, int(window.row_off), int(window.col_off), self.file.name)
        if valid.all():
            return image, valid
        hidden = declared & ~shown
        bands = zip(image, valid, hidden, strict=True)
        return np.stack([fill(band, good | _alike(band, good, under)) for band, good, under in bands]), valid

    def search(self) -> None:
        """Look in all of the file for values that no sensor delivers. Raises SceneError as `load`."""
        if not self.outliers.possible:
            return
        high = self.file.block_shapes[0][0]
        line = self.file.width * len(self.bands) * np.dtype(self.dtypes[0]).itemsize
        lines = max(1, _SEARCHED // (line * high)) * high
        for top in range(0, self.file.height, lines):
            window = Window(0, top, self.file.width, min(lines, self.file.height - top))
            try:
                values = self.file.read(self.bands, window=window)
            except RasterioIOError as error:
                raise _damaged(self.file, error) from error
            ends = np.array([values.min(), values.max()], np.float32) * np.float32(self.gain)
            if not self.outliers.is_light(ends).all():  # as it is for a NaN
                self.load(window)

    def load_raw(self, window: Window) -> tuple[Image, Mask]:
        """Pixels in DN as they are, and where each is valid, with what no sensor delivers."""
        image, declared, shown = self._read(window)
        return image, declared & shown

    def _read(self, window: Window) -> tuple[Image, Mask, Mask]:
        """Pixels in DN, where they are declared to be valid (bands, height, width), and where alpha shows
        them (1, height, width)."""
        try:
            image: Image = self.file.read(self.bands, window=window, out_dtype=np.float32)
            valid: Mask = np.isfinite(image)
            # GDAL's own use of alpha depends on the number of bands.
            if MaskFlags.alpha not in self.file.mask_flag_enums[self.bands[0] - 1]:
                valid &= self.file.read_masks(self.bands, window=window) > 0
            shown: Mask = np.ones_like(valid[:1])
            for alpha in self.alphas:
                shown &= self.file.read(alpha, window=window) > 0
        except RasterioIOError as error:
            raise _damaged(self.file, error) from error
        if self.gain != 1:
            with np.errstate(over="ignore"):
                image = image * np.float32(self.gain)
        return image, valid, shown


def sample(layer: Layer) -> Image:
    """The valid pixels of some windows spread over the file."""
    height, width = layer.file.shape
    tops, lefts = (
        sorted({int(start) for start in np.linspace(0, max(0, side - _SAMPLE_SIDE), _SAMPLES)})
        for side in (height, width)
    )
    size = (min(_SAMPLE_SIDE, width), min(_SAMPLE_SIDE, height))
    samples = [layer.load_raw(Window(left, top, *size)) for top in tops for left in lefts]
    return np.concatenate([image[valid] for image, valid in samples])


def _damaged(file: Any, error: BaseException) -> SceneError:
    return SceneError(f"{file.name}: damaged or cut short ({reason(error)}); fetch it again")


def _alike(band: Image, valid: Mask, hidden: Mask) -> Mask:
    """Where a hidden pixel is neither 0 nor beyond the valid ones."""
    if not hidden.any() or not valid.any():
        return np.zeros_like(valid)
    seen = band[valid]
    alike: Mask = hidden & (band != 0) & (band >= seen.min()) & (band <= seen.max())
    return alike


def fill(image: Image, valid: Mask) -> Image:
    """Give each invalid pixel the mean of the smallest block of 2**k x 2**k around it with valid pixels; 0
    if none."""
    if valid.all():
        return image
    if not valid.any():
        return np.zeros_like(image)
    height, width = image.shape
    padding = ((0, height % 2), (0, width % 2))
    number = _blocks(np.pad(valid.astype(np.float32), padding))
    mean = _blocks(np.pad(np.where(valid, image, 0), padding)) / np.maximum(number, 1)
    coarse = fill(mean.astype(np.float32), number > 0).repeat(2, axis=0).repeat(2, axis=1)
    return np.where(valid, image, coarse[:height, :width])


def _blocks(image: Image) -> Image:
    """Sums of 2 x 2 pixels."""
    return image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2]
