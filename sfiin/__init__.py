"""sfiin: a trained pan-sharpening network from PyTorch to ONNX, TensorRT and GeoTIFF.

    import sfiin

    hrms = sfiin.sharpen(pan, ms)                                   # arrays
    sfiin.sharpen_files("pan.tif", "ms.tif", "sharp.tif")           # GeoTIFFs

    with sfiin.open_model("sfiin-vhr4") as model:                   # tiles
        hrms = model.run(ms, pan)

    sfiin.export("net.safetensors", "net.onnx")                     # with the extra 'export'
    sfiin.build("net.onnx", "net.plan")
    sfiin.evaluate("net.onnx", "pairs/")
    network = sfiin.load("sfiin-vhr4").network                      # torch

Nothing is loaded before it is asked for: `import sfiin` brings neither NumPy nor torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0.dev0"

if TYPE_CHECKING:
    from sfiin.evaluation.api import evaluate as evaluate
    from sfiin.export.api import build as build
    from sfiin.export.api import export as export
    from sfiin.model.checkpoint import Checkpoint as Checkpoint
    from sfiin.model.loading import load as load
    from sfiin.runtime.api import Model as Model
    from sfiin.runtime.api import Report as Report
    from sfiin.runtime.api import open_model as open_model
    from sfiin.runtime.api import sharpen as sharpen
    from sfiin.runtime.api import sharpen_files as sharpen_files
    from sfiin.runtime.contract import Contract as Contract
    from sfiin.runtime.contract import SensorProfile as SensorProfile
    from sfiin.runtime.contract import Tile as Tile
    from sfiin.runtime.errors import AlignmentError as AlignmentError
    from sfiin.runtime.errors import CheckFailedError as CheckFailedError
    from sfiin.runtime.errors import CheckpointError as CheckpointError
    from sfiin.runtime.errors import ContractError as ContractError
    from sfiin.runtime.errors import InputError as InputError
    from sfiin.runtime.errors import MismatchError as MismatchError
    from sfiin.runtime.errors import OutputError as OutputError
    from sfiin.runtime.errors import PartialError as PartialError
    from sfiin.runtime.errors import SceneError as SceneError
    from sfiin.runtime.errors import SfiinError as SfiinError
    from sfiin.runtime.errors import StoppedError as StoppedError
    from sfiin.runtime.errors import TotalError as TotalError
    from sfiin.runtime.errors import UnavailableError as UnavailableError
    from sfiin.runtime.errors import UndecidedError as UndecidedError
    from sfiin.runtime.errors import UntrustedError as UntrustedError

_ERRORS = (
    "AlignmentError",
    "CheckFailedError",
    "CheckpointError",
    "ContractError",
    "InputError",
    "MismatchError",
    "OutputError",
    "PartialError",
    "SceneError",
    "SfiinError",
    "StoppedError",
    "TotalError",
    "UnavailableError",
    "UndecidedError",
    "UntrustedError",
)
_HOMES = {
    **dict.fromkeys(_ERRORS, "sfiin.runtime.errors"),
    **dict.fromkeys(("Contract", "SensorProfile", "Tile"), "sfiin.runtime.contract"),
    **dict.fromkeys(("Model", "Report", "open_model", "sharpen", "sharpen_files"), "sfiin.runtime.api"),
    "Checkpoint": "sfiin.model.checkpoint",
    "load": "sfiin.model.loading",
    "evaluate": "sfiin.evaluation.api",
    "build": "sfiin.export.api",
}
"""Where each name of the front door lives. `export` is not here: the package itself is what is called."""

__all__ = sorted([*_HOMES, "__version__", "export"])  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name == "export":
        return import_module("sfiin.export")
    if name not in _HOMES:
        raise AttributeError(f"module 'sfiin' has no attribute '{name}'")
    return _loaded(name)


def __dir__() -> list[str]:
    return list(__all__)


def _loaded(name: str) -> Any:
    try:
        found = getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "sfiin":
            raise
        from sfiin.runtime.errors import UnavailableError
        from sfiin.runtime.extras import missing

        extra = {"build": "gpu", "evaluate": "report"}.get(name, "train")
        raise UnavailableError(missing(str(error.name), extra, f"sfiin.{name}")) from None
    globals()[name] = found
    return found
