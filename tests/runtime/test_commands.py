from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import rasterio
from onnx import TensorProto, helper, numpy_helper
from rasterio.transform import Affine

from sfiin.runtime import models, onnx_file
from sfiin.runtime.backends import machine, native
from sfiin.runtime.commands import doctor
from sfiin.runtime.contract import METADATA_KEY, Contract, SensorProfile, Tile, encode

SENSOR = SensorProfile("test", ("blue", "green", "red", "nir"), 4, 11, 2047.0)
CONTRACT = Contract(
    sensor=SENSOR,
    tile=Tile(32, 32, 8),
    lowering="matmul",
    precision="fp32",
    opset=17,
    network={"bands": 4},
    checkpoint="c" * 64,
    golden="d" * 64,
    versions={"onnx": onnx.__version__},
)

Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model that repeats each MS pixel 4 x 4 times and adds nothing of PAN."""

    def info(name: str, channels: int, side: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", channels, side, side])

    nodes = [
        helper.make_node(
            "Resize",
            ["ms", "", "scales"],
            ["up"],
            mode="nearest",
            nearest_mode="floor",
            coordinate_transformation_mode="asymmetric",
        ),
        helper.make_node("Mul", ["pan", "zero"], ["nothing"]),
        helper.make_node("Add", ["up", "nothing"], ["hrms"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([1, 1, 4, 4], np.float32), "scales"),
        numpy_helper.from_array(np.array(0, np.float32), "zero"),
    ]
    inputs = [info("ms", 4, 8), info("pan", 1, 32)]
    graph = helper.make_graph(nodes, "repeat", inputs, [info("hrms", 4, 32)], constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    contract = dataclasses.replace(CONTRACT, graph=onnx_file.digest(made.SerializeToString(), tmp_path))
    helper.set_model_props(made, {METADATA_KEY: contract.to_json()})
    path = tmp_path / "repeat.onnx"
    onnx.save(made, str(path))
    return path


def write_image(path: Path, image: np.ndarray[Any, Any], pixel: float, nodata: float | None = None) -> Path:
    count, height, width = image.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=count,
        height=height,
        width=width,
        dtype=image.dtype,
        crs="EPSG:32633",
        transform=Affine(pixel, 0, 500000, 0, -pixel, 5000000),
        nodata=nodata,
    ) as file:
        file.write(image)
    return path


@pytest.fixture
def scene(tmp_path: Path) -> tuple[Path, Path]:
    rng = np.random.default_rng(3)
    pan = write_image(tmp_path / "pan.tif", rng.integers(1, 2000, (1, 72, 88)).astype(np.uint16), 0.5)
    ms = write_image(tmp_path / "ms.tif", rng.integers(1, 2000, (4, 18, 22)).astype(np.uint16), 2.0)
    return pan, ms


def read(path: Path) -> np.ndarray[Any, Any]:
    with rasterio.open(path) as file:
        image: np.ndarray[Any, Any] = file.read()
    return image


# --- run ---


@pytest.mark.parametrize("extra", [(), ("--batch", 3, "--threads", 1), ("--overlap", 16)])
def test_run_writes_the_product(
    invoke: Invoke, model: Path, scene: tuple[Path, Path], tmp_path: Path, extra: tuple[object, ...]
) -> None:
    pan, ms = scene
    out = tmp_path / "out.tif"
    code, said, errors = invoke("run", "--pan", pan, "--ms", ms, "-o", out, "--model", model, *extra)
    assert (code, errors) == (0, "")
    assert "MP/s" in said
    assert "clipped values: none" in said
    assert np.array_equal(read(out), read(ms).repeat(4, axis=1).repeat(4, axis=2))


@pytest.mark.parametrize("provider", ["native", "cpu"])
def test_a_product_is_the_same_for_any_number_of_threads_and_says_what_ran(
    invoke: Invoke, small_model: Path, scene: tuple[Path, Path], tmp_path: Path, provider: str
) -> None:
    if provider == "native" and native.why_not():
        pytest.skip(native.why_not())
    products, out = set(), tmp_path / "out.tif"
    for threads, batch in ((1, 1), (2, 1), (4, 3)):
        arguments = ("--model", small_model, "--provider", provider, "--threads", threads, "--batch", batch)
        code, said, _ = invoke(
            "run", "--pan", scene[0], "--ms", scene[1], "-o", out, "--overwrite", "--json", *arguments
        )
        assert code == 0
        products.add(out.read_bytes())
        with rasterio.open(out) as file:
            backend = file.tags()["SFIIN_BACKEND"]
        assert backend == json.loads(said)["backend"]
        assert backend.startswith("native " if provider == "native" else "onnxruntime ")
    assert len(products) == 1


def test_run_overlap_changes_the_number_of_tiles(
    invoke: Invoke, model: Path, scene: tuple[Path, Path], tmp_path: Path
) -> None:
    arguments = ("run", "--pan", scene[0], "--ms", scene[1], "-o", tmp_path / "out.tif", "--model", model)
    assert " 12 tiles" in invoke(*arguments)[1]
    assert " 20 tiles" in invoke(*arguments, "--overwrite", "--overlap", 16)[1]
    code, _, error = invoke(*arguments, "--overwrite", "--overlap", 32)
    assert code == 4
    assert "tile.overlap" in error


def test_run_takes_one_file_per_band_and_can_be_quiet(
    invoke: Invoke, model: Path, scene: tuple[Path, Path], tmp_path: Path
) -> None:
    pan, ms = scene
    bands = [write_image(tmp_path / f"b{i}.tif", band[np.newaxis], 2.0) for i, band in enumerate(read(ms))]
    files = [part for path in bands for part in ("--ms", path)]
    out = tmp_path / "out.tif"
    assert invoke("run", "--pan", pan, *files, "-o", out, "--model", model, "--quiet") == (0, "", "")
    assert read(out).shape == (4, 72, 88)


def test_run_replaces_an_output_only_when_told(
    invoke: Invoke, model: Path, scene: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out.tif"
    out.write_text("precious")
    arguments = ("run", "--pan", scene[0], "--ms", scene[1], "-o", out, "--model", model)
    code, _, error = invoke(*arguments)
    assert code == 7
    assert "--overwrite" in error
    assert out.read_text() == "precious"
    assert invoke(*arguments, "--overwrite")[0] == 0
    assert read(out).shape == (4, 72, 88)


def test_run_chooses_a_shipped_model(
    invoke: Invoke, model: Path, scene: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "FOLDER", model.parent)
    pan, ms = scene
    code, said, _ = invoke("run", "--pan", pan, "--ms", ms, "-o", tmp_path / "out.tif")
    assert code == 0
    assert "with repeat.onnx" in said
    code, _, error = invoke("run", "--pan", pan, "--ms", pan, "-o", tmp_path / "other.tif")
    assert code == 4
    assert "1 MS bands at ratio 1" in error
    assert "repeat.onnx for 4 bands at ratio 4" in error


@pytest.mark.parametrize(
    ("option", "value", "code"),
    [
        ("--pan", "none.tif", 3),
        ("--ms", "none.tif", 3),
        ("--model", "none.onnx", 3),
        ("-o", "none/out.tif", 7),
    ],
)
def test_run_explains_a_path_that_is_not_there(
    invoke: Invoke,
    model: Path,
    scene: tuple[Path, Path],
    tmp_path: Path,
    *,
    option: str,
    value: str,
    code: int,
) -> None:
    options = {"--pan": scene[0], "--ms": scene[1], "--model": model, "-o": tmp_path / "out.tif"}
    options[option] = tmp_path / value
    found, _, error = invoke("run", *(part for pair in options.items() for part in pair))
    assert found == code
    assert error.startswith(f"sfiin: error: {tmp_path / value}")
    assert error.count("\n") == 1


def test_run_without_cuda_says_so(
    invoke: Invoke, model: Path, scene: tuple[Path, Path], tmp_path: Path
) -> None:
    arguments = ("--pan", scene[0], "--ms", scene[1], "-o", tmp_path / "out.tif", "--model", model)
    if machine.survey()["backends"]["cuda"]["usable"]:
        pytest.skip("this machine has CUDA")
    code, _, error = invoke("run", *arguments, "--provider", "cuda")
    assert code == 5
    assert "--provider cpu" in error


# --- inspect ---


def write_checkpoint(path: Path, metadata: dict[str, str], cut: int = 0) -> Path:
    tensors = {"a.weight": (8, 4, 3, 3), "a.bias": (8,), "scale": ()}
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, shape in tensors.items():
        begin, end = end, end + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end - cut))
    return path


METADATA = {
    "format": "sfiin-checkpoint/1",
    "network": '{"channels": 8}',
    "sensor": encode(SENSOR),
    "training": '{"steps": 100}',
}


def inspect(invoke: Invoke, path: Path) -> dict[str, Any]:
    """The document of `--json`, after a look whether a person gets something, too."""
    code, table, errors = invoke("inspect", path)
    assert (code, errors) == (0, "")
    assert path.name in table.replace("\n", "")
    code, text, errors = invoke("inspect", path, "--json")
    assert (code, errors) == (0, "")
    document: dict[str, Any] = json.loads(text)
    assert document["bytes"] == path.stat().st_size
    return document


def test_inspect_a_checkpoint_whatever_its_name(invoke: Invoke, tmp_path: Path) -> None:
    document = inspect(invoke, write_checkpoint(tmp_path / "c.onnx", METADATA))
    assert document["kind"] == "checkpoint"
    assert document["parameters"] == 8 * 4 * 3 * 3 + 8 + 1
    assert document["sensor"]["bands"] == list(SENSOR.bands)
    assert document["training"] == {"steps": 100}


def test_inspect_a_model_whatever_its_name(invoke: Invoke, model: Path) -> None:
    document = inspect(invoke, model.rename(model.with_suffix(".tif")))
    assert document["kind"] == "model"
    assert Contract.from_json(json.dumps(document["contract"])) == models.contract(model.with_suffix(".tif"))


@pytest.mark.parametrize("nodata", [None, 0.0, float("nan")])
def test_inspect_a_scene_whatever_its_name(invoke: Invoke, tmp_path: Path, nodata: float | None) -> None:
    path = write_image(tmp_path / "s.safetensors", np.ones((3, 5, 7), np.float32), 2.5, nodata)
    document = inspect(invoke, path)
    assert document["kind"] == "scene"
    assert document["size"] == [5, 7]
    assert document["bands"] == 3
    assert document["crs"] == "EPSG:32633"
    assert document["pixel_size"] == [2.5, 2.5]
    assert document["nodata"] == (nodata if nodata in {None, 0.0} else "nan")


def test_inspect_the_imagery(invoke: Invoke, imagery: Path) -> None:
    for path in sorted(imagery.glob("scenes/*/*.[tT][iI][fF]")):
        assert inspect(invoke, path)["kind"] == "scene"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", 3),
        (b"neither fish nor fowl", 3),
        (b"II*\0 not really a TIFF", 3),
        (b"\x02\0\0\0\0\0\0\0{}", 3),
        (b"\x02\0\0\0\0\0\0\0{]", 3),
        (b"\x0f\0\0\0\0\0\0\0" + b'{"a":{"b":"c"}}', 3),
        (b"\x16\0\0\0\0\0\0\0" + b'{"__metadata__":[1,2]}', 3),
        (b"\x0a\0\0\0\0\0\0\0" + b'{"a":null}', 3),
        (b"\x3a\x00", 4),
    ],
    ids=[
        "empty",
        "text",
        "TIFF",
        "no header",
        "no JSON",
        "no shape",
        "metadata",
        "null",
        "model without contract",
    ],
)
def test_inspect_explains_what_it_cannot_read(
    invoke: Invoke, tmp_path: Path, content: bytes, code: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    found, out, error = invoke("inspect", path)
    assert (found, out) == (code, "")
    assert error.startswith(f"sfiin: error: {path}: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": "other/1"}, "no sfiin checkpoint"),
        ({"network": "{"}, "'network'"),
        ({"sensor": ""}, "'sensor'"),
    ],
)
def test_inspect_refuses_another_checkpoint(
    invoke: Invoke, tmp_path: Path, change: dict[str, str], reason: str
) -> None:
    code, _, error = invoke("inspect", write_checkpoint(tmp_path / "c", METADATA | change))
    assert code == 3
    assert reason in error


def test_inspect_notices_a_checkpoint_cut_short(invoke: Invoke, tmp_path: Path) -> None:
    code, _, error = invoke("inspect", write_checkpoint(tmp_path / "c", METADATA, cut=4))
    assert code == 3
    assert "cut short" in error


def test_inspect_a_missing_file(invoke: Invoke, tmp_path: Path) -> None:
    assert invoke("inspect", tmp_path / "none")[0] == 3
    assert invoke("inspect", tmp_path)[0] == 3


# --- doctor ---


def test_doctor_prints_one_document(invoke: Invoke) -> None:
    code, out, errors = invoke("doctor", "--json")
    assert (code, errors) == (0, "")
    facts = json.loads(out)
    assert facts["packages"]["numpy"] == np.__version__
    assert facts["packages"]["gdal"] == rasterio.__gdal_version__
    assert set(facts["tensorrt"]) == {"tensorrt", "tensorrt_lean", "tensorrt_dispatch", "tensorrt_rtx"}
    assert facts["backends"]["cpu"] == {"usable": True, "why": None}
    assert facts["cuda"]["why"] or facts["cuda"]["devices"]
    assert facts["extras"]["cpu"] == {"missing": [], "install": None}
    assert facts["system"]["cpus"] >= 1


def test_doctor_says_what_each_lowering_needs(invoke: Invoke) -> None:
    needs = json.loads(invoke("doctor", "--json")[1])["fourier"]
    assert set(needs) == {"matmul", "dft", "plugin"}
    assert "sfiin::SpectralFusion, or the native kernels; onnxruntime cannot run it" in needs["plugin"]


def test_doctor_for_a_person(invoke: Invoke) -> None:
    code, out, errors = invoke("doctor")
    assert (code, errors) == (0, "")
    assert all(
        title in out for title in ("Machine", "Packages", "Backends", "Fourier", "Shipped models", "Extras")
    )


def test_doctor_reports_an_old_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "__version__", "1.20.0")
    facts = machine.survey()
    assert not facts["backends"]["cpu"]["usable"]
    assert "1.20.0 is too old" in facts["backends"]["cpu"]["why"]
    assert "not here" in facts["fourier"]["dft"]
    monkeypatch.setattr(onnxruntime, "__version__", "1.26.0")
    facts = machine.survey()
    assert facts["backends"]["cpu"]["usable"]
    assert "not here" in facts["fourier"]["dft"]


def test_doctor_reports_a_damaged_shipped_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"bad")
    monkeypatch.setattr(models, "FOLDER", tmp_path)
    doctor.doctor()
    assert "no ONNX model" in " ".join(capsys.readouterr().out.split())


def test_no_driver_is_explained() -> None:
    found = machine.cuda_driver("libno-such-driver.so.1")
    assert found["version"] is None
    assert "libno-such-driver" in found["why"]


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, None),
        ({"proc/device-tree/model": "NVIDIA Jetson Orin NX\0"}, "NVIDIA Jetson Orin NX"),
        ({"proc/device-tree/model": "Raspberry Pi 5\0"}, None),
        ({"etc/nv_tegra_release": "# R36 (release), REVISION: 4.3\nmore"}, "# R36 (release), REVISION: 4.3"),
    ],
)
def test_a_jetson_is_recognised(tmp_path: Path, files: dict[str, str], found: str | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    assert machine.jetson(tmp_path) == found


def test_an_extra_contains_those_inside_it() -> None:
    assert machine.version("no-such-package") is None
    facts = machine.extras()
    assert set(facts) >= {"cpu", "gpu", "jetson", "train", "export", "dev"}
    assert set(facts["gpu"]["missing"]) <= {"onnxruntime-gpu", "tensorrt", "onnx", "cuda-bindings", "pycuda"}


def test_every_command_takes_quiet(invoke: Invoke, shipped_checkpoint: Path) -> None:
    for arguments in (["inspect", shipped_checkpoint], ["doctor"]):
        assert invoke(*arguments, "--quiet") == (0, "", "")
    for name in (
        "run",
        "inspect",
        "doctor",
        "train",
        "ablate",
        "import",
        "evaluate",
        "export",
        "preflight",
        "build",
        "refit",
        "demo",
    ):
        code, output, _ = invoke(name, "--help")
        assert code == 0
        assert "--quiet" in output
