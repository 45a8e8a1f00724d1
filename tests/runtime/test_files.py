import hashlib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from sfiin.runtime.errors import OutputError
from sfiin.runtime.files import publish, read_small, sha256, write_fresh

FileSizeLimit = Callable[[int], AbstractContextManager[None]]


def test_appears_only_when_complete(tmp_path: Path) -> None:
    out = tmp_path / "product.tif"
    with publish(out) as part:
        part.write_text("complete")
        assert not out.exists()
        assert part.parent == tmp_path
        assert part.name.startswith(".product.")
        assert part.suffix == ".tif"
    assert out.read_text() == "complete"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_failure_leaves_the_old_file(tmp_path: Path, failure: type[BaseException]) -> None:
    out = tmp_path / "product.tif"
    out.write_text("old")
    with pytest.raises(failure), publish(out) as part:
        part.write_text("new")
        raise failure
    assert out.read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    out = tmp_path / "product"
    with publish(out) as one, publish(out) as two:
        assert one != two
        one.write_text("one")
        two.write_text("two")
    assert out.read_text() == "one"


def test_new_file_has_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").write_text("")
    with publish(tmp_path / "product") as part:
        part.write_text("")
    assert (tmp_path / "product").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_missing_folder(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="there is no folder") as caught,
        publish(tmp_path / "no" / "product"),
    ):
        pytest.fail("nothing to write to")
    assert caught.value.exit_code == 7
    assert "\n" not in str(caught.value)


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="there is no folder"), publish(tmp_path / "file" / "product"):
        pytest.fail("nothing to write to")


def test_target_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="it is a folder"), publish(tmp_path):
        pytest.fail("nothing to write to")


def test_block_that_wrote_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No such file"), publish(tmp_path / "product"):
        pass
    assert not list(tmp_path.iterdir())


def test_disk_full(file_size_limit: FileSizeLimit, tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="File too large"),
        file_size_limit(1000),
        publish(tmp_path / "out") as part,
    ):
        part.write_bytes(bytes(2000))
    assert not list(tmp_path.iterdir())


def test_sha256(tmp_path: Path) -> None:
    content = os.urandom((1 << 20) + 7)
    (tmp_path / "file").write_bytes(content)
    assert sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()
    (tmp_path / "empty").write_bytes(b"")
    assert sha256(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_fresh_text_replaces_what_was_there(tmp_path: Path) -> None:
    path, other = tmp_path / "note", tmp_path / "other"
    write_fresh(path, "one")
    write_fresh(path, "two")
    assert read_small(path) == "two"
    other.write_text("precious")
    path.unlink()
    path.symlink_to(other)
    write_fresh(path, "three")
    assert (read_small(path), other.read_text()) == ("three", "precious")
    path.unlink()
    path.mkdir()
    (path / "inside").touch()
    write_fresh(path, "four")
    assert read_small(path) == "four"
    assert len([found for found in tmp_path.iterdir() if found.is_dir()]) == 1, "the folder is aside"


def test_a_fresh_text_goes_into_no_linked_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(OSError, match=r"directory|symbolic"):
        write_fresh(tmp_path / "link" / "note", "text")
    assert not list((tmp_path / "real").iterdir())


def test_a_small_text_is_a_regular_file_and_small(tmp_path: Path) -> None:
    (tmp_path / "large").write_text("x" * 100)
    with pytest.raises(OSError, match="too large"):
        read_small(tmp_path / "large", 99)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no regular file"):
        read_small(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "large")
    with pytest.raises(OSError, match="symbolic"):
        read_small(tmp_path / "link")
