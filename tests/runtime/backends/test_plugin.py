import _ctypes
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sfiin.runtime import trust
from sfiin.runtime.backends import plugin
from sfiin.runtime.contract import PLUGIN
from sfiin.runtime.errors import InputError, MismatchError
from sfiin.runtime.files import sha256

LIBRARY = Path(_ctypes.__file__)


class Registry:
    """The calls of TensorRT 8, which has a plugin or not."""

    def __init__(self, has: bool) -> None:
        self.has = has
        self.loaded: list[str] = []
        self.asked: list[tuple[str, ...]] = []

    def load_library(self, path: str) -> None:
        self.loaded.append(path)

    def get_plugin_creator(self, *names: str) -> object | None:
        self.asked.append(names)
        return object() if self.has else None


def owner(registry: Any) -> Any:
    return SimpleNamespace(get_plugin_registry=lambda: registry)


def test_the_library_goes_into_the_owners_registry() -> None:
    registry = Registry(True)
    plugin.load(owner(registry), LIBRARY)
    (name,) = registry.loaded
    assert Path(name).samefile(LIBRARY)
    assert registry.asked == [(PLUGIN[1], "1", PLUGIN[0])]


def test_a_library_without_the_plugin_is_refused() -> None:
    with pytest.raises(InputError, match=r"has no plugin sfiin::SpectralFusion for this version"):
        plugin.load(owner(Registry(False)), LIBRARY)


def test_tensorrt_85_has_no_registry_to_load_into() -> None:
    plugin.load(object(), LIBRARY)


@pytest.mark.parametrize("has_registry", [True, False])
def test_what_is_no_library_is_refused_with_the_loaders_reason(tmp_path: Path, has_registry: bool) -> None:
    given = owner(Registry(True)) if has_registry else object()
    with pytest.raises(InputError, match=r"cannot be read \(no such file\); build the plugin"):
        plugin.load(given, tmp_path / "none.so")
    (tmp_path / "text.so").write_text(
        "no library, just a text that is long enough for a header of an ELF file" * 9
    )
    with pytest.raises(InputError, match=r"cannot be loaded as a library: .*invalid ELF header"):
        plugin.load(given, tmp_path / "text.so")


def test_another_library_than_the_plans_is_refused(tmp_path: Path) -> None:
    plugin.require(LIBRARY, sha256(LIBRARY))
    with pytest.raises(MismatchError, match=r"plugin \(SHA-256\): the library has .*built with 000000000000"):
        plugin.require(LIBRARY, "0" * 64)
    with pytest.raises(InputError, match=r"cannot be read \(No such file"):
        plugin.require(tmp_path / "none.so", "0" * 64)


@pytest.mark.parametrize("place", ["file", "folder", "above"])
def test_a_library_that_others_may_write_is_not_loaded(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "above" / "folder"
    folder.mkdir(parents=True)
    copy = folder / "net.plan.so"
    shutil.copy(LIBRARY, copy)
    registry = Registry(True)
    plugin.load(owner(registry), copy)
    {"file": copy, "folder": folder, "above": folder.parent}[place].chmod(0o777)
    with pytest.raises(MismatchError, match=r"is code, and .*may be written by others \(mode 0777\)"):
        plugin.load(owner(registry), copy)
    with pytest.raises(MismatchError, match="may be written by others"):
        plugin.require(copy, sha256(copy))
    assert len(registry.loaded) == 1
    trust.SIGNED.add(sha256(copy))
    try:
        plugin.load(owner(registry), copy)
    finally:
        trust.SIGNED.clear()
    assert len(registry.loaded) == 2


@pytest.mark.parametrize("inside_too", [True, False])
def test_a_plan_that_brings_its_own_code_must_be_its_users(tmp_path: Path, inside_too: bool) -> None:
    """Every version-compatible plan does: the lean runtime, even where there is no plugin."""
    inside = tmp_path / "net.plan"
    inside.write_bytes(b"plan")
    runtime = SimpleNamespace(engine_host_code_allowed=False)
    build: Any = SimpleNamespace(
        version_compatible=True, plugin_inside=inside_too, plugin="0" * 64 if inside_too else ""
    )
    inside.chmod(0o666)
    with pytest.raises(MismatchError, match="a plan that brings its own code is code"):
        plugin.provide(runtime, build, plugin.beside(inside), inside)
    assert not runtime.engine_host_code_allowed
    inside.chmod(0o644)
    plugin.provide(runtime, build, plugin.beside(inside), inside)
    assert runtime.engine_host_code_allowed
