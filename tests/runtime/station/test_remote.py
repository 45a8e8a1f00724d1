"""Products that go to an object store, against a server of the same protocol."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from sfiin.runtime.errors import OutputError, UnavailableError
from sfiin.runtime.station import remote
from sfiin.runtime.station.job import Job, Settings
from sfiin.runtime.station.runner import Station

SECRET = "wJalrXUtnFEMI"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    pytest.importorskip("obstore")
    moto = pytest.importorskip("moto.server")
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"{host}:{port}"
    running.stop()


@pytest.fixture()
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty bucket, as boto3 sees it; GDAL and obstore find it by the environment."""
    boto3 = pytest.importorskip("boto3")
    for name, value in {
        "AWS_S3_ENDPOINT": server,
        "AWS_HTTPS": "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE",
        "AWS_ACCESS_KEY_ID": "AKIATEST",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    own = boto3.resource("s3", endpoint_url=f"http://{server}").create_bucket(Bucket="scenes")
    yield own
    own.objects.delete()


def keys(bucket: Any) -> list[str]:
    return sorted(found.key for found in bucket.objects.all())


def put(url: str, content: bytes, overwrite: bool = False, *others: str) -> None:
    with remote.staged(url, overwrite) as place:
        place.write_bytes(content)
        for name in others:
            (place.parent / name).write_bytes(content)


def test_a_file_arrives_with_what_lies_beside_it(bucket: Any) -> None:
    put("s3://scenes/a/sharp.tif", b"1", False, "sharp.done.json", ".hidden")
    assert keys(bucket) == ["a/sharp.done.json", "a/sharp.tif"]
    assert bucket.Object("a/sharp.tif").get()["Body"].read() == b"1"


def test_what_is_there_stays_or_is_replaced(bucket: Any) -> None:
    for key in ("a/sharp.tif", "a/sharp.tif.aux.xml", "a/sharpened.tif", "sharp.tif.ovr"):
        bucket.put_object(Key=key, Body=b"old")
    with pytest.raises(OutputError, match=r"sharp\.tif exists already"):
        put("s3://scenes/a/sharp.tif", b"new")
    put("/vsis3/scenes/a/sharp.tif", b"new", True)
    assert keys(bucket) == ["a/sharp.tif", "a/sharpened.tif", "sharp.tif.ovr"]
    assert bucket.Object("a/sharp.tif").get()["Body"].read() == b"new"
    with pytest.raises(OutputError, match=r"sharp\.tif\.ovr exists already"):
        put("s3://scenes/sharp.tif", b"new")


def test_what_comes_meanwhile_is_not_replaced(bucket: Any) -> None:
    with (
        pytest.raises(OutputError, match="could not be written"),
        remote.staged("s3://scenes/s.tif", False) as place,
    ):
        place.write_bytes(b"mine")
        bucket.put_object(Key="s.tif", Body=b"theirs")
    assert bucket.Object("s.tif").get()["Body"].read() == b"theirs"


def test_a_run_that_fails_uploads_nothing(bucket: Any) -> None:
    with pytest.raises(ZeroDivisionError), remote.staged("s3://scenes/s.tif", False) as place:
        place.write_bytes(b"half")
        raise ZeroDivisionError
    assert keys(bucket) == []


def test_a_refusal_tells_no_secret(bucket: Any) -> None:
    with pytest.raises(OutputError, match=r"s3://nowhere/s\.tif: could not be written") as caught:
        put("s3://nowhere/s.tif", b"1")
    assert SECRET not in str(caught.value)
    assert "AKIATEST" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_scene_from_a_store_to_a_store(bucket: Any, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    ms = random.integers(200, 900, (4, 40, 40), np.uint16)
    pan = ms.mean(0).repeat(4, 0).repeat(4, 1)[None].astype(np.uint16)
    for name, image, pixel in (("pan", pan, 1), ("ms", ms, 4)):
        size = {"count": len(image), "height": image.shape[1], "width": image.shape[2], "dtype": "uint16"}
        transform = Affine(pixel, 0, 5e5, 0, -pixel, 4e6)
        with rasterio.open(
            tmp_path / f"{name}.tif", "w", driver="GTiff", crs="EPSG:32650", transform=transform, **size
        ) as file:
            file.write(image)
        bucket.upload_file(str(tmp_path / f"{name}.tif"), f"in/{name}.tif")
    place, upload = remote.split("s3://scenes/out/sharp.tif")
    job = Job("s3://scenes/in/pan.tif", ("s3://scenes/in/ms.tif",), place, upload=upload)
    settings = Settings(method="brovey", stac=True, acquired="2024-05-06T07:08:09Z")
    with Station(settings) as station:
        report = station.run(job)
        with pytest.raises(OutputError, match="exists already"):
            station.run(job)
    assert report.output == "s3://scenes/out/sharp.tif"
    assert keys(bucket)[2:] == ["out/sharp.done.json", "out/sharp.json", "out/sharp.tif"]
    bucket.download_file("out/sharp.tif", str(tmp_path / "got.tif"))
    with rasterio.open(tmp_path / "got.tif") as file:
        assert file.shape == (160, 160)


def test_other_urls_go_through_fsspec() -> None:
    fsspec = pytest.importorskip("fsspec")
    put("memory://folder/sharp.tif", b"1", False, "sharp.json")
    memory = fsspec.filesystem("memory")
    assert memory.cat("/folder/sharp.tif") == b"1"
    assert memory.exists("/folder/sharp.json")
    with pytest.raises(OutputError, match="exists already"):
        put("memory://folder/sharp.tif", b"2")
    put("memory://folder/sharp.tif", b"2", True)
    assert memory.cat("/folder/sharp.tif") == b"2"


@pytest.mark.parametrize("name", ["s3://bucket", "s3://bucket/", "s3://bucket/folder/", "/vsis3/bucket"])
def test_what_names_no_object(name: str) -> None:
    with pytest.raises(OutputError, match="names no object"):
        remote.url_of(name)


def test_local_names_stay_local() -> None:
    for name, path in (("a/b.tif", "a/b.tif"), ("file:///a/b.tif", "/a/b.tif"), ("c:d.tif", "c:d.tif")):
        assert remote.split(name) == (Path(path), None)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "find_spec", lambda name: None)
    for url in ("s3://bucket/a.tif", "sftp://host/a.tif"):
        with pytest.raises(UnavailableError, match="extra 'cloud'"), remote.staged(url, False):
            pass
