"""Which options do several commands share? Each is here once, with its help and the values it accepts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from sfiin.runtime.errors import OutputError

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
    typer.Option(
        "--model",
        metavar="FILE",
        help="An exported model (.onnx), a plan, a served one (grpc://HOST:PORT/NAME), or the manifest.json "
        "of a slot; else a shipped one that fits.",
    ),
]

# The names of sfiin.runtime.backends.select.Choice, repeated because that module loads NumPy, which `--help`
# must not.
Provider = Annotated[
    Literal["auto", "native", "cpu", "cuda", "tensorrt"],
    typer.Option(
        "--provider",
        help="What the model runs on; auto: the GPU where it can, else the native kernels or ONNX Runtime's "
        "CPU; plans in TensorRT.",
    ),
]
Threads = Annotated[
    int, typer.Option("--threads", min=0, metavar="N", help="CPU threads; 0: as many as the backend likes.")
]
Batch = Annotated[
    int, typer.Option("--batch", min=1, metavar="N", help="Tiles that go through the model at once.")
]
Overlap = Annotated[
    int | None,
    typer.Option(
        "--overlap", min=0, metavar="N", help="PAN pixels that tiles share; by default what the model says."
    ),
]


RequireSignature = Annotated[
    Path | None,
    typer.Option(
        "--require-signature",
        metavar="KEY",
        help="A public key (PEM) that the model's folder must be signed with; else $SFIIN_REQUIRE_SIGNATURE.",
    ),
]

# The same for one scene, which a list of scenes stands in for.
OnePan = Annotated[
    str | None,
    typer.Option("--pan", metavar="FILE", help="The panchromatic image: any name that GDAL opens, or a URL."),
]
OneMs = Annotated[
    list[str] | None,
    typer.Option("--ms", metavar="FILE", help="The multispectral image; once per file where it is several."),
]
OneOutput = Annotated[
    str | None,
    typer.Option(
        "--output", "-o", metavar="FILE", help="The file to write; or a URL, such as s3://bucket/sharp.tif."
    ),
]
SceneFolder = Annotated[
    Path | None,
    typer.Option(
        "--scene",
        metavar="FOLDER",
        help="A delivery as the provider made it, or any file of its metadata; in place of --pan and --ms.",
    ),
]
Jobs = Annotated[
    Path | None,
    typer.Option(
        "--jobs",
        metavar="CSV",
        help="Many scenes: a table of pan, ms (several divided by ';'), output and, "
        "if not one for all, model.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Allow an --overlap that leaves seams.")]
Format = Annotated[Literal["gtiff", "cog"], typer.Option("--format", help="A tiled GeoTIFF, or a COG.")]
Compress = Annotated[
    Literal["deflate", "zstd", "lzw", "none"],
    typer.Option("--compress", help="How the product is compressed."),
]
Overviews = Annotated[bool, typer.Option("--overviews", help="Add overviews to a GeoTIFF; a COG has them.")]
Gain = Annotated[
    float,
    typer.Option("--gain", min=0.0, help="How many DN make one of the files' numbers, such as reflectance."),
]
Memory = Annotated[
    str | None,
    typer.Option("--memory", metavar="SIZE", help="What the process may take at most, such as 2GiB."),
]
Coregister = Annotated[
    Literal["no", "shift", "local"],
    typer.Option(
        "--coregister",
        metavar="[shift|local]",
        help="Move MS onto PAN: by one shift, or by a smooth field of local ones; an error where it cannot "
        "be told.",
    ),
]
RequireAlignment = Annotated[
    bool,
    typer.Option(
        "--require-alignment",
        help="Refuse a scene for which it could not be told whether PAN and MS lie aligned.",
    ),
]
Search = Annotated[
    int,
    typer.Option(
        "--search",
        min=8,
        metavar="PIXELS",
        help="How far a shift of PAN against MS is looked for, in PAN pixels.",
    ),
]
Bands = Annotated[
    str | None,
    typer.Option(
        "--bands",
        metavar="LIST",
        help="Which of MS' bands the model's are, in its order, such as 3,2,1,4; or by name: red=3,green=2.",
    ),
]
Method = Annotated[
    Literal["brovey", "gs", "gsa", "sfim", "mtf-glp-hpm"] | None,
    typer.Option("--method", help="Sharpen by a classical method instead of a model: any bands, any ratio."),
]
Mtf = Annotated[
    str | None,
    typer.Option(
        "--mtf",
        metavar="SENSOR|GAINS",
        help="How the sensor blurs, for --method: its name, such as worldview3, or gains at Nyquist, such as "
        "0.34,0.32,0.3,0.22,pan=0.15; else its tags say, or 0.3 and 0.15 are taken.",
    ),
]
Height = Annotated[
    float | None,
    typer.Option(
        "--height",
        metavar="METRES",
        help="The ground's height above the ellipsoid, at which RPCs place MS on PAN; else PAN's mean "
        "height.",
    ),
]
Dem = Annotated[
    str | None,
    typer.Option(
        "--dem",
        metavar="FILE",
        help="Heights of the ground, over which RPCs place MS on PAN; any name.",
    ),
]
MaxShift = Annotated[
    float,
    typer.Option(
        "--max-shift", min=0.0, metavar="PIXELS", help="The shift of PAN against MS that is accepted."
    ),
]
Quicklook = Annotated[bool, typer.Option("--quicklook", help="Write a picture beside the product (.png).")]
Stac = Annotated[bool, typer.Option("--stac", help="Write a STAC item beside the product (.json).")]
Acquired = Annotated[
    str | None,
    typer.Option(
        "--acquired", metavar="TIME", help="When the scene was acquired, for --stac; else its tags say."
    ),
]
Report = Annotated[bool, typer.Option("--report", help="Write a quality report beside the product (.html).")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Predict memory and time, and write nothing.")]

Outliers = Annotated[
    Literal["nodata", "refuse"],
    typer.Option(
        "--outliers", help="What is done about values that no sensor delivers, such as an undeclared -9999."
    ),
]
SceneTimeout = Annotated[
    float | None,
    typer.Option(
        "--scene-timeout",
        min=1.0,
        metavar="SECONDS",
        help="How long one scene may take before it is stopped.",
    ),
]
WorkerMemory = Annotated[
    str | None,
    typer.Option(
        "--worker-memory",
        metavar="SIZE",
        help="What the process that works on scenes may allocate at most; a scene beyond it fails, and no "
        "more.",
    ),
]
Log = Annotated[
    Path | None,
    typer.Option(
        "--log", metavar="FILE", help="Add what happens to a file, a JSON document a line; '-': stderr."
    ),
]

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def parse_size(text: str) -> int:
    """'512M' or '2GiB' as bytes. Raises typer.BadParameter for anything else."""
    found = re.fullmatch(r"(\d+)([KMG]?)(?:i?B)?", text)
    if not found or not int(found[1]):
        raise typer.BadParameter(f"'{text}' is no size; write bytes, or 512M, or 2G")
    return int(found[1]) * _UNITS[found[2]]


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise OutputError when `path` exists and may not be replaced; commands call it before they start
    working."""
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: exists already; give another name, or --overwrite to replace it")
