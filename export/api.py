"""How is a checkpoint exported, and a plan built, from Python? As `sfiin export` and `sfiin build` do it.

A device builds without torch, so what needs it is imported where it is used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sfiin.export import targets
from sfiin.export.lowering_choice import Fourier
from sfiin.export.plan_builder import BuildSettings, Built, default_flavour
from sfiin.export.plan_builder import build as build_plan
from sfiin.runtime.backends.plan import Compatibility, Flavour
from sfiin.runtime.contract import Precision, Tile
from sfiin.runtime.errors import ContractError, OutputError
from sfiin.runtime.extras import requires

if TYPE_CHECKING:
    from sfiin.export.exporter import ExportReport

Name = str | os.PathLike[str]


def export(
    checkpoint: Name,
    output: Name,
    *,
    fourier: Fourier = "matmul",
    target: str | None = None,
    tile: int | str = 128,
    overlap: int = 32,
    opset: int = 17,
    precision: Precision = "fp32",
    calibration: Name | None = None,
    check: Name | None = None,
    overwrite: bool = False,
) -> ExportReport:
    """Export a checkpoint to ONNX, check it against PyTorch, and write it with contract and golden tiles.

    `tile` in PAN pixels is a side, or "HxW"; `calibration` and `check` are folders of pairs, for FP16. The
    rest is as the options of `sfiin export`. Raises as `export_model`; OutputError for a file that exists;
    nothing is written
    then.
    """
    requires("export", "torch", "onnx", "safetensors", "scipy", what="sfiin.export")
    from sfiin.export.exporter import export_model
    from sfiin.export.lower_precision import PrecisionOptions

    out = Path(output)
    if out.exists() and not overwrite:
        raise OutputError(f"{out}: exists already; give another name, or overwrite=True to replace it")
    return export_model(
        Path(checkpoint),
        out,
        fourier,
        Tile(*sides(str(tile)), overlap),
        opset=opset,
        target=targets.target(target) if target else None,
        precision=precision,
        precision_options=PrecisionOptions(_path(calibration), _path(check)),
    )


def build(
    model: Name,
    output: Name,
    *,
    flavour: Flavour | None = None,
    compute_capability: tuple[str, ...] = (),
    batch: tuple[int, int, int] = (1, 1, 16),
    workspace: int | None = None,
    level: int | None = None,
    version_compatible: bool = False,
    hardware_compatibility: Compatibility = "none",
    strip: bool = False,
    refit: bool = False,
    timing_cache: bool = True,
    plugin: Name | None = None,
    log: Name | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> Built:
    """Build a TensorRT plan from an exported model; contract and provenance go beside it.

    Keyword arguments are the options of `sfiin build`; `workspace` is in bytes. Raises UnavailableError
    without TensorRT or a device for it, MismatchError for a model that it would not read, CheckFailedError
    for a plan that is too far from the golden tiles, OutputError for a file that exists; nothing is written
    then.
    """
    out = Path(output)
    if out.exists() and not overwrite:
        raise OutputError(f"{out}: exists already; give another name, or overwrite=True to replace it")
    settings = BuildSettings(
        flavour=flavour or default_flavour(),
        compute_capabilities=compute_capability,
        batch=batch,
        workspace=workspace,
        level=level,
        version_compatible=version_compatible,
        hardware_compatibility=hardware_compatibility,
        strip=strip,
        refit=refit,
        timing_cache=timing_cache,
        plugin=_path(plugin),
        log=_path(log),
    )
    return build_plan(Path(model), out, settings, progress)


def _path(name: Name | None) -> Path | None:
    return None if name is None else Path(name)


def sides(tile: str) -> tuple[int, int]:
    """A tile's height and width in PAN pixels, from "128" or "96x160". Raises ContractError for anything
    else."""
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", tile)
    if not found:
        raise ContractError(f"'{tile}' is no tile; write a side (128), or height x width (96x160)")
    return int(found[1]), int(found[2] or found[1])
