import sys
from importlib import metadata

import pytest

from sfiin.runtime import reports
from sfiin.runtime.errors import UnavailableError


def offer(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    point = metadata.EntryPoint("scene", value, reports.GROUP)
    monkeypatch.setattr(metadata, "entry_points", lambda group, name: metadata.EntryPoints([point]))


def test_a_renderer_is_found_by_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "shutil:copy")
    assert reports.renderer("scene").__name__ == "copy"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "matplotlib.figure:Figure")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(
        UnavailableError,
        match=r"matplotlib.figure is not installed; a report needs the extra 'report': pip install ",
    ):
        reports.renderer("scene")


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UnavailableError, match="report of a nothing"):
        reports.renderer("nothing")
