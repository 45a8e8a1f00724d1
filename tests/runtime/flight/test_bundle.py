"""Bundles: the same inputs give the same bytes, and a byte that is not as sealed is found."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from sfiin.runtime import golden
from sfiin.runtime.errors import InputError, MismatchError, OutputError
from sfiin.runtime.flight import bundle


def unpacked(source: Path, folder: Path) -> Path:
    folder.mkdir()
    with zipfile.ZipFile(source) as archive:
        archive.extractall(folder)
    return folder


def test_the_same_inputs_give_the_same_bytes(small_model: Path, sealed: Path, tmp_path: Path) -> None:
    again = tmp_path / "elsewhere" / sealed.name
    again.parent.mkdir()
    copies = [shutil.copy2(path, tmp_path) for path in (small_model, golden.beside(small_model))]
    Path(copies[0]).touch()
    bundle.make(again, [Path(copies[0])], ["gsa", "bicubic"])
    assert again.read_bytes() == sealed.read_bytes()


def test_the_manifest_tells_what_is_there(sealed: Path, small_model: Path) -> None:
    manifest = bundle.read(sealed)
    assert manifest.chain == (f"file:{small_model.name}", "method:gsa", "method:bicubic")
    assert manifest.artefacts == (small_model.name,)
    assert set(manifest.files) == {small_model.name, golden.beside(small_model).name}
    assert manifest.files[small_model.name].sha256 == hashlib.sha256(small_model.read_bytes()).hexdigest()


def test_any_unzip_opens_it(sealed: Path, small_model: Path, tmp_path: Path) -> None:
    if shutil.which("unzip") is None:
        pytest.skip("no unzip here")
    subprocess.run(["unzip", "-q", str(sealed), "-d", str(tmp_path)], check=True)
    assert (tmp_path / small_model.name).read_bytes() == small_model.read_bytes()
    assert bundle.read_unpacked(tmp_path) == bundle.read(sealed)


def test_every_changed_byte_is_found(sealed: Path, tmp_path: Path) -> None:
    """A hundred bytes, drawn over the whole file and the places that ZIP keeps its own books in."""
    whole, generator = sealed.read_bytes(), random.Random(3)
    places = [generator.randrange(len(whole)) for _ in range(60)]
    places += [generator.randrange(200) for _ in range(20)] + [
        len(whole) - 1 - generator.randrange(200) for _ in range(20)
    ]
    damaged = tmp_path / "one.bundle"
    unnoticed = []
    for place in places:
        changed = bytearray(whole)
        changed[place] ^= 1 << generator.randrange(8)
        damaged.write_bytes(changed)
        try:
            found = bundle.read(damaged)
        except InputError:
            continue
        unnoticed.append(place)
        assert found == bundle.read(sealed), place  # ZIP's own fields that mean nothing to a reader
    assert len(unnoticed) < 10, "most of the file is covered"


@pytest.mark.parametrize("size", [0, 10, 1000])
def test_what_is_cut_off_is_no_bundle(sealed: Path, tmp_path: Path, size: int) -> None:
    path = tmp_path / "cut.bundle"
    path.write_bytes(sealed.read_bytes()[:size])
    with pytest.raises(InputError, match="damaged"):
        bundle.read(path)


def rebuilt(path: Path, entries: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries:
            info = zipfile.ZipInfo(name)  # of 1980-01-01
            info.create_system, info.external_attr, info.compress_type = 3, 0o100644 << 16, compression
            archive.writestr(info, content)
    return path


def manifest_bytes(**changes: object) -> bytes:
    document = {
        "format": "sfiin-bundle/1",
        "name": "n",
        "sensor": "s",
        "chain": ["file:x"],
        "files": {"x": {"size": 1, "sha256": hashlib.sha256(b"x").hexdigest()}},
    }
    return json.dumps(document | changes, sort_keys=True, separators=(",", ":")).encode()


def test_the_forger_of_this_test_can_make_a_sound_one(tmp_path: Path) -> None:
    path = rebuilt(tmp_path / "f.bundle", [("manifest.json", manifest_bytes()), ("x", b"x")])
    assert bundle.read(path).chain == ("file:x",)


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ([("x", b"x"), ("manifest.json", manifest_bytes())], "its first entry"),
        ([("manifest.json", manifest_bytes())], "its entries are not those"),
        ([("manifest.json", manifest_bytes()), ("x", b"x"), ("y", b"y")], "its entries are not those"),
        ([("manifest.json", manifest_bytes()), ("x", b"xx")], "its entries are not those"),
        ([("manifest.json", manifest_bytes()), ("x", b"y")], "x is not what the manifest says"),
        ([("manifest.json", manifest_bytes() + b" "), ("x", b"x")], "its manifest is not of the form"),
        (
            [("manifest.json", manifest_bytes(format="sfiin-bundle/2")), ("x", b"x")],
            "its manifest is not of the form",
        ),
        (
            [("manifest.json", manifest_bytes(chain=["method:gsa"])), ("x", b"x")],
            "its manifest is not of the form",
        ),
        (
            [("manifest.json", manifest_bytes(chain=["file:y"])), ("x", b"x")],
            "its manifest is not of the form",
        ),
        (
            [("manifest.json", manifest_bytes(chain=["file:x", "method:magic"])), ("x", b"x")],
            "its manifest is not",
        ),
        (
            [("manifest.json", manifest_bytes(files={"../x": {"size": 1, "sha256": "0" * 64}})), ("x", b"x")],
            "its manifest",
        ),
        ([("manifest.json", b"[" * 100_000), ("x", b"x")], "its manifest is not of the form"),
        ([("manifest.json", b"{}"), ("x", b"x")], "its manifest is not of the form"),
        ([], "its first entry"),
    ],
)
def test_what_is_no_sound_bundle_is_refused(
    tmp_path: Path, entries: list[tuple[str, bytes]], why: str
) -> None:
    path = rebuilt(tmp_path / "f.bundle", entries)
    with pytest.raises(InputError, match=why):
        bundle.read(path)


def test_compressed_entries_are_refused(tmp_path: Path) -> None:
    path = rebuilt(
        tmp_path / "f.bundle", [("manifest.json", manifest_bytes()), ("x", b"x")], zipfile.ZIP_DEFLATED
    )
    with pytest.raises(InputError, match="plainly stored"):
        bundle.read(path)


def test_an_unpacked_bundle_is_held_against_its_manifest(
    sealed: Path, small_model: Path, tmp_path: Path
) -> None:
    folder = unpacked(sealed, tmp_path / "f")
    assert bundle.read_unpacked(folder) == bundle.read(sealed)
    (folder / "more").touch()
    with pytest.raises(InputError, match="its files are not those"):
        bundle.read_unpacked(folder)
    (folder / "more").unlink()
    model = folder / small_model.name
    content = model.read_bytes()
    model.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match="is not what the manifest says"):
        bundle.read_unpacked(folder)
    model.unlink()
    model.symlink_to(small_model)
    with pytest.raises(InputError, match="no regular file"):
        bundle.read_unpacked(folder)


def test_what_does_not_belong_together_is_not_sealed(small_model: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.bundle"
    with pytest.raises(InputError, match="there is no such method; choose among"):
        bundle.make(output, [small_model], ["magic"])
    with pytest.raises(InputError, match="at least one model"):
        bundle.make(output, [])
    with pytest.raises(InputError, match="no such file"):
        bundle.make(output, [small_model], extra=[tmp_path / "LICENSE"])
    alone = Path(shutil.copy(small_model, tmp_path / "alone.onnx"))
    with pytest.raises(InputError, match="golden tiles cannot be read"):
        bundle.make(output, [alone])
    (tmp_path / "other").mkdir()
    same = tmp_path / "other" / small_model.name
    same.write_text("a file of the same name")
    with pytest.raises(InputError, match="has the same name"):
        bundle.make(output, [small_model], extra=[same])
    with pytest.raises(OutputError, match="there is no folder"):
        bundle.make(tmp_path / "none" / "x.bundle", [small_model])
    assert not output.exists()


def test_a_bundle_is_for_one_sensor(small_model: Path, tmp_path: Path) -> None:
    from sfiin.runtime.models import shipped

    eight = next(path for path, contract in shipped() if len(contract.sensor.bands) == 8)
    with pytest.raises(MismatchError, match=r"sensor: is for worldview2, but small\.onnx is for vhr4"):
        bundle.make(tmp_path / "x.bundle", [small_model, eight])
