"""Who vouches for a model's folder? Whoever holds the key that signed it, by OpenSSF Model Signing, offline.

The signature covers every file of a folder: models, golden tiles, sidecars, libraries. It lies in the folder
as `model.sig`, and `model_signing verify key` verifies it as well as `sfiin verify --key` does. Keys are
pairs on an elliptic curve, as `openssl ecparam` makes them; there is no server in this.
"""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sfiin.runtime import trust
from sfiin.runtime.errors import InputError, MismatchError, OutputError, UnavailableError
from sfiin.runtime.extras import missing
from sfiin.runtime.files import publish

NAME = "model.sig"
"""A signature's name in its folder."""

SETTING = "SFIIN_REQUIRE_SIGNATURE"
"""The environment's variable that names a public key which every model must be signed with."""


def sign(folder: Path, key: Path) -> Path:
    """Sign all files of a folder with a private key (PEM); the signature's path.

    Raises UnavailableError without `model-signing`, InputError for a folder or a key that is none,
    OutputError.
    """
    signing = _package()
    _require_folder(folder)
    _require_key(key, "private")
    target = folder / NAME
    with tempfile.TemporaryDirectory() as private, _told(f"{folder}: cannot be signed"):
        made = Path(private) / NAME
        config = signing.signing.Config().use_elliptic_key_signer(private_key=key)
        config.set_hashing_config(_hashing(signing, target)).sign(folder, made)
        data = made.read_bytes()
    with publish(target) as part:
        part.write_bytes(data)
    return target


def verify(folder: Path, key: Path) -> dict[str, str]:
    """SHA-256 digests (hex) of a folder's files, by name, once its signature is known to be the key's.

    Raises MismatchError for a folder without a signature, with another one, or with a file more, less or
    changed; UnavailableError without `model-signing`, InputError for a folder or a key that is none.
    """
    signing = _package()
    _require_folder(folder)
    _require_key(key, "public")
    try:
        data = (folder / NAME).read_bytes()
    except OSError as error:
        raise MismatchError(
            f"{folder}: signature: {NAME} cannot be read ({error.strerror}); have the folder signed with "
            "'sfiin sign'"
        ) from None
    # What is verified is what is read below, whoever changes the file meanwhile.
    with tempfile.TemporaryDirectory() as private:
        copy = Path(private) / NAME
        copy.write_bytes(data)
        config = signing.verifying.Config().use_elliptic_key_verifier(public_key=key)
        config.set_hashing_config(_hashing(signing, folder / NAME))
        try:
            config.verify(folder, copy)
        except Exception as error:  # the package raises whatever its parts do, over damaged signatures too
            reason = (str(error) or type(error).__name__).strip().splitlines()[0][:300]
            raise MismatchError(
                f"{folder}: signature: not that of {key.name} over these files ({reason}); get them anew"
            ) from None
    found = _digests(data, folder)
    trust.SIGNED.update(found.values())
    return found


def required(key: Path | None) -> Path | None:
    """The key that a model must be signed with here: the one given, or the environment's, or None."""
    named = os.environ.get(SETTING, "")
    return key or (Path(named) if named else None)


def make_keys(private: Path) -> Path:
    """Write a new private key, readable by its user alone, and its public key beside it (.pub); its path.

    Raises OutputError for a key that is there already.
    """
    _package()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    public = private.with_suffix(".pub")
    for path in (private, public):
        if path.exists():
            raise OutputError(f"{path}: exists already; a key is never replaced, give another name")
    made = ec.generate_private_key(ec.SECP256R1())
    secret = made.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    open_ = made.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    with publish(private) as part:
        part.touch(mode=0o600)
        part.write_bytes(secret)
    with publish(public) as part:
        part.write_bytes(open_)
    return public


def _package() -> Any:
    try:
        import model_signing
        import model_signing.hashing
        import model_signing.signing
        import model_signing.verifying
    except ImportError as error:
        raise UnavailableError(missing(error.name or "model-signing", "sign", "a signature")) from None
    return model_signing


def _hashing(signing: Any, signature: Path) -> Any:
    """All files but the signature, whatever a link points to; a link would lead out of what is signed."""
    return signing.hashing.Config().set_ignored_paths(paths=[signature.name], ignore_git_paths=False)


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise InputError(
            f"{folder}: is no folder; a signature is over a folder, with all that belongs to a model"
        )


def _require_key(key: Path, kind: str) -> None:
    try:
        text = key.read_bytes()[:4096]
    except OSError as error:
        raise InputError(f"{key}: the {kind} key cannot be read ({error.strerror})") from None
    if (b"PRIVATE KEY" if kind == "private" else b"PUBLIC KEY") not in text:
        raise InputError(f"{key}: no {kind} key in PEM; 'sfiin sign --new-key FILE' makes a pair")


@contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the package raises whatever its parts do
        reason = (str(error) or type(error).__name__).strip().splitlines()[0][:300]
        raise InputError(f"{what}: {reason}") from None


def _digests(signature: bytes, folder: Path) -> dict[str, str]:
    """The digests in a signature that was verified: an in-toto statement in a DSSE envelope."""
    try:
        envelope = json.loads(signature)["dsseEnvelope"]
        statement = json.loads(base64.b64decode(envelope["payload"]))
        resources = statement["predicate"]["resources"]
        found = {
            str(entry["name"]): str(entry["digest"]) for entry in resources if entry["algorithm"] == "sha256"
        }
    except (ValueError, KeyError, TypeError):
        raise MismatchError(
            f"{folder}: signature: in a form that is not read; sign it with 'sfiin sign'"
        ) from None
    if len(found) < len(resources):
        raise MismatchError(f"{folder}: signature: by other digests than SHA-256; sign it with 'sfiin sign'")
    return found
