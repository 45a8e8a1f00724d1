"""How good is a fused image, in the field's measures?

Images are (B, H, W), any real type, digital numbers (DN); sums are taken in float64. `valid` is a boolean (H,
W), True where a pixel counts (default: everywhere); what lies elsewhere may be anything, NaN too. A measure
taken in windows or blocks uses those whose pixels are all valid. All functions raise ValueError for shapes
that do not fit one another, for values that are not finite where valid, and where nothing is left to measure.

Without a reference the definitions differ between codebases, by a factor of ten at times: compare only values
computed by the same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from sfiin.runtime.quality.bicubic import bicubic
from sfiin.runtime.quality.degradation import OTHER_MS_GAIN, OTHER_PAN_GAIN, block_mean, blur, degrade
from sfiin.runtime.quality.filters import correlate

Image = NDArray[np.float64]
Mask = NDArray[np.bool_]
_T = TypeVar("_T", bound=np.generic)

BLOCK = 32
_WINDOW, _SIGMA = 11, 1.5


@dataclass(frozen=True)
class Quality:
    """A fused image against its truth: PSNR (dB), SSIM, SAM (degrees), ERGAS, SCC, Q2n, and each band's
    bias (DN)."""

    psnr: float
    ssim: float
    sam: float
    ergas: float
    scc: float
    q2n: float
    bias: tuple[float, ...]


def reference_quality(
    fused: NDArray[Any], truth: NDArray[Any], ratio: int, peak: float, valid: NDArray[Any] | None = None
) -> Quality:
    """All measures with a reference; `ratio` enters ERGAS, `peak` (the largest DN) PSNR and SSIM.

    Raises ValueError where one of them does, so too for a truth with an all-zero band.
    """
    return Quality(
        psnr(fused, truth, peak, valid),
        ssim(fused, truth, peak, valid),
        sam(fused, truth, valid),
        ergas(fused, truth, ratio, valid),
        scc(fused, truth, valid),
        q2n(fused, truth, valid=valid),
        bias(fused, truth, valid),
    )


def psnr(fused: NDArray[Any], truth: NDArray[Any], peak: float, valid: NDArray[Any] | None = None) -> float:
    """Peak signal-to-noise ratio, dB: 10 log10(peak^2 / mean squared error over all bands); inf for equal
    images.

    `peak` is the sensor's largest DN, 2047 for 11 bit. ValueError unless it is positive.
    """
    a, b, mask = _pair(fused, truth, valid)
    error = float(np.mean((a - b)[:, mask] ** 2))
    return float("inf") if error == 0 else float(10 * np.log10(_peak(peak) ** 2 / error))


def ssim(fused: NDArray[Any], truth: NDArray[Any], peak: float, valid: NDArray[Any] | None = None) -> float:
    """Structural similarity, at most 1: mean over all bands and all windows that lie inside the image.

    Windows are 11 x 11, Gaussian with sigma 1.5, K1 = 0.01, K2 = 0.03. Source: Z. Wang, A. C. Bovik, H. R.
    Sheikh, E. P. Simoncelli, "Image quality assessment", IEEE TIP 13 (2004). ValueError for a side below 11
    too.
    """
    a, b, mask = _pair(fused, truth, valid)
    if min(mask.shape) < _WINDOW:
        raise ValueError(
            f"image: {mask.shape[0]}x{mask.shape[1]} is smaller than SSIM's {_WINDOW}x{_WINDOW} window"
        )
    whole: Mask = np.asarray(
        np.lib.stride_tricks.sliding_window_view(mask, (_WINDOW, _WINDOW)).all(axis=(2, 3))
    )
    _some(whole, f"{_WINDOW}x{_WINDOW} window")
    mean_a, mean_b = _smooth(a), _smooth(b)
    spread = _smooth(a * a) - mean_a**2 + _smooth(b * b) - mean_b**2
    shared = _smooth(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * _peak(peak)) ** 2, (0.03 * peak) ** 2
    index = (2 * mean_a * mean_b + c1) * (2 * shared + c2) / ((mean_a**2 + mean_b**2 + c1) * (spread + c2))
    return float(index[:, whole].mean())


def sam(fused: NDArray[Any], truth: NDArray[Any], valid: NDArray[Any] | None = None) -> float:
    """Spectral angle, degrees (many papers print radians): mean over pixels of the angle between the two
    spectra.

    Pixels whose spectrum is zero in one of the images have no angle and do not count. Source: R. H. Yuhas, A.
    F. H. Goetz, J. W. Boardman, Summaries of the 3rd JPL Airborne Geoscience Workshop (1992).
    """
    a, b, mask = _pair(fused, truth, valid)
    a, b = a[:, mask], b[:, mask]
    length_a, length_b = np.linalg.norm(a, axis=0), np.linalg.norm(b, axis=0)
    lit = (length_a > 0) & (length_b > 0)
    _some(lit, "pixel with a spectrum")
    a, b = a[:, lit] / length_a[lit], b[:, lit] / length_b[lit]
    # arccos loses half the digits of a small angle; this form (Kahan's) keeps them.
    angle = 2 * np.arctan2(np.linalg.norm(a - b, axis=0), np.linalg.norm(a + b, axis=0))
    return float(np.degrees(angle.mean()))


def ergas(fused: NDArray[Any], truth: NDArray[Any], ratio: int, valid: NDArray[Any] | None = None) -> float:
    """Relative global error, per cent of the means: (100 / ratio) sqrt(mean over bands of MSE_b /
    mean(truth_b)^2).

    Source: L. Wald, "Data Fusion", Presses des Mines (2002). ValueError for a ratio below 1 or a band of mean
    zero too.
    """
    a, b, mask = _pair(fused, truth, valid)
    means = b[:, mask].mean(axis=1)
    if ratio < 1 or not means.all():
        raise ValueError(
            f"ergas: needs a ratio of 1 or more and bands of non-zero mean, not {ratio} and {means}"
        )
    errors = ((a - b)[:, mask] ** 2).mean(axis=1)
    return float(100 / ratio * np.sqrt(np.mean(errors / means**2)))


def scc(fused: NDArray[Any], truth: NDArray[Any], valid: NDArray[Any] | None = None) -> float:
    """Spatial correlation, 0 to 1: the cosine between both images' Sobel gradient magnitudes, over all bands
    at once.

    The outermost pixels are cut off, and zero is assumed beyond the rest, so that the frame itself counts as
    an edge in both images. With `valid`, a pixel counts if its 3 x 3 neighbourhood is valid. After J. Zhou,
    D. L. Civco, J. A. Silander, "A wavelet transform method to merge Landsat TM and SPOT panchromatic data",
    IJRS 19 (1998), in the form with Sobel filters. ValueError for a side below 3 or an image without any
    gradient too.
    """
    a, b, mask = _pair(fused, truth, valid)
    inner = np.s_[1:-1, 1:-1]
    around = np.pad(mask, 1, constant_values=True)
    whole = np.asarray(sliding_window_view(around, (3, 3)).all(axis=(2, 3)))[inner]
    _some(whole, "3x3 neighbourhood")
    edges_a, edges_b = (_gradient(image[:, 1:-1, 1:-1])[:, whole] for image in (a, b))
    energy = float(np.sqrt((edges_a**2).sum() * (edges_b**2).sum()))
    if energy == 0:
        raise ValueError("scc: an image without any gradient has no spatial correlation")
    return float((edges_a * edges_b).sum()) / energy


def correlation(fused: NDArray[Any], truth: NDArray[Any], valid: NDArray[Any] | None = None) -> float:
    """Pearson correlation, -1 to 1: mean over the bands. ValueError for a constant band too."""
    a, b, mask = _pair(fused, truth, valid)
    a, b = (image[:, mask] - image[:, mask].mean(axis=1, keepdims=True) for image in (a, b))
    spread = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    if not spread.all():
        raise ValueError("correlation: a constant band has none")
    return float(np.mean((a * b).sum(axis=1) / spread))


def bias(fused: NDArray[Any], truth: NDArray[Any], valid: NDArray[Any] | None = None) -> tuple[float, ...]:
    """Mean of fused - truth of each band, DN."""
    a, b, mask = _pair(fused, truth, valid)
    return tuple(float(shift) for shift in (a - b)[:, mask].mean(axis=1))


def q2n(
    fused: NDArray[Any], truth: NDArray[Any], block: int = BLOCK, valid: NDArray[Any] | None = None
) -> float:
    """Hypercomplex universal quality index (Q4, Q8, ...), 0 to 1: mean over blocks of `block` x `block`
    pixels.

    A pixel's bands are one number of the Cayley-Dickson algebra of the next power of two, missing bands zero.
    A remainder at the right and the bottom that fills no block does not count; a block constant in both
    images is judged by its means. Sources: L. Alparone et al., IEEE GRSL 1 (2004), for Q4; A. Garzelli, F.
    Nencini, "Hypercomplex quality assessment of multi/hyperspectral images", IEEE GRSL 6 (2009). ValueError
    for a side below `block` too.
    """
    a, b, mask = _pair(fused, truth, valid)
    kept = _whole_blocks(mask, block)
    a, b = (_padded(_blocks(image, block)[:, kept]) for image in (a, b))
    mean_a, mean_b = a.mean(axis=-1), b.mean(axis=-1)
    off_a, off_b = a - mean_a[..., None], b - mean_b[..., None]
    shared = np.linalg.norm(_multiply(off_a, _conjugate(off_b)).mean(axis=-1), axis=0)
    spread = (off_a**2).mean(axis=-1).sum(axis=0) + (off_b**2).mean(axis=-1).sum(axis=0)
    power_a, power_b = (mean_a**2).sum(axis=0), (mean_b**2).sum(axis=0)
    return float(_universal(shared, spread, np.sqrt(power_a * power_b), power_a + power_b).mean())


def d_lambda(
    fused: NDArray[Any], ms: NDArray[Any], block: int = BLOCK, valid: NDArray[Any] | None = None
) -> float:
    """Spectral distortion without a reference, 0 is best: how far the bands' mutual universal quality index
    moved.

    Mean over ordered pairs of bands of |Q(fused_i, fused_j) - Q(ms_i, ms_j)|, Q over blocks of `block` PAN
    pixels a side, which are block / ratio MS pixels (the same as replicating MS onto the PAN grid). `ms` is
    (B, H / ratio, W / ratio). Source: L. Alparone et al., "Multispectral and panchromatic data fusion
    assessment without reference", PE&RS 74 (2008), exponent 1. ValueError for fewer than two bands or a block
    that is no multiple of the ratio too.
    """
    image, coarse, mask, ratio = _unreferenced(fused, ms, valid)
    if len(image) < 2:
        raise ValueError("d_lambda: compares pairs of bands, and there is one band")
    kept, small = _whole_blocks(mask, block), _coarse_block(block, ratio)
    fine, low = _blocks(image, block)[:, kept], _blocks(coarse, small)[:, kept]
    pairs = zip(*np.triu_indices(len(image), 1), strict=True)
    return float(np.mean([abs(_uqi(fine[i], fine[j]) - _uqi(low[i], low[j])) for i, j in pairs]))


def d_s(
    fused: NDArray[Any],
    ms: NDArray[Any],
    pan: NDArray[Any],
    *,
    gain: float = OTHER_PAN_GAIN,
    block: int = BLOCK,
    valid: NDArray[Any] | None = None,
) -> float:
    """Spatial distortion without a reference, 0 is best: mean over bands of |Q(fused_b, PAN) - Q(ms_b, PAN
    degraded)|.

    `pan` is (H, W) or (1, H, W), degraded by a Gaussian MTF of Nyquist gain `gain`; source, blocks and errors
    as `d_lambda`. Exponent 1.
    """
    image, coarse, mask, ratio = _unreferenced(fused, ms, valid)
    sharp = _filled(_panchromatic(pan, mask), mask)
    kept, small = _whole_blocks(mask, block), _coarse_block(block, ratio)
    blurred = _blocks(degrade(sharp, ratio, gain), small)[0, kept]
    sharp = _blocks(sharp, block)[0, kept]
    fine, low = _blocks(image, block)[:, kept], _blocks(coarse, small)[:, kept]
    return float(np.mean([abs(_uqi(f, sharp) - _uqi(c, blurred)) for f, c in zip(fine, low, strict=True)]))


def qnr(
    fused: NDArray[Any],
    ms: NDArray[Any],
    pan: NDArray[Any],
    *,
    gain: float = OTHER_PAN_GAIN,
    valid: NDArray[Any] | None = None,
) -> float:
    """Quality with no reference, 1 is best: (1 - d_lambda) (1 - d_s). Source and errors as `d_lambda`."""
    return (1 - d_lambda(fused, ms, valid=valid)) * (1 - d_s(fused, ms, pan, gain=gain, valid=valid))


def d_lambda_k(
    fused: NDArray[Any],
    ms: NDArray[Any],
    gains: float | Sequence[float] = OTHER_MS_GAIN,
    block: int = BLOCK,
    valid: NDArray[Any] | None = None,
) -> float:
    """Spectral distortion by consistency, 0 is best: 1 - Q2n(fused seen through the MS sensor's MTF, MS
    resampled).

    `gains` are the MS bands' Nyquist gains, one or one each; MS is resampled by cubic convolution. Pixels
    that are not valid take the value of the nearest valid one before the filter. Source: M. M. Khan, L.
    Alparone, J. Chanussot, "Pansharpening quality assessment using the modulation transfer functions of
    instruments", IEEE TGRS 47 (2009).
    """
    image, coarse, mask, ratio = _unreferenced(fused, ms, valid)
    seen = blur(_filled(image, mask), ratio, gains)
    expected = bicubic(_filled(coarse, block_mean(mask[None], ratio)[0] == 1), ratio)
    return 1 - q2n(seen, expected, block, mask)


def hqnr(
    fused: NDArray[Any],
    ms: NDArray[Any],
    pan: NDArray[Any],
    *,
    gains: float | Sequence[float] = OTHER_MS_GAIN,
    gain: float = OTHER_PAN_GAIN,
    valid: NDArray[Any] | None = None,
) -> float:
    """Hybrid quality with no reference, 1 is best: (1 - d_lambda_k) (1 - d_s).

    Source: B. Aiazzi et al., "Full-scale assessment of pansharpening methods and data products", SPIE 9244
    (2014).
    """
    return (1 - d_lambda_k(fused, ms, gains, valid=valid)) * (1 - d_s(fused, ms, pan, gain=gain, valid=valid))


def _pair(fused: NDArray[Any], truth: NDArray[Any], valid: NDArray[Any] | None) -> tuple[Image, Image, Mask]:
    a, b = np.asarray(fused, np.float64), np.asarray(truth, np.float64)
    if a.ndim != 3 or a.shape != b.shape:
        raise ValueError(
            f"images: expected two of one shape (bands, height, width), found {a.shape} and {b.shape}"
        )
    mask = _mask(valid, a.shape)
    return _finite(a, mask), _finite(b, mask), mask


def _mask(valid: NDArray[Any] | None, shape: tuple[int, ...]) -> Mask:
    mask = np.ones(shape[1:], np.bool_) if valid is None else np.asarray(valid)
    if mask.dtype != np.bool_ or mask.shape != shape[1:]:
        raise ValueError(f"valid: expected boolean {shape[1:]}, found {mask.dtype} {mask.shape}")
    _some(mask, "pixel")
    return mask


def _finite(image: Image, mask: Mask) -> Image:
    known = np.where(mask, image, 0.0)
    if not np.isfinite(known).all():
        raise ValueError("image: values that are not finite; mark such pixels in `valid`")
    return known


def _some(chosen: Mask, what: str) -> None:
    if not chosen.any():
        raise ValueError(f"valid: no {what} is left to measure")


def _peak(peak: float) -> float:
    if not peak > 0:
        raise ValueError(f"peak: must be positive, not {peak}")
    return peak


def _smooth(image: Image) -> Image:
    weights = np.exp(-0.5 * ((np.arange(_WINDOW) - _WINDOW // 2) / _SIGMA) ** 2)
    weights /= weights.sum()
    margin = _WINDOW // 2
    rows = correlate(image, weights, axis=1)[:, margin:-margin]
    return correlate(rows, weights, axis=2)[:, :, margin:-margin]


def _gradient(image: Image) -> Image:
    """Sobel's gradient magnitude of each band, (B, H, W), with zeros beyond the edges."""
    around = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    down, right = around[:, 2:] - around[:, :-2], around[:, :, 2:] - around[:, :, :-2]
    down = down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]
    right = right[:, :-2] + 2 * right[:, 1:-1] + right[:, 2:]
    return np.asarray(np.hypot(down, right))


def _blocks(image: NDArray[_T], block: int) -> NDArray[_T]:
    """(B, H, W) to (B, rows of blocks, columns of blocks, block * block)."""
    bands, height, width = len(image), image.shape[1] // block, image.shape[2] // block
    cut = image[:, : height * block, : width * block].reshape(bands, height, block, width, block)
    return cut.swapaxes(2, 3).reshape(bands, height, width, block * block)


def _whole_blocks(mask: Mask, block: int) -> Mask:
    if block < 1 or min(mask.shape) < block:
        raise ValueError(f"image: {mask.shape[0]}x{mask.shape[1]} does not hold a block of {block}x{block}")
    whole = _blocks(mask[None], block)[0].all(axis=-1)
    _some(whole, f"{block}x{block} block")
    return np.asarray(whole, np.bool_)


def _coarse_block(block: int, ratio: int) -> int:
    if block % ratio:
        raise ValueError(f"block: {block} is no multiple of the ratio {ratio}")
    return block // ratio


def _padded(image: Image) -> Image:
    missing = (1 << (len(image) - 1).bit_length()) - len(image)
    return np.concatenate([image, np.zeros((missing, *image.shape[1:]))])


def _conjugate(number: Image) -> Image:
    return np.concatenate([number[:1], -number[1:]])


def _multiply(a: Image, b: Image) -> Image:
    """Cayley-Dickson: (p, q) (r, s) = (p r - s* q, s p + q r*), components along the first axis."""
    if len(a) == 1:
        return a * b
    half = len(a) // 2
    p, q, r, s = a[:half], a[half:], b[:half], b[half:]
    first = _multiply(p, r) - _multiply(_conjugate(s), q)
    return np.concatenate([first, _multiply(s, p) + _multiply(q, _conjugate(r))])


def _uqi(a: Image, b: Image) -> float:
    """Universal quality index (Z. Wang, A. C. Bovik, IEEE SPL 9, 2002): mean over blocks (n, pixels)."""
    mean_a, mean_b = a.mean(axis=-1), b.mean(axis=-1)
    off_a, off_b = a - mean_a[..., None], b - mean_b[..., None]
    spread = (off_a**2).mean(axis=-1) + (off_b**2).mean(axis=-1)
    index = _universal((off_a * off_b).mean(axis=-1), spread, mean_a * mean_b, mean_a**2 + mean_b**2)
    return float(index.mean())


def _universal(shared: Image, spread: Image, product: Image, power: Image) -> Image:
    """2 shared / spread * 2 product / power, each quotient 1 where there is nothing but rounding to
    compare."""
    flat, dark = spread <= 1e-26 * power, power == 0
    structure = np.where(flat, 1.0, 2 * shared / np.where(flat, 1.0, spread))
    return structure * np.where(dark, 1.0, 2 * product / np.where(dark, 1.0, power))


def _unreferenced(
    fused: NDArray[Any], ms: NDArray[Any], valid: NDArray[Any] | None
) -> tuple[Image, Image, Mask, int]:
    image, coarse = np.asarray(fused, np.float64), np.asarray(ms, np.float64)
    ratio = image.shape[-1] // coarse.shape[-1] if image.ndim == coarse.ndim == 3 and coarse.size else 0
    if not ratio or image.shape != (len(coarse), coarse.shape[1] * ratio, coarse.shape[2] * ratio):
        raise ValueError(f"images: fused {image.shape} is no whole multiple of MS {coarse.shape}")
    mask = _mask(valid, image.shape)
    return _finite(image, mask), _finite(coarse, block_mean(mask[None], ratio)[0] == 1), mask, ratio


def _panchromatic(pan: NDArray[Any], mask: Mask) -> Image:
    image = np.asarray(pan, np.float64)
    if image.shape not in (mask.shape, (1, *mask.shape)):
        raise ValueError(f"pan: expected {mask.shape} or {(1, *mask.shape)}, found {image.shape}")
    return _finite(image.reshape(1, *mask.shape), mask)


def _filled(image: Image, mask: Mask) -> Image:
    if mask.all() or not mask.any():
        return image
    from scipy import ndimage  # only images with gaps need it

    nearest = ndimage.distance_transform_edt(~mask, return_distances=False, return_indices=True)
    return image[:, nearest[0], nearest[1]]
