"""A scene's whole way: what lies beside the product, memory, coregistration, prediction, and models that
stay open."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine
from scipy import ndimage

from sfiin.runtime.backends import select
from sfiin.runtime.backends.session import OnnxSession
from sfiin.runtime.errors import (
    AlignmentError,
    InputError,
    MismatchError,
    OutputError,
    SceneError,
    SfiinError,
    StoppedError,
)
from sfiin.runtime.files import sha256
from sfiin.runtime.scenes.identity import ChangedError
from sfiin.runtime.scenes.pipeline import Form
from sfiin.runtime.scenes.scene import open_scene
from sfiin.runtime.scenes.tiles import plan
from sfiin.runtime.station import budget
from sfiin.runtime.station.job import Job, Settings
from sfiin.runtime.station.run_report import RunReport
from sfiin.runtime.station.runner import Station

Invoke = Callable[..., tuple[int, str, str]]


def write(path: Path, image: np.ndarray, pixel: float, **profile: Any) -> None:
    options = {
        "driver": "GTiff",
        "count": len(image),
        "height": image.shape[1],
        "width": image.shape[2],
        "dtype": "uint16",
        "crs": "EPSG:32650",
        "transform": Affine(pixel, 0, 5e5, 0, -pixel, 4e6),
    }
    with rasterio.open(path, "w", **options | profile) as file:
        file.write(np.rint(image).astype(np.uint16))


def blocks(image: np.ndarray) -> np.ndarray:
    height, width = image.shape
    return image.reshape(height // 4, 4, width // 4, 4).mean((1, 3))


def scene(folder: Path, side: int = 128, shift: tuple[float, float] = (0, 0)) -> Job:
    """Ground with a natural spectrum, periodic; PAN's lies further down and to the right by a shift."""
    random = np.random.default_rng(7)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    spectrum = np.fft.fft2(random.normal(size=(side, side))) / np.maximum(frequency, 1 / side) ** 1.2
    ground = np.fft.ifft2(spectrum).real
    ground = 500 + 80 * ground / ground.std()
    pan = np.fft.ifft2(ndimage.fourier_shift(np.fft.fft2(ground), shift)).real
    write(folder / "pan.tif", pan[None], 0.5)
    write(folder / "ms.tif", np.stack([blocks(ground)] * 4), 2.0)
    return Job(folder / "pan.tif", (folder / "ms.tif",), folder / "sharp.tif")


def with_model(job: Job, model: Path) -> Job:
    return Job(job.pan, job.ms, job.output, model)


def test_everything_beside_the_product(
    small_model: Path, tmp_path: Path, html_page: Callable[[str], Any]
) -> None:
    job = with_model(scene(tmp_path), small_model)
    settings = Settings(
        threads=1,
        form=Form("cog", "zstd"),
        quicklook=True,
        stac=True,
        acquired="2024-05-01T10:00:00Z",
        report=True,
    )
    with Station(settings) as station:
        report = station.run(job)
        assert station.run(job).standing == "equal"
    names = {"sharp.tif", "sharp.png", "sharp.json", "sharp.html", "sharp.done.json"}
    assert {path.name for path in tmp_path.iterdir()} == names | {"pan.tif", "ms.tif"}
    assert RunReport.of(json.loads(json.dumps(report.document(), allow_nan=False))) == report
    assert report.pixels == 128 * 128
    assert (report.memory.peak or 0) > 0
    assert [found.axis for found in report.seams or ()] == ["rows", "columns"]
    item = json.loads((tmp_path / "sharp.json").read_text())
    assert item["properties"]["datetime"] == "2024-05-01T10:00:00Z"
    page = html_page((tmp_path / "sharp.html").read_text(encoding="utf-8"))
    assert "img" in page.tags
    with rasterio.open(tmp_path / "sharp.tif") as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.tags()["SFIIN_GOLDEN"]


def test_what_was_killed_at_any_moment_is_completed_without_the_work(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted before each step after the product's appearance; then all is there, and the product is as
    it was."""
    settings = Settings(threads=1, quicklook=True, stac=True, acquired="2024-05-01T10:00:00Z", report=True)
    job = with_model(scene(tmp_path), small_model)
    steps = (
        "companions.product.quicklook",
        "companions.stac.write",
        "companions.seams.measure",
        "runner.done.finish",
    )
    for i, step in enumerate(steps):
        one = dataclasses.replace(job, output=tmp_path / f"s{i}.tif")
        with monkeypatch.context() as patch:
            patch.setattr(f"sfiin.runtime.station.{step}", killed)
            with Station(settings) as station, pytest.raises(KeyboardInterrupt):
                station.run(one)
        assert one.output.is_file()
        assert not (tmp_path / f"s{i}.done.json").exists()
        before = one.output.stat()
        with monkeypatch.context() as patch:
            patch.setattr("sfiin.runtime.station.runner.sharpen", killed)
            with Station(settings) as station:
                report = station.run(one)
        assert report.standing == "completed"
        assert one.output.stat().st_mtime_ns == before.st_mtime_ns
        assert {path.suffix for path in tmp_path.glob(f"s{i}.*")} == {".tif", ".png", ".json", ".html"}
        assert (tmp_path / f"s{i}.done.json").is_file()
        assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("how", ["shorter", "gone"])
def test_what_looks_damaged_because_it_is_being_changed_is_told_as_changed(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A station tries that again; a damaged file it does not."""
    job = with_model(scene(tmp_path), small_model)

    def damaged(*_: Any, **__: Any) -> Any:
        if how == "shorter":
            Path(job.pan).write_bytes(Path(job.pan).read_bytes()[:1000])
        else:
            Path(job.pan).unlink()
        raise SceneError("damaged or cut short")

    monkeypatch.setattr("sfiin.runtime.station.runner.sharpen", damaged)
    with (
        Station(Settings(threads=1)) as station,
        pytest.raises(ChangedError, match="changed while it was read"),
    ):
        station.run(job)


def test_a_run_keeps_to_the_model_that_it_began_with(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file is replaced while the run is under way: the product and what it says are of the first one."""
    model = Path(shutil.copy(small_model, tmp_path / "net.onnx"))
    job = with_model(scene(tmp_path), model)
    digest = sha256(model)
    real = open_scene

    def replaced(*given: Any, **more: Any) -> Any:
        model.write_bytes(b"another")
        return real(*given, **more)

    monkeypatch.setattr("sfiin.runtime.station.runner.open_scene", replaced)
    with Station(Settings(threads=1)) as station:
        report = station.run(job)
        assert report.model_sha256 == digest
        monkeypatch.undo()
        with pytest.raises(SfiinError):
            station.run(dataclasses.replace(job, output=tmp_path / "second.tif"))


def killed(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


def test_a_companion_wanted_later_is_made_later(small_model: Path, tmp_path: Path) -> None:
    job = with_model(scene(tmp_path), small_model)
    with Station(Settings(threads=1)) as station:
        assert station.run(job).standing == "new"
    with Station(Settings(threads=1, quicklook=True)) as station:
        assert station.run(job).standing == "completed"
        assert station.run(job).standing == "equal"
    document = json.loads((tmp_path / "sharp.done.json").read_text())
    assert set(document["companions"]) == {"quicklook"}
    for entry in (document["product"], *document["companions"].values()):
        assert sha256(tmp_path / entry["name"]) == entry["sha256"]
    assert [found["sha256"] for found in document["inputs"]] == [
        sha256(Path(job.pan)),
        sha256(Path(job.ms[0])),
    ]


@pytest.mark.parametrize("change", ["pan", "ms", "option", "model", "product"])
def test_what_differs_is_refused_replaced_or_put_beside(
    small_model: Path, tmp_path: Path, change: str
) -> None:
    model = tmp_path / "own.onnx"
    shutil.copy(small_model, model)
    job, settings = with_model(scene(tmp_path), model), Settings(threads=1)
    with Station(settings) as station:
        station.run(job)
        content = job.output.read_bytes()
        if change in ("pan", "ms"):
            name, pixel = (job.pan, 0.5) if change == "pan" else (job.ms[0], 2.0)
            path = Path(name)
            with rasterio.open(path) as file:
                image = file.read()
            stamp = path.stat()
            write(path, image + 1, pixel)
            os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        elif change == "option":
            settings = Settings(threads=1, form=Form("gtiff", "lzw"))
        elif change == "model":
            model.write_bytes(model.read_bytes() + b"\x72\x00")  # an empty entry of metadata
        else:
            job.output.write_bytes(content + b"\0")
            content = job.output.read_bytes()
    with Station(settings) as station, pytest.raises(OutputError, match=r"sharp\.tif: exists already"):
        station.run(job)
    assert job.output.read_bytes() == content
    with Station(dataclasses.replace(settings, existing="version")) as station:
        assert station.run(job).output == str(tmp_path / "sharp.2.tif")
        assert station.run(job).standing == "equal"
    assert job.output.read_bytes() == content
    assert (tmp_path / "sharp.2.done.json").is_file()
    with Station(dataclasses.replace(settings, existing="overwrite")) as station:
        assert station.run(job).standing == "new"
    assert job.output.read_bytes() == (tmp_path / "sharp.2.tif").read_bytes()


def test_a_model_replaced_meanwhile_is_opened_anew(small_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "own.onnx"
    shutil.copy(small_model, model)
    job = with_model(scene(tmp_path), model)
    with Station(Settings(threads=1, existing="version")) as station:
        first = station.run(job)
        model.write_bytes(model.read_bytes() + b"\x72\x00")
        second = station.run(job)
    assert first.model_sha256 != second.model_sha256 == sha256(model)


def test_an_input_that_changes_during_the_run_is_refused(small_model: Path, tmp_path: Path) -> None:
    job = with_model(scene(tmp_path), small_model)
    pan = Path(job.pan)
    stamp = pan.stat()

    def change(*_: int) -> None:
        content = bytearray(pan.read_bytes())
        content[-1] ^= 1
        pan.write_bytes(content)
        os.utime(pan, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))

    with (
        Station(Settings(threads=1)) as station,
        pytest.raises(SceneError, match="changed while it was read"),
    ):
        station.run(job, change)
    assert not job.output.exists()


def test_told_to_stop_it_keeps_its_rows(small_model: Path, tmp_path: Path) -> None:
    job = with_model(scene(tmp_path), small_model)
    with Station(Settings(threads=1)) as station:
        with pytest.raises(StoppedError):
            station.run(job, stop=lambda: True)
        assert not job.output.exists()
        report = station.run(job)
    assert report.resumed == 1
    fresh = dataclasses.replace(job, output=tmp_path / "fresh.tif")
    with Station(Settings(threads=1)) as station:
        station.run(fresh)
    assert job.output.read_bytes() == fresh.output.read_bytes()


def test_companions_are_not_overwritten_either(small_model: Path, tmp_path: Path) -> None:
    job = with_model(scene(tmp_path), small_model)
    (tmp_path / "sharp.png").write_text("precious")
    with (
        Station(Settings(threads=1, quicklook=True)) as station,
        pytest.raises(OutputError, match=r"sharp\.png: exists"),
    ):
        station.run(job)
    assert not job.output.exists()


def test_a_product_without_a_time_is_refused_before_the_work(small_model: Path, tmp_path: Path) -> None:
    job = with_model(scene(tmp_path), small_model)
    with Station(Settings(threads=1, stac=True)) as station, pytest.raises(InputError, match="--acquired"):
        station.run(job)
    assert {path.name for path in tmp_path.iterdir()} == {"pan.tif", "ms.tif"}


def test_a_model_is_opened_once(small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    real = select.open_session

    def open_session(*given: Any, **more: Any) -> Any:
        opened.append(given)
        return real(*given, **more)

    monkeypatch.setattr("sfiin.runtime.station.shelf.open_session", open_session)
    job = with_model(scene(tmp_path), small_model)
    with Station(Settings(threads=1)) as station:
        for name in ("a.tif", "b.tif"):
            station.run(Job(job.pan, job.ms, tmp_path / name, job.model))
    assert len(opened) == 1
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


def test_what_is_shifted_is_refused_accepted_or_corrected(small_model: Path, tmp_path: Path) -> None:
    job = with_model(scene(tmp_path, 512, (3.0, -2.0)), small_model)
    with Station(Settings(threads=1)) as station, pytest.raises(AlignmentError, match=r"PAN lies \+[23]"):
        station.run(job)
    with Station(Settings(threads=1, max_shift=5.0)) as station:
        assert not station.run(job).shift.corrected
    with Station(Settings(threads=1, coregister="shift", existing="overwrite")) as station:
        report = station.run(job)
    assert report.shift.corrected
    assert (report.shift.row, report.shift.col) == pytest.approx((3, -2), abs=0.4)


def test_coregistration_moves_ms_onto_pan(tmp_path: Path, small_model: Path) -> None:
    """MS is what PAN shows, so after it both agree, but for interpolation."""
    job = scene(tmp_path, 512, (4.0, -8.0))
    with OnnxSession(small_model) as session, open_scene(job.pan, job.ms, session.contract.sensor) as found:
        window = 64, 64, 256, 256
        ms, pan, _ = found.coregistered(4.0, -8.0).read(*window)
        before, _, _ = found.read(*window)
    sharp = blocks(pan[0])
    assert np.abs(ms[0] - sharp).mean() < 1
    assert np.abs(before[0] - sharp).mean() > 10


def test_an_unsafe_overlap_is_refused_unless_forced(small_model: Path, tmp_path: Path) -> None:
    job = with_model(scene(tmp_path), small_model)
    with OnnxSession(small_model) as session:
        safe = session.contract.safe_overlap
    assert safe > 0
    with (
        Station(Settings(threads=1, overlap=0)) as station,
        pytest.raises(MismatchError, match=f"must share {safe}"),
    ):
        station.run(job)
    with Station(Settings(threads=1, overlap=0, force=True)) as station:
        assert station.run(job).tiles == 16
    with Station(Settings(threads=1, overlap=safe, existing="overwrite")) as station:
        assert station.run(job).tiles > 16


# --- memory and prediction ---


def test_a_prediction_writes_nothing_and_counts_right(
    invoke: Invoke, small_model: Path, tmp_path: Path
) -> None:
    job = scene(tmp_path)
    files = ("--pan", job.pan, "--ms", job.ms[0], "-o", job.output, "--model", small_model, "--threads", 1)
    code, said, _ = invoke("run", *files, "--dry-run", "--json")
    assert code == 0
    predicted = json.loads(said)
    code, said, _ = invoke("run", *files, "--dry-run")
    assert (code, "not written" in said) == (0, True)
    assert {path.name for path in tmp_path.iterdir()} == {"pan.tif", "ms.tif"}
    code, said, _ = invoke("run", *files, "--json")
    done = json.loads(said)
    assert code == 0
    for name in ("tiles", "pixels", "size"):
        assert predicted[name] == done[name]
    assert predicted["seconds"] > 0


def sparse(folder: Path, height: int, width: int) -> Job:
    """A scene without pixels, of any size, in a few kilobytes."""
    tiled = {"tiled": True, "blockxsize": 256, "blockysize": 256, "SPARSE_OK": True, "BIGTIFF": "YES"}
    for name, count, pixel, ratio in (("pan", 1, 0.5, 1), ("ms", 4, 2.0, 4)):
        profile = {
            "driver": "GTiff",
            "count": count,
            "height": height // ratio,
            "width": width // ratio,
            "dtype": "uint16",
            "transform": Affine(pixel, 0, 5e5, 0, -pixel, 4e6),
        }
        with rasterio.open(folder / f"{name}.tif", "w", **profile | tiled):
            pass
    return Job(folder / "pan.tif", (folder / "ms.tif",), folder / "sharp.tif")


def test_a_scene_of_1600_megapixels_is_predicted(small_model: Path, tmp_path: Path) -> None:
    job = with_model(sparse(tmp_path, 40000, 40000), small_model)
    with Station(Settings(threads=1)) as station:
        whole = station.predict(job)
        wide = whole.memory
    assert whole.pixels == 1_600_000_000
    assert whole.tiles == len(range(0, 40000 - 32, 24)) ** 2 or whole.tiles > 2_500_000
    assert whole.product_bytes_at_most == 8 * 1_600_000_000
    (tmp_path / "flat").mkdir()
    job = with_model(sparse(tmp_path / "flat", 400, 40000), small_model)
    with Station(Settings(threads=1)) as station:
        flat = station.predict(job).memory
    assert (flat.buffers, flat.cache) == (wide.buffers, wide.cache)  # the height does not matter


def test_memory_is_divided_and_a_limit_kept(tmp_path: Path, small_model: Path) -> None:
    job = sparse(tmp_path, 400, 16000)
    with OnnxSession(small_model) as session, open_scene(job.pan, job.ms, session.contract.sensor) as found:
        tiles = plan(found.height, found.width, session.contract.tile, 4)
        free = budget.budget(found, tiles, 1, 100 * budget.MIB)
        assert free.cache == 2 * (256 * 16000 * 2 + 4 * 256 * 4000 * 2) + 256 * 16000 * 4 * 2
        low = budget.budget(found, tiles, 1, 100 * budget.MIB, free.total - 10 * budget.MIB)
        assert low.total == free.total - 10 * budget.MIB
        assert budget.budget(found, tiles, 1, 0, 10 * free.total).cache == free.cache
        assert budget.budget(found, tiles, 64, 0).buffers > free.buffers
        with pytest.raises(
            InputError, match=r"--memory 50 MiB: this scene takes \d+ MiB at least .*rows of 16000 pixels"
        ):
            budget.budget(found, tiles, 1, 100 * budget.MIB, 50 * budget.MIB)


def test_resident_memory_is_this_process() -> None:
    before = budget.resident()
    block = np.ones(64 * budget.MIB, np.uint8)
    grown = budget.resident() - before
    assert grown == pytest.approx(block.nbytes, rel=0.2)
    assert budget.peak() >= budget.resident() * 0.9
    assert budget.in_mib(budget.MIB + 1) == "2 MiB"


def test_jobs_by_the_command(invoke: Invoke, small_model: Path, tmp_path: Path) -> None:
    scene(tmp_path)
    (tmp_path / "bad.tif").write_text("no image")
    (tmp_path / "jobs.csv").write_text("pan,ms,output\npan.tif,ms.tif,a.tif\nbad.tif,ms.tif,b.tif\n")
    arguments = ("run", "--jobs", tmp_path / "jobs.csv", "--model", small_model, "--threads", 1)
    code, said, errors = invoke(*arguments)
    assert code == 9
    assert "1 of 2 scenes failed" in errors
    assert "b.tif: failed:" in said
    code, said, _ = invoke(*arguments, "--json")
    assert code == 9
    assert [json.loads(line)["event"] for line in said.splitlines()] == ["skipped", "failed", "end"]
    assert (tmp_path / "a.tif").exists()
    assert not (tmp_path / "b.tif").exists()
