"""Names that GDAL opens, and those of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from sfiin.runtime.scenes import names


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a/b.tif", "a/b.tif"),
        ("http://host/a//b.tif?x=1", "/vsicurl/http://host/a//b.tif?x=1"),
        ("HTTPS://host/a.tif", "/vsicurl/HTTPS://host/a.tif"),
        ("s3://bucket/key.tif", "/vsis3/bucket/key.tif"),
        ("gs://bucket/key.tif", "/vsigs/bucket/key.tif"),
        ("az://bucket/key.tif", "/vsiaz/bucket/key.tif"),
        ("file:///tmp/a.tif", "/tmp/a.tif"),
        ("/vsizip//tmp/a.zip/b.tif", "/vsizip//tmp/a.zip/b.tif"),
        ('NETCDF:"/tmp/a.nc":pan', 'NETCDF:"/tmp/a.nc":pan'),
        ("zip+file://a.zip!b.tif", "zip+file://a.zip!b.tif"),
    ],
)
def test_what_gdal_is_told(given: str, expected: str) -> None:
    assert names.gdal(given) == expected


@pytest.mark.parametrize("name", ["a.tif", "/tmp/a b.tif", "C:/a.tif", "file:///tmp/a.tif", Path("x")])
def test_files(name: str | Path) -> None:
    assert names.is_local(name)


@pytest.mark.parametrize(
    "name",
    [
        "/vsicurl/http://a/b.tif",
        "s3://a/b.tif",
        "https://a/b",
        "GPKG:/tmp/a.gpkg:t",
        "zip+file://a.zip!b.tif",
    ],
)
def test_other_names(name: str) -> None:
    assert not names.is_local(name)
    assert names.named(name) == name
    assert names.beside(Path("/lists"), name) == name


def test_a_file_with_a_colon_in_its_name_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "scene:1.tif"
    path.touch()
    assert names.is_local(str(path))
    assert names.named(str(path)) == path


def test_lists_name_files_from_their_folder() -> None:
    assert names.beside(Path("/lists"), "a/b.tif") == Path("/lists/a/b.tif")
    assert names.beside(Path("/lists"), "/c.tif") == Path("/c.tif")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("https://host/a/b.tif?token=secret", "b.tif"),
        ("s3://bucket/a/b.tif", "b.tif"),
        ("/x/b.tif", "b.tif"),
        ("/vsizip//x/a.zip/b.tif", "b.tif"),
    ],
)
def test_titles_keep_secrets(name: str, expected: str) -> None:
    assert names.title(name) == expected
