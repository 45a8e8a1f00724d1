"""From a checkpoint to a checked ONNX graph: Fourier lowerings, graph building, parity.

The package can be called as well: `sfiin.export(checkpoint, output)` is `sfiin.export.api.export`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> Any:
        from sfiin.export.api import export

        return export(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
