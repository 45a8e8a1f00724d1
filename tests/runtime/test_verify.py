"""Verifying artefacts, adopting a changed one, and signatures."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from sfiin.runtime import golden, models, signatures, trust, verify
from sfiin.runtime.backends.select import open_session
from sfiin.runtime.errors import CheckFailedError, InputError, MismatchError, SfiinError

Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(small_model: Path, tmp_path: Path) -> Path:
    """A folder with a model and its golden tiles."""
    place = tmp_path / "model"
    place.mkdir()
    shutil.copy(small_model, place / "net.onnx")
    shutil.copy(golden.beside(small_model), place / "net.golden.npz")
    return place


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """A private key and its public one."""
    pytest.importorskip("model_signing", reason="the extra 'sign' is not installed")
    return tmp_path / "k.pem", signatures.make_keys(tmp_path / "k.pem")


def simplified(model: Path, to: Path) -> Path:
    """The same function in another graph: a node more that changes nothing."""
    loaded = onnx.load(model)
    name = loaded.graph.node[-1].output[0]
    loaded.graph.node[-1].output[0] = "before"
    loaded.graph.node.append(onnx.helper.make_node("Identity", ["before"], [name]))
    onnx.save(loaded, to)
    shutil.copy(golden.beside(model), golden.beside(to))
    return to


def test_what_is_known_of_a_model_its_tiles_and_a_folder(folder: Path, small_checkpoint: Path) -> None:
    shutil.copy(small_checkpoint, folder / "net.safetensors")
    (model,) = verify.verify(folder / "net.onnx")
    assert (model.kind, model.unknown) == ("model", ())
    assert "golden tiles: relative L2" in model.known[-1]
    assert verify.verify(folder / "net.golden.npz")[0].known == ("5 tiles of net.onnx",)
    assert [verdict.kind for verdict in verify.verify(folder)] == ["model", "checkpoint"]
    assert "digest" in verify.verify(folder / "net.safetensors")[0].known[0]
    (folder / "net.golden.npz").unlink()
    assert "so it was not run" in verify.verify(folder / "net.onnx")[0].unknown[0]


def test_a_damaged_checkpoint_is_refused_without_torch(small_checkpoint: Path, tmp_path: Path) -> None:
    data = bytearray(small_checkpoint.read_bytes())
    data[-3] ^= 1
    (tmp_path / "c.safetensors").write_bytes(data)
    with pytest.raises(InputError, match="changed since it was written"):
        verify.verify(tmp_path / "c.safetensors")


def test_what_is_nothing_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(InputError):
            verify.verify(path)
    (tmp_path / "alone.golden.npz").write_bytes(b"")
    with pytest.raises(InputError, match="no model or plan of this name"):
        verify.verify(tmp_path / "alone.golden.npz")


def test_adopting_a_simplified_copy(folder: Path, tmp_path: Path, invoke: Invoke) -> None:
    slim, new = simplified(folder / "net.onnx", tmp_path / "slim.onnx"), tmp_path / "new.onnx"
    assert "computes the same" in verify.verify(slim)[0].unknown[0]
    code, output, _ = invoke("verify", slim, "--adopt", "-o", new)
    assert code == 0
    assert "adopted" in output
    contract = models.contract(new)
    assert contract.derived["graph"] == models.contract(folder / "net.onnx").graph
    assert verify.verify(new)[0].unknown == ()
    onnx.checker.check_model(onnx.load(new))
    assert invoke("verify", slim, "--adopt", "-o", new)[0] == 7
    assert invoke("verify", slim, "--adopt")[0] == 2


def test_what_computes_something_else_is_not_adopted(folder: Path, tmp_path: Path) -> None:
    loaded = onnx.load(folder / "net.onnx")
    name = loaded.graph.node[-1].output[0]
    loaded.graph.node[-1].output[0] = "before"
    loaded.graph.node.append(onnx.helper.make_node("Neg", ["before"], [name]))
    onnx.save(loaded, folder / "net.onnx")
    for call in (
        lambda: verify.adopt(folder / "net.onnx", tmp_path / "new.onnx"),
        lambda: verify.verify(folder),
    ):
        with pytest.raises(CheckFailedError, match="something else of its golden tiles"):
            call()
    assert not list(tmp_path.glob("*new*"))


def test_a_signed_folder_and_what_breaks_it(folder: Path, keys: tuple[Path, Path], invoke: Invoke) -> None:
    private, public = keys
    assert invoke("sign", folder, "--key", private)[0] == 0
    code, output, _ = invoke("verify", folder, "--key", public)
    assert code == 0
    assert "2 files signed" in output
    other = signatures.make_keys(private.with_name("other.pem"))
    with pytest.raises(MismatchError, match=r"not that of other\.pub"):
        signatures.verify(folder, other)
    (folder / "more").write_text("more")
    with pytest.raises(MismatchError, match="Extra files"):
        signatures.verify(folder, public)
    (folder / "more").unlink()
    data = (folder / "net.golden.npz").read_bytes()
    (folder / "net.golden.npz").write_bytes(data + b"x")
    with pytest.raises(MismatchError, match="signature: not that of"):
        signatures.verify(folder, public)
    (folder / signatures.NAME).write_text("{}")
    with pytest.raises(MismatchError, match="signature: not that of"):
        signatures.verify(folder, public)
    (folder / signatures.NAME).unlink()
    with pytest.raises(MismatchError, match="cannot be read"):
        signatures.verify(folder, public)
    trust.SIGNED.clear()


def test_the_packages_own_command_verifies_ours_and_ours_verifies_its(
    folder: Path, keys: tuple[Path, Path]
) -> None:
    private, public = keys
    own = [sys.executable, "-m", "model_signing"]
    signature = signatures.sign(folder, private)
    done = subprocess.run(
        [*own, "verify", "key", folder, "--signature", signature, "--public_key", public],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    signature.unlink()
    subprocess.run(
        [*own, "sign", "key", folder, "--signature", signature, "--private_key", private],
        capture_output=True,
        check=True,
    )
    assert set(signatures.verify(folder, public)) == {"net.onnx", "net.golden.npz"}
    trust.SIGNED.clear()


def test_a_session_under_a_required_signature(
    folder: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = keys
    with pytest.raises(MismatchError, match="have the folder signed"):
        open_session(folder / "net.onnx", "cpu", key=public)
    signatures.sign(folder, private)
    open_session(folder / "net.onnx", "cpu", key=public).close()
    monkeypatch.setenv(signatures.SETTING, str(public))
    open_session(folder / "net.onnx", "cpu").close()
    shutil.copy(folder / "net.onnx", folder / "other.onnx")
    with pytest.raises(MismatchError):
        open_session(folder / "other.onnx", "cpu")
    trust.SIGNED.clear()


def test_keys_are_never_replaced_and_a_wrong_one_is_told(folder: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    assert private.stat().st_mode & 0o777 == 0o600 or os.name == "nt"
    with pytest.raises(SfiinError, match="never replaced"):
        signatures.make_keys(private)
    for call, wrong in ((signatures.sign, public), (signatures.verify, private)):
        with pytest.raises(InputError, match=r"no (private|public) key in PEM"):
            call(folder, wrong)
    with pytest.raises(InputError, match="is no folder"):
        signatures.sign(folder / "net.onnx", private)
