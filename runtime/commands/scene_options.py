"""How is a scene to be sharpened? The options that `run`, `watch` and Python share, in one table."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, get_type_hints

from sfiin.runtime.commands import options

if TYPE_CHECKING:
    from sfiin.runtime.station.done import Existing
    from sfiin.runtime.station.job import Settings


@dataclass(frozen=True)
class SceneOptions:
    """Each field is an option of its name; `sfiin.sharpen_files` takes the same, with the same defaults."""

    model: options.Model = None
    provider: options.Provider = "auto"
    threads: options.Threads = 0
    batch: options.Batch = 1
    overlap: options.Overlap = None
    force: options.Force = False
    format: options.Format = "gtiff"
    compress: options.Compress = "deflate"
    overviews: options.Overviews = False
    gain: options.Gain = 1.0
    memory: options.Memory = None
    coregister: options.Coregister = "no"
    max_shift: options.MaxShift = 1.5
    search: options.Search = 128
    require_alignment: options.RequireAlignment = False
    bands: options.Bands = None
    method: options.Method = None
    mtf: options.Mtf = None
    height: options.Height = None
    dem: options.Dem = None
    quicklook: options.Quicklook = False
    stac: options.Stac = False
    acquired: options.Acquired = None
    report: options.Report = False
    outliers: options.Outliers = "nodata"
    require_signature: options.RequireSignature = None
    overwrite: options.Overwrite = False

    def settings(self, otherwise: Existing = "refuse") -> Settings:
        """As the station takes them; `otherwise` is what is done about another product without `overwrite`.

        Raises typer.BadParameter for what is no size.
        """
        from sfiin.runtime.scenes.pipeline import Form
        from sfiin.runtime.station.job import Settings

        own = {field.name for field in fields(Settings)}
        alike = {name: value for name, value in vars(self).items() if name in own}
        return Settings(
            **alike
            | {
                "form": Form(self.format, self.compress, self.overviews),
                "memory": options.parse_size(self.memory) if self.memory else None,
                "existing": "overwrite" if self.overwrite else otherwise,
                "refuse_outliers": self.outliers == "refuse",
                "signed_by": self.require_signature,
            }
        )


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the fields of a dataclass as options, in the place of a parameter of that type."""
    # Not `get_type_hints`: on Python 3.10 it hides the annotation of a parameter that is None by default.
    given = inspect.signature(command, eval_str=True).parameters.values()
    groups: dict[str, Any] = {
        found.name: found.annotation for found in given if is_dataclass(found.annotation)
    }

    @functools.wraps(command)
    def called(**values: Any) -> None:
        for name, kind in groups.items():
            values[name] = kind(**{field.name: values.pop(field.name) for field in fields(kind)})
        command(**values)

    shown = [
        shown
        for found in given
        for shown in (_parameters(groups[found.name]) if found.name in groups else [found])
    ]
    called.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return called


def _parameters(kind: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    return [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in fields(kind)
    ]
