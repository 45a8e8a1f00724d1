"""What goes up to a satellite? A bundle: one file that holds all that a flight needs, sealed by digests.

1. A bundle is a ZIP archive whose entries are stored, not compressed. Any unzip opens it.
2. Its first entry is `manifest.json`, the others follow by name. Names are flat: no folders.
3. The manifest is JSON in UTF-8 with sorted keys and no blanks; it holds strings, whole numbers and lists.
4. `format` is "sfiin-bundle/1", `name` the bundle's name, `sensor` the sensor profile's name.
5. `chain` lists what makes a product, first the preferred: an artefact by its file, or a classical method.
6. `files` gives size in bytes and SHA-256 for every other entry; an entry that it does not name is refused.
7. An artefact comes with its golden tiles, a plan also with its sidecar and its plugin's library.
8. Entries carry no time (1980-01-01), no owner and no comment: the same inputs give the same bytes.
9. A bundle's identity is the SHA-256 of the file. A signature is made over the file and lies beside it.
10. Reading checks all of this before a byte is used; what differs from it is no bundle.

The price of it: nothing is compressed, and to change one byte the whole file is written anew. `sfiin uplink`
is for small changes.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import stat
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sfiin.runtime import golden, vouching
from sfiin.runtime.backends import plan, plugin
from sfiin.runtime.contract import Contract
from sfiin.runtime.errors import InputError, MismatchError
from sfiin.runtime.files import publish, sha256
from sfiin.runtime.quality.classical import METHODS

FORMAT = "sfiin-bundle/1"
MANIFEST = "manifest.json"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_EPOCH = (1980, 1, 1, 0, 0, 0)
_LARGEST_MANIFEST = 1 << 20
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Entry:
    """A file in a bundle: its size in bytes and its SHA-256 digest in hex."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a bundle holds. `chain` is what makes a product, first the preferred: "file:NAME" or
    "method:NAME"."""

    name: str
    sensor: str
    chain: tuple[str, ...]
    files: Mapping[str, Entry]

    def to_bytes(self) -> bytes:
        """The manifest in its one canonical form."""
        document = {
            "format": FORMAT,
            "name": self.name,
            "sensor": self.sensor,
            "chain": list(self.chain),
            "files": {
                name: {"size": entry.size, "sha256": entry.sha256} for name, entry in self.files.items()
            },
        }
        return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    @property
    def artefacts(self) -> tuple[str, ...]:
        """The chain's models and plans, by their file names."""
        return tuple(link.partition(":")[2] for link in self.chain if link.startswith("file:"))


def make(
    output: Path, artefacts: Sequence[Path], methods: Sequence[str] = (), extra: Sequence[Path] = ()
) -> Manifest:
    """Seal models and plans, first the preferred, the classical methods to fall back on, and further files.

    Raises InputError for a file that is missing or damaged, a method that there is none of, or two files of
    one name; MismatchError where artefacts are of different sensors, or golden tiles of another model;
    OutputError.
    """
    unknown = [method for method in methods if method not in METHODS]
    if unknown:
        raise InputError(f"{unknown[0]}: there is no such method; choose among {', '.join(sorted(METHODS))}")
    if not artefacts:
        raise InputError("a bundle needs at least one model or plan")
    sensor = _one_sensor(artefacts)
    paths = _by_name([path for artefact in artefacts for path in _belonging(artefact)] + list(extra))
    chain = (*(f"file:{path.name}" for path in artefacts), *(f"method:{method}" for method in methods))
    entries = {name: Entry(path.stat().st_size, sha256(path)) for name, path in sorted(paths.items())}
    manifest = Manifest(output.stem, sensor, chain, entries)
    with publish(output) as part:
        _write(part, manifest, paths)
    return manifest


def read(path: Path) -> Manifest:
    """A bundle's manifest, once every byte of the bundle has been held against it.

    Raises InputError, saying what is wrong, for a file that is missing, damaged or no bundle.
    """
    with _opened(path) as archive:
        manifest = _manifest(archive, path)
        for name, entry in manifest.files.items():
            with archive.open(name) as file:
                _require(_digest(file) == entry.sha256, path, f"{name} is not what the manifest says")
        return manifest


@contextmanager
def contents(path: Path) -> Iterator[Iterator[tuple[str, IO[bytes]]]]:
    """A bundle's files, each by name and open to be read; not yet held against the manifest. Raises as
    `read`."""
    with _opened(path) as archive:
        names = _manifest(archive, path).files
        yield ((name, archive.open(name)) for name in names)


def read_unpacked(folder: Path) -> Manifest:
    """The manifest of a folder that a bundle was unpacked into, once every file has been held against it.

    Raises InputError for a file that is missing, changed, or too many.
    """
    try:
        manifest = parse((folder / MANIFEST).read_bytes(), folder)
        found = {path.name for path in folder.iterdir()} - {MANIFEST}
        _require(found == set(manifest.files), folder, "its files are not those of the manifest")
        for name, entry in manifest.files.items():
            file = folder / name
            _require(stat.S_ISREG(file.lstat().st_mode), folder, f"{name} is no regular file")
            same = file.stat().st_size == entry.size and sha256(file) == entry.sha256
            _require(same, folder, f"{name} is not what the manifest says")
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from None
    return manifest


def parse(text: bytes, where: Path) -> Manifest:
    """A manifest from its canonical form. Raises InputError for any other bytes."""
    try:
        document = json.loads(text)
        files = {name: Entry(**entry) for name, entry in document["files"].items()}
        manifest = Manifest(document["name"], document["sensor"], tuple(document["chain"]), files)
        canonical = document["format"] == FORMAT and manifest.to_bytes() == text and _is_sound(manifest)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        canonical = False
    _require(canonical, where, f"its manifest is not of the form '{FORMAT}'")
    return manifest


def _is_sound(manifest: Manifest) -> bool:
    """Whether names, sizes, digests and links are what they must be."""
    entries = all(
        _NAME.fullmatch(name)
        and name != MANIFEST
        and type(entry.size) is int
        and entry.size >= 0
        and re.fullmatch(r"[0-9a-f]{64}", entry.sha256)
        for name, entry in manifest.files.items()
    )
    links = [link.partition(":") for link in manifest.chain]
    known = all(name in (manifest.files if kind == "file" else METHODS) for kind, _, name in links)
    return bool(
        entries
        and known
        and links
        and links[0][0] == "file"
        and {kind for kind, _, _ in links} <= {"file", "method"}
    )


def _one_sensor(artefacts: Sequence[Path]) -> str:
    contracts = {path: _contract(path) for path in artefacts}
    for path, contract in contracts.items():
        first = contracts[artefacts[0]]
        if contract.sensor != first.sensor:
            raise MismatchError(
                f"{path}: sensor: is for {contract.sensor.name}, but {artefacts[0].name} is for "
                f"{first.sensor.name}; one bundle is for one sensor"
            )
    return contracts[artefacts[0]].sensor.name


def _contract(artefact: Path) -> Contract:
    return plan.read(artefact).contract if plan.is_plan(artefact) else vouching.vouched_contract(artefact)


def _belonging(artefact: Path) -> Iterator[Path]:
    """An artefact and what it cannot be without: golden tiles, a plan's sidecar and plugin."""
    golden.read(golden.beside(artefact), _contract(artefact))
    yield from (artefact, golden.beside(artefact))
    if plan.is_plan(artefact):
        build = plan.read(artefact).build
        yield plan.beside(artefact)
        if build.plugin and not build.plugin_inside:
            yield plugin.beside(artefact)


def _by_name(paths: Sequence[Path]) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        if not _NAME.fullmatch(path.name) or path.name == MANIFEST:
            raise InputError(
                f"{path}: a bundle's files are named by letters, digits, '.', '_' and '-'; rename it"
            )
        if path.name in named and not named[path.name].samefile(path):
            raise InputError(f"{path}: {named[path.name]} has the same name; rename one of them")
        named[path.name] = path
    return named


def _write(part: Path, manifest: Manifest, paths: Mapping[str, Path]) -> None:
    with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_info(MANIFEST), manifest.to_bytes())
        for name in manifest.files:
            info = _info(name)
            info.file_size = manifest.files[name].size
            with paths[name].open("rb") as source, archive.open(info, "w") as target:
                shutil.copyfileobj(source, target, _CHUNK)


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.create_system = 3  # Unix on every machine, so that the bytes do not tell where they were made
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    return info


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """An open bundle; what the archive itself turns out to be while it is read is told as InputError."""
    try:
        archive = zipfile.ZipFile(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (zipfile.BadZipFile, EOFError, NotImplementedError):
        raise InputError(f"{path}: no bundle, or a damaged one; fetch it again") from None
    try:
        with archive:
            yield archive
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{path}: a damaged bundle ({error}); fetch it again") from None


def _manifest(archive: zipfile.ZipFile, path: Path) -> Manifest:
    infos = archive.infolist()
    first = infos[0] if infos else None
    _require(first is not None and first.filename == MANIFEST, path, f"its first entry is not {MANIFEST}")
    assert first is not None
    plain = all(map(_is_plain, infos)) and not archive.comment
    _require(plain and first.file_size <= _LARGEST_MANIFEST, path, "its entries are not plainly stored")
    manifest = parse(archive.read(MANIFEST), path)
    named = [(info.filename, info.file_size) for info in infos[1:]]
    told = [(name, entry.size) for name, entry in sorted(manifest.files.items())]
    _require(named == told, path, "its entries are not those of the manifest")
    return manifest


def _is_plain(info: zipfile.ZipInfo) -> bool:
    """Whether an entry is as `_info` makes it."""
    made = _info(info.filename)
    fields = ("compress_type", "date_time", "create_system", "external_attr", "extra", "comment", "flag_bits")
    return all(getattr(info, field) == getattr(made, field) for field in fields)


def _digest(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _require(holds: Any, where: Path, what: str) -> None:
    if not holds:
        raise InputError(f"{where}: no sound bundle: {what}; fetch it again")
