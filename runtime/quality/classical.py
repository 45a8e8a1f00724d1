"""How far does one get without a network? The classical methods, as baselines.

Each takes MS (B, h, w), PAN (H, W) or (1, H, W) with H = h * ratio, any real type, digital numbers (DN), and
returns HRMS (B, H, W) float64, neither rounded nor clipped; ValueError for shapes that do not fit. MS is
resampled by cubic convolution. Survey: G. Vivone et al., "A Critical Comparison Among Pansharpening
Algorithms", IEEE TGRS 53 (2015).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfiin.runtime.quality import local
from sfiin.runtime.quality.bicubic import bicubic
from sfiin.runtime.quality.degradation import OTHER_MS_GAIN, OTHER_PAN_GAIN, blur, degrade
from sfiin.runtime.quality.filters import correlate

Image = NDArray[np.float64]
Method = Callable[[NDArray[Any], NDArray[Any], int], Image]


def interpolate(ms: NDArray[Any], pan: NDArray[Any], ratio: int) -> Image:
    """No sharpening: MS resampled (R. G. Keys, IEEE Trans. ASSP 29, 1981); PAN only says the size."""
    return _inputs(ms, pan, ratio)[0]


def brovey(ms: NDArray[Any], pan: NDArray[Any], ratio: int) -> Image:
    """Scale each spectrum so that the bands' mean is PAN, brought to that mean's own level and contrast.

    Source: A. R. Gillespie, A. B. Kahle, R. E. Walker, Remote Sensing of Environment 22 (1987).
    """
    up, sharp = _inputs(ms, pan, ratio)
    intensity = up.mean(axis=0)
    return up * _quotient(_matched(sharp, intensity, ratio, OTHER_PAN_GAIN), intensity)


def gs(ms: NDArray[Any], pan: NDArray[Any], ratio: int) -> Image:
    """Gram-Schmidt, with the bands' mean as the intensity.

    Source: C. A. Laben, B. V. Brower, US patent 6,011,875 (2000); gains as in B. Aiazzi et al., IEEE TGRS 45
    (2007).
    """
    up, sharp = _inputs(ms, pan, ratio)
    intensity = up.mean(axis=0)
    return _substituted(up, intensity, _matched(sharp, intensity, ratio, OTHER_PAN_GAIN))


def gsa(ms: NDArray[Any], pan: NDArray[Any], ratio: int) -> Image:
    """Adaptive Gram-Schmidt: the intensity is the mix of bands (and a constant) that best explains PAN at MS
    scale.

    Source: B. Aiazzi, S. Baronti, M. Selva, "Improving component substitution pansharpening", IEEE TGRS 45
    (2007).
    """
    up, sharp = _inputs(ms, pan, ratio)
    bands = np.asarray(ms, np.float64).reshape(len(up), -1)
    design = np.vstack([bands, np.ones(bands.shape[1])]).T
    weights = np.linalg.lstsq(design, degrade(sharp[None], ratio, OTHER_PAN_GAIN).ravel(), rcond=None)[0]
    intensity = np.tensordot(weights[:-1], up, 1)
    return _substituted(up, intensity, sharp - sharp.mean() + intensity.mean())


def sfim(ms: NDArray[Any], pan: NDArray[Any], ratio: int) -> Image:
    """Modulate MS by PAN over its mean in a window of one MS pixel.

    Source: J. G. Liu, "Smoothing filter-based intensity modulation", IJRS 21 (2000).
    """
    up, sharp = _inputs(ms, pan, ratio)
    # An even window has no middle pixel: its two outermost pixels count by half.
    window = np.ones(ratio) if ratio % 2 else np.r_[0.5, np.ones(ratio - 1), 0.5]
    mean = sharp
    for axis in (0, 1):
        mean = correlate(mean, window / ratio, axis)
    return up * _quotient(sharp, mean)


def mtf_glp_hpm(
    ms: NDArray[Any], pan: NDArray[Any], ratio: int, gains: float | Sequence[float] = OTHER_MS_GAIN
) -> Image:
    """Modulate each band by PAN over PAN as seen through that band's MTF (`gains`: one Nyquist gain, or one
    each).

    Source: B. Aiazzi, L. Alparone, S. Baronti, A. Garzelli, M. Selva, "MTF-tailored multiscale fusion of
    high-resolution MS and Pan imagery", PE&RS 72 (2006).
    """
    up, sharp = _inputs(ms, pan, ratio)
    each = [gains] * len(up) if isinstance(gains, float) else list(gains)
    if len(each) != len(up):
        raise ValueError(f"{len(each)} gains for {len(up)} bands")
    return np.stack([_modulated(band, sharp, ratio, gain) for band, gain in zip(up, each, strict=True)])


def local_regression(ms: NDArray[Any], pan: NDArray[Any], ratio: int) -> Image:
    """Add PAN's detail, to each band by its regression on PAN in the pixel's neighbourhood.

    The blur of MS is found from the image; see `sfiin.runtime.quality.local`. After B. Aiazzi, L. Alparone,
    S. Baronti, A. Garzelli, M. Selva, "MTF-tailored multiscale fusion of high-resolution MS and Pan imagery",
    PE&RS 72 (2006), whose context-based decision takes the same local gains.
    """
    up, sharp = _inputs(ms, pan, ratio)
    return up + local.regression(local.look(ms, sharp, ratio))


def local_gsa(ms: NDArray[Any], pan: NDArray[Any], ratio: int) -> Image:
    """`gsa` with the mix of bands and the gains of each pixel's neighbourhood; the blur of MS is found as in
    `local_regression`.
    """
    up, sharp = _inputs(ms, pan, ratio)
    return up + local.gsa(local.look(ms, sharp, ratio))


METHODS: dict[str, Method] = {
    "bicubic": interpolate,
    "brovey": brovey,
    "gs": gs,
    "gsa": gsa,
    "sfim": sfim,
    "mtf_glp_hpm": mtf_glp_hpm,
    "local_regression": local_regression,
    "local_gsa": local_gsa,
}


def _inputs(ms: NDArray[Any], pan: NDArray[Any], ratio: int) -> tuple[Image, Image]:
    """MS on the PAN grid, and PAN (H, W)."""
    if np.ndim(ms) != 3 or ratio < 2:
        raise ValueError(
            f"ms: expected (bands, h, w) and a ratio of 2 or more, found {np.shape(ms)} and {ratio}"
        )
    size = (ms.shape[1] * ratio, ms.shape[2] * ratio)
    if pan.shape not in (size, (1, *size)):
        raise ValueError(f"pan: expected {size} or {(1, *size)}, {ratio} times MS, found {pan.shape}")
    return bicubic(ms, ratio), np.asarray(pan, np.float64).reshape(size)


def _matched(sharp: Image, like: Image, ratio: int, gain: float) -> Image:
    """PAN with the mean of `like` and, at MS scale, its standard deviation."""
    contrast = blur(sharp[None], ratio, gain).std()
    flat = contrast <= 1e-9 * np.abs(sharp).max()  # nothing but rounding to match
    scale = 1.0 if flat else float(like.std() / contrast)
    return np.asarray((sharp - sharp.mean()) * scale + like.mean())


def _substituted(up: Image, intensity: Image, sharp: Image) -> Image:
    """Add what PAN has over the intensity, to each band by its regression on the intensity."""
    off = intensity - intensity.mean()
    power = (off**2).sum()
    flat = power <= 1e-18 * (up**2).sum()  # nothing but rounding: no band depends on it
    gains: Image = np.ones(len(up)) if flat else (up * off).sum(axis=(1, 2)) / power
    return np.asarray(up + gains[:, None, None] * (sharp - intensity))


def _modulated(band: Image, sharp: Image, ratio: int, gain: float) -> Image:
    matched = _matched(sharp, band, ratio, gain)
    return band * _quotient(matched, bicubic(degrade(matched[None], ratio, gain), ratio)[0])


def _quotient(fine: Image, coarse: Image) -> Image:
    """fine / coarse, but 1 where coarse is under 1 % of its mean: there the quotient would be noise blown
    up."""
    usable = coarse > max(0.01 * coarse.mean(), 0.0)
    return np.where(usable, fine / np.where(usable, coarse, 1.0), 1.0)
