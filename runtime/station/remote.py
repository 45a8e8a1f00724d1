"""How does a product get to an object store? It is made on this disk, and uploaded when it is complete.

`s3://`, `gs://` and `az://` (and GDAL's `/vsis3/`, `/vsigs/`, `/vsiaz/`) go through obstore; any other URL
through fsspec, where that and what it needs are installed. What lies beside the product goes first and the
product last, each by one request that makes it appear as a whole. Without `overwrite` an object that is there
is refused: before the work, and once more by the request itself (`If-None-Match`) where it is not sent in
parts.

Credentials are the environment's (`AWS_...`, `GOOGLE_...`, `AZURE_...`), or boto3's where that is installed;
no message shows them.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from sfiin.runtime.errors import OutputError, UnavailableError
from sfiin.runtime.extras import missing
from sfiin.runtime.scenes import beside
from sfiin.runtime.scenes.names import gdal

_SCHEMES = ("s3", "gs", "az")
_MOUNTS = {"/vsis3/": "s3://", "/vsigs/": "gs://", "/vsiaz/": "az://"}
_URL = re.compile(r"([a-z][a-z0-9+.-]+)://(.+)", re.IGNORECASE)
_PARTS = 64 << 20  # bytes from which on a file is sent in parts
_PATIENCE = timedelta(seconds=60)
_SECRETS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_ACCOUNT_KEY",
)


def is_remote(name: str) -> bool:
    """Whether an output's name is a URL, or one of GDAL's names for an object store."""
    found = _URL.fullmatch(name)
    return name.startswith(tuple(_MOUNTS)) or (found is not None and found[1].lower() != "file")


def url_of(name: str) -> str:
    """The URL of an output's name. Raises OutputError for one that names no object."""
    for mount, scheme in _MOUNTS.items():
        if name.startswith(mount):
            name = scheme + name.removeprefix(mount)
    found = _URL.fullmatch(name)
    if not found or "/" not in found[2].rstrip("/") or found[2].endswith("/"):
        raise OutputError(f"{name}: names no object; give one, such as s3://bucket/folder/sharp.tif")
    return name


def split(output: str) -> tuple[Path, str | None]:
    """An output's name as a file of this machine, and None; or the name that it gets here, and its URL.
    Raises OutputError."""
    if is_remote(output):
        url = url_of(output)
        return Path(PurePosixPath(url).name), url
    return Path(gdal(output)), None


@dataclass(frozen=True, eq=False)
class Store:
    """One folder of a store: what is in it, and how a file gets there. Raises OutputError where it
    refuses."""

    url: str
    key: str
    own: Any = field(repr=False)

    @classmethod
    def of(cls, url: str) -> Store:
        """The store of an object's URL, not yet asked. Raises UnavailableError without the package."""
        scheme, rest = url.split("://", 1)
        if scheme.lower() not in _SCHEMES:
            return cls(url, rest, None)
        if find_spec("obstore") is None:
            raise UnavailableError(missing("obstore", "cloud", f"an output on {scheme}://"))
        bucket, _, key = rest.partition("/")
        return cls(url, key, _opened(scheme.lower(), bucket))

    def siblings(self) -> list[str]:
        """The names of what is in the object's folder and begins as the object's name without its suffix
        does."""
        folder, name = str(PurePosixPath(self.key).parent), PurePosixPath(self.key).stem
        with _explained(self.url):
            if self.own is None:
                system, path = _filesystem(self.url)
                parent = system._parent(path)
                found = system.ls(parent, detail=False) if system.exists(parent) else []
                return [PurePosixPath(each).name for each in found]
            import obstore

            prefix = "" if folder == "." else f"{folder}/"
            listed = obstore.list_with_delimiter(self.own, prefix=prefix or None)
            names = [str(item["path"]).removeprefix(prefix) for item in listed["objects"]]
            return [each for each in names if each.lower().startswith(name.lower())]

    def put(self, file: Path, *, replace: bool) -> None:
        """Upload a file into the object's folder, under its own name."""
        key = str(PurePosixPath(self.key).with_name(file.name))
        with _explained(self.url):
            if self.own is None:
                system, path = _filesystem(self.url)
                system.put_file(str(file), f"{system._parent(path)}/{file.name}")
                return
            import obstore

            parts = file.stat().st_size > _PARTS
            mode: Literal["create", "overwrite"] = "overwrite" if replace or parts else "create"
            obstore.put(self.own, key, file, use_multipart=parts, mode=mode)

    def remove(self, name: str) -> None:
        """Remove what lies in the object's folder under a name."""
        key = str(PurePosixPath(self.key).with_name(name))
        with _explained(self.url):
            if self.own is None:
                system, path = _filesystem(self.url)
                system.rm_file(f"{system._parent(path)}/{name}")
                return
            import obstore

            obstore.delete(self.own, key)


@contextmanager
def staged(name: str, overwrite: bool) -> Iterator[Path]:
    """A place on this disk for an output that is elsewhere; what lies there after the block is uploaded.

    Raises OutputError for what is there and may not be replaced, and where the store refuses.
    """
    store = Store.of(url_of(name))
    output = PurePosixPath(store.key).name
    there = store.siblings()
    left = beside.named_as_parts(output, there)
    if not overwrite and (output in there or left):
        found = output if output in there else left[0]
        raise OutputError(f"{name}: {found} exists already; give another name, or --overwrite to replace it")
    with tempfile.TemporaryDirectory(prefix="sfiin-") as folder:
        place = Path(folder) / output
        yield place
        files = sorted(path for path in Path(folder).iterdir() if path.is_file() and path.name[0] != ".")
        for file in sorted(files, key=lambda path: path.name == output):
            store.put(file, replace=overwrite)
        for old in left:
            store.remove(old)


def _opened(scheme: str, bucket: str) -> Any:
    """A bucket, by the environment's credentials; GDAL's words for an endpoint are understood, too."""
    from obstore import store

    opened: Any = store.from_url  # its types know each store's options apart
    config: dict[str, Any] = {}
    options: dict[str, Any] = {}
    own: dict[str, Any] = {}
    retry: Any = {"max_retries": 4, "retry_timeout": _PATIENCE}
    if scheme == "s3":
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        of_gdal = os.environ.get("AWS_S3_ENDPOINT")
        if not endpoint and of_gdal:
            plain = os.environ.get("AWS_HTTPS", "YES").upper() in ("NO", "FALSE", "OFF")
            endpoint = of_gdal if "://" in of_gdal else f"{'http' if plain else 'https'}://{of_gdal}"
        if endpoint:
            config["endpoint"] = endpoint
            options["allow_http"] = endpoint.startswith("http:")
        if os.environ.get("AWS_NO_SIGN_REQUEST", "").upper() in ("YES", "TRUE", "1"):
            config["skip_signature"] = True
        elif "AWS_ACCESS_KEY_ID" not in os.environ and find_spec("boto3"):
            from obstore.auth.boto3 import Boto3CredentialProvider

            own["credential_provider"] = Boto3CredentialProvider()
    return opened(f"{scheme}://{bucket}", config=config, client_options=options, retry_config=retry, **own)


def _filesystem(url: str) -> tuple[Any, str]:
    if find_spec("fsspec") is None:
        scheme = url.split("://", 1)[0]
        raise UnavailableError(missing("fsspec", "cloud", f"an output on {scheme}://"))
    from fsspec.core import url_to_fs

    system, path = url_to_fs(url)
    return system, str(path)


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """What a store says, in one line and without what is secret in it."""
    try:
        yield
    except UnavailableError:
        raise
    except Exception as error:  # of any store's client, each with kinds of its own
        text = str(error).split("<", 1)[0].strip() or type(error).__name__
        for secret in filter(None, map(os.environ.get, _SECRETS)):
            text = text.replace(secret, "...")
        line = re.sub(r"([?&](X-Amz-\w+|sig|token)=)[^&\s]+", r"\1...", " ".join(text.split()))[:300]
        raise OutputError(f"{url}: could not be written: {line}") from None
