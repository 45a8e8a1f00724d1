"""Which options do several commands share? Each is here once, with its help and the values it accepts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from runtime.errors import OutputError

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, and nothing else, on stdout.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write.")]

Pan = Annotated[Path, typer.Option("--pan", metavar="FILE", help="The panchromatic image.")]
Ms = Annotated[
    list[Path],
    typer.Option("--ms", metavar="FILE", help="The multispectral image; once per file, in the bands' order."),
]
Model = Annotated[
    Path | None,
    typer.Option("--model", metavar="FILE", help="An exported model (.onnx) or a plan; else a shipped one that fits."),
]

# The names of runtime.backends.Choice, repeated because that module loads NumPy, which `--help` must not.
Provider = Annotated[
    Literal["auto", "cpu", "cuda", "tensorrt"],
    typer.Option("--provider", help="What the model runs on; auto: the GPU where it can, and plans in TensorRT."),
]
Threads = Annotated[
    int, typer.Option("--threads", min=0, metavar="N", help="CPU threads; 0: as many as the backend likes.")
]
Batch = Annotated[int, typer.Option("--batch", min=1, metavar="N", help="Tiles that go through the model at once.")]
Overlap = Annotated[
    int | None,
    typer.Option("--overlap", min=0, metavar="N", help="PAN pixels that tiles share; by default what the model says."),
]


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise OutputError when `path` exists and may not be replaced; commands call it before they start working."""
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: exists already; give another name, or --overwrite to replace it")
