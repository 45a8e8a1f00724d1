"""How does a model get onto a Triton server? `sfiin triton`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from sfiin.runtime.commands.console import print_json, say
from sfiin.runtime.commands.options import Json, Quiet


def triton(
    *,
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A model (.onnx) or a plan.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The model repository.")],
    name: Annotated[
        str | None, typer.Option("--name", help="The model's name on the server; by default the file's.")
    ] = None,
    backend: Annotated[
        Literal["auto", "onnxruntime", "tensorrt", "python"],
        typer.Option("--backend", help="What runs it there; python: sfiin's own session."),
    ] = "auto",
    batch: Annotated[int, typer.Option("--batch", min=1, metavar="N", help="The most tiles at once.")] = 8,
    delay: Annotated[
        int, typer.Option("--delay", min=0, metavar="MICROSECONDS", help="How long a tile waits for others.")
    ] = 2000,
    instances: Annotated[
        int, typer.Option("--instances", min=1, metavar="N", help="How many run side by side.")
    ] = 1,
    threads: Annotated[
        int,
        typer.Option("--threads", min=0, metavar="N", help="CPU threads of each; 0: as many as it likes."),
    ] = 1,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Add a model to a repository of NVIDIA Triton.

    Start the server with --model-repository DIR. Then 'sfiin run --model grpc://HOST:8001/NAME' sends it the
    tiles.
    """
    from sfiin.runtime.backends.triton_repository import Serving, write

    called = name or model.stem
    chosen = None if backend == "auto" else backend
    folder = write(model, output, called, chosen, Serving(batch, delay, instances, threads))
    if as_json:
        print_json({"model": called, "folder": str(folder), "config": str(folder / "config.pbtxt")})
    else:
        say(f"{folder}: written; serve it with tritonserver --model-repository {output}", quiet)
