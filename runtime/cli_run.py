"""How is a scene sharpened from the command line? `sfiin run`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from runtime import options
from runtime.console import say, tally

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from runtime.contract import Contract
    from runtime.pipeline import Report
    from runtime.session import Session


def run(
    *,
    pan: options.Pan,
    ms: options.Ms,
    output: options.Output,
    model: options.Model = None,
    provider: options.Provider = "auto",
    threads: options.Threads = 0,
    batch: options.Batch = 1,
    overlap: options.Overlap = None,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Sharpen a scene: PAN and MS become a GeoTIFF of the MS bands with PAN's pixels."""
    options.refuse_existing(output, overwrite)
    from runtime import models
    from runtime.backends import open_session
    from runtime.pipeline import sharpen
    from runtime.scene import open_scene

    model = model or models.choose(*_bands_and_ratio(pan, ms))
    session = open_session(model, provider, threads)
    with closing(session), open_scene(pan, ms, session.contract.sensor) as scene:
        chosen = session if overlap is None else _with_overlap(session, overlap)
        with tally("sharpening", quiet) as progress:
            report = sharpen(chosen, scene, output, batch=batch, progress=progress)
    say(_summary(output, model, report), quiet)


@dataclasses.dataclass(frozen=True)
class _Overlapping:
    """A session with another overlap in its contract; the overlap is the one part of the tile a model does not fix."""

    session: Session
    contract: Contract

    def run(self, ms: NDArray[np.float32], pan: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.session.run(ms, pan)

    def close(self) -> None:
        self.session.close()


def _with_overlap(session: Session, overlap: int) -> Session:
    contract = session.contract
    tile = dataclasses.replace(contract.tile, overlap=overlap)
    return _Overlapping(session, dataclasses.replace(contract, tile=tile))


def _bands_and_ratio(pan: Path, ms: Sequence[Path]) -> tuple[int, int]:
    """The scene's number of MS bands, and MS pixel size over PAN pixel size, by size where there is no georeference."""
    from runtime.scene import describe

    sharp, files = describe(pan), [describe(path) for path in ms]
    if sharp["pixel_size"] and files[0]["pixel_size"]:
        ratio = files[0]["pixel_size"][0] / sharp["pixel_size"][0]
    else:
        ratio = sharp["size"][0] / files[0]["size"][0]
    return sum(file["bands"] for file in files), round(ratio)


def _summary(output: Path, model: Path, report: Report) -> str:
    pixels, seconds = report.pixels / 1e6, report.seconds
    clipped = ", ".join(f"{name} {count}" for name, count in report.clipped.items() if count)
    return "\n".join(
        (
            f"{output}: {pixels:.2f} MP with {model.name} in {seconds:.1f} s ({pixels / max(seconds, 1e-9):.2f} MP/s)",
            f"  {report.tiles} tiles, {report.nodata} pixels without data, clipped values: {clipped or 'none'}",
        )
    )
