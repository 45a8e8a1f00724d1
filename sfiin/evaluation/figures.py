"""What does it look like? Pictures of images and errors, for people."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sfiin.evaluation.phase_study import Spectrum, planes
from sfiin.runtime.files import publish

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sfiin.evaluation.judging import Spread

RGB = (2, 1, 0)
"""Red, green and blue of a blue-green-red(-nir) image."""


def comparison(
    path: Path, pan: NDArray[Any], ms: NDArray[Any], fused: NDArray[Any], truth: NDArray[Any], *, title: str
) -> None:
    """Write a PNG of PAN, MS, result, truth and the error's magnitude.

    `pan` (H, W), `ms` (B, h, w), `fused` and `truth` (B, H, W), DN; B of at least 3 in the order blue, green,
    red. All colour panels share one stretch, from the truth's 1st to its 99th percentile. Raises OutputError.
    """
    from matplotlib.figure import Figure

    low, high = np.percentile(truth, (1, 99))
    error = np.abs(fused.astype(np.float64) - truth).mean(0)
    figure = Figure(figsize=(18, 4.4), layout="constrained")
    panels = figure.subplots(1, 5)
    pan_low, pan_high = np.percentile(pan, (1, 99))
    panels[0].imshow(pan, cmap="gray", vmin=pan_low, vmax=pan_high)
    for panel, image in zip(panels[1:4], (ms, fused, truth), strict=True):
        panel.imshow(np.clip((image[list(RGB)].transpose(1, 2, 0) - low) / (high - low), 0, 1))
    shown = panels[4].imshow(error, cmap="magma", vmin=0, vmax=np.percentile(error, 99))
    figure.colorbar(shown, ax=panels[4], label="DN")
    names = ("PAN", "MS", "SFIIN", "truth", "|SFIIN - truth|, mean of bands")
    for panel, name in zip(panels, names, strict=True):
        panel.set_title(name)
        panel.set_axis_off()
    figure.suptitle(title)
    with publish(path) as part:
        figure.savefig(part, dpi=80)


def side_by_side(path: Path, images: Mapping[str, NDArray[Any]], *, title: str) -> None:
    """Write a PNG of images without a truth: PAN (H, W) in grey, others (B, h, w) in red, green and blue.

    Colours share one stretch, from the first colour image's 1st to its 99th percentile, band by band. Raises
    OutputError.
    """
    from matplotlib.figure import Figure

    first = next(image for image in images.values() if image.ndim == 3)
    low, high = np.percentile(first[list(RGB)], (1, 99), axis=(1, 2))[..., None, None]
    figure = Figure(figsize=(4.4 * len(images), 4.8), layout="constrained")
    for panel, (name, image) in zip(figure.subplots(1, len(images)), images.items(), strict=True):
        if image.ndim == 2:
            grey_low, grey_high = np.percentile(image, (1, 99))
            panel.imshow(image, cmap="gray", vmin=grey_low, vmax=grey_high)
        else:
            panel.imshow(np.clip((image[list(RGB)] - low) / (high - low), 0, 1).transpose(1, 2, 0))
        panel.set_title(name)
        panel.set_axis_off()
    figure.suptitle(title)
    with publish(path) as part:
        figure.savefig(part, dpi=80)


def png(figure: Figure) -> bytes:
    """The figure as a PNG file's bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()


def colours(bands: Sequence[str]) -> tuple[int, ...]:
    """Where red, green and blue are among bands of these names; the first band alone where one of them is
    missing."""
    names = list(bands)
    if {"red", "green", "blue"} <= set(names):
        return names.index("red"), names.index("green"), names.index("blue")
    return (0,)


def scene(
    images: Mapping[str, NDArray[Any]], like: NDArray[Any], shown: Sequence[int], *, title: str
) -> Figure:
    """Images side by side. (H, W) is drawn in grey by its own 1st to 99th percentile; (B, h, w) by its bands
    `shown`.

    All of these share one stretch, band by band from the 1st to the 99th percentile of `like` (B, H, W).
    """
    low, high = (np.percentile(like[list(shown)], share, axis=(1, 2))[:, None, None] for share in (1, 99))
    height, width = like.shape[1:]
    figure, panels = _grid(len(images), len(images) if width <= 1.5 * height else 2, height / width, 3.4)
    for panel, (name, image) in zip(panels, images.items(), strict=False):
        side = f"{image.shape[-1]} x {image.shape[-2]} px"
        if image.ndim == 2:
            panel.imshow(image, cmap="gray", vmin=np.percentile(image, 1), vmax=np.percentile(image, 99))
        else:
            stretched = np.clip((image[list(shown)] - low) / np.maximum(high - low, 1e-9), 0, 1)
            panel.imshow(
                stretched.transpose(1, 2, 0) if len(shown) == 3 else stretched[0], cmap="gray", vmin=0, vmax=1
            )
        panel.set_title(f"{name}, {side}")
    figure.suptitle(title)
    return figure


def error_maps(errors: Mapping[str, NDArray[np.float64]], *, title: str) -> Figure:
    """Squared errors (H, W), DN^2, by method: one colour scale for all, from 0 to the 99th percentile of the
    first.

    So the first, a fixed baseline, sets the scale, however bad another is. Colours follow the square root, so
    that small errors stay visible. Each title tells the map's mean.
    """
    from matplotlib.colors import PowerNorm

    maps = list(errors.values())
    top = max(float(np.percentile(maps[0], 99)), 1e-9)
    height, width = maps[0].shape
    rows = -(-len(maps) // 4)
    figure, panels = _grid(len(maps), -(-len(maps) // rows), height / width, 3.4)
    for panel, (name, error) in zip(panels, errors.items(), strict=False):
        drawn = panel.imshow(error, cmap="magma", norm=PowerNorm(0.5, 0, top))
        panel.set_title(f"{name}: mean {error.mean():.4g} DN²")
    figure.colorbar(
        drawn, ax=panels, label="squared error, mean over bands, DN²", extend="max", shrink=0.8, aspect=30
    )
    figure.suptitle(title)
    return figure


def feature_maps(rows: Mapping[str, Mapping[str, NDArray[Any]]], *, title: str) -> Figure:
    """Pictures (H, W) by row and column, each from its own 1st to its own 99th percentile."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    figure, panels = _grid(len(rows) * len(names), len(names), 0.85, 3.6)
    for i, (label, row) in enumerate(rows.items()):
        for j, name in enumerate(names):
            panel = panels[i * len(names) + j]
            if name in row:
                low, high = np.percentile(row[name], (1, 99))
                drawn = panel.imshow(row[name], cmap="viridis", vmin=low, vmax=max(high, low + 1e-9))
                panel.figure.colorbar(drawn, ax=panel, shrink=0.8)
            panel.set_title(f"{label}\n{name}", fontsize=10)
    figure.suptitle(title)
    return figure


def spectra(images: Mapping[str, Spectrum], truth: Spectrum, ratio: int, *, title: str) -> Figure:
    """Log-amplitude and phase of each image and the truth, and how far each image is from the truth.

    Frequencies in cycles per PAN pixel, 0 in the middle. The differences are means over 5 x 5 bins, as single
    bins are noise to the eye; the square is what an MS grid `ratio` times coarser can carry.
    """
    figure, panels = _grid(2 * (2 * len(images) + 1), 2 * len(images) + 1, 1.0, 3.3)
    top, bottom = panels[: len(panels) // 2], panels[len(panels) // 2 :]
    shown = {**images, "truth": truth}
    logs = [np.log10(np.maximum(found.amplitude, 1e-3)) for found in shown.values()]
    low, high = np.percentile(logs[-1], (1, 99.9))
    for i, (name, found) in enumerate(shown.items()):
        _plane(top[i], logs[i], f"{name}: amplitude", unit="log10 DN", ratio=ratio, limits=(low, high))
        _plane(bottom[i], found.phase, f"{name}: phase", unit="rad", ratio=ratio, limits=(-np.pi, np.pi))
    far = [[_smooth(np.abs(plane)) for plane in planes(found, truth)[:2]] for found in images.values()]
    limit = max(1e-9, *(float(np.percentile(amplitude, 99)) for amplitude, _ in far))
    for i, (name, (amplitude, phase)) in enumerate(zip(images, far, strict=True), len(shown)):
        _plane(
            top[i], amplitude, f"|{name} - truth|: ln amplitude", unit="ln", ratio=ratio, limits=(0, limit)
        )
        _plane(bottom[i], phase, f"|{name} - truth|: phase", unit="rad", ratio=ratio, limits=(0, np.pi))
    figure.suptitle(title)
    return figure


def block_charts(lines: Mapping[str, Mapping[int, tuple[Spread, Spread]]], *, title: str) -> Figure:
    """PSNR (dB) and ERGAS over the number of core blocks; lines by name, error bars one standard
    deviation."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(11, 4), layout="constrained")
    for k, (panel, measure) in enumerate(zip(figure.subplots(1, 2), ("PSNR, dB", "ERGAS"), strict=True)):
        for name, line in lines.items():
            counts = sorted(line)
            values = [line[count][k] for count in counts]
            bars = [value.deviation or 0.0 for value in values]
            panel.errorbar(counts, [value.mean for value in values], bars, marker="o", capsize=4, label=name)
        panel.set_xlabel("core blocks")
        panel.set_ylabel(measure)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.grid(alpha=0.3)
        panel.legend()
    figure.suptitle(title)
    return figure


def _grid(count: int, columns: int, aspect: float, width: float) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels without axes in rows of `columns`, each `width` inches wide."""
    from matplotlib.figure import Figure

    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, (width * aspect + 0.35) * rows + 0.4), layout="constrained")
    panels: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for panel in panels:
        panel.set_axis_off()
    return figure, panels


def _smooth(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(ndimage.uniform_filter(plane, 5, mode="wrap"))


def _plane(
    panel: Axes, plane: NDArray[np.float64], name: str, *, unit: str, ratio: int, limits: tuple[float, float]
) -> None:
    """A plane of frequencies, colours by what it is: an angle goes round, a difference begins at 0."""
    from matplotlib.patches import Rectangle

    colormap = "twilight" if limits[0] == -limits[1] else "magma" if limits[0] == 0 else "viridis"
    extent = (-0.5, 0.5, 0.5, -0.5)
    low, high = limits
    drawn = panel.imshow(
        np.fft.fftshift(plane), cmap=colormap, vmin=low, vmax=high, extent=extent, aspect="auto"
    )
    edge = 0.5 / ratio
    square = Rectangle((-edge, -edge), 2 * edge, 2 * edge, fill=False, edgecolor="white", linestyle=":")
    panel.add_patch(square)
    panel.set_title(name, fontsize=10)
    panel.figure.colorbar(drawn, ax=panel, label=unit, shrink=0.8)
