"""One table of options: both commands have them, and Python takes them by the same names and defaults."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer

from sfiin.runtime import api
from sfiin.runtime.commands.run import run
from sfiin.runtime.commands.scene_options import SceneOptions, spread
from sfiin.runtime.commands.watch import watch
from sfiin.runtime.scenes.pipeline import Form
from sfiin.runtime.station.job import Settings


@pytest.mark.parametrize("function", [run, watch, api.sharpen_files])
def test_all_take_the_same_options(function: Callable[..., Any]) -> None:
    taken = inspect.signature(function).parameters
    assert {field.name: taken[field.name].default for field in fields(SceneOptions)} == {
        field.name: field.default for field in fields(SceneOptions)
    }


def test_the_defaults_are_the_stations() -> None:
    assert SceneOptions().settings() == Settings()


def test_the_options_reach_the_station() -> None:
    key = Path("key.pem")
    chosen = SceneOptions(
        format="cog", compress="zstd", memory="2GiB", outliers="refuse", require_signature=key, search=64
    )
    settings = chosen.settings(otherwise="version")
    assert settings.form == Form("cog", "zstd", False)
    assert (settings.memory, settings.refuse_outliers, settings.search) == (2 << 30, True, 64)
    assert (settings.signed_by, settings.existing) == (key, "version")
    assert SceneOptions(overwrite=True).settings(otherwise="version").existing == "overwrite"
    with pytest.raises(typer.BadParameter, match="no size"):
        SceneOptions(memory="2 spoons").settings()


def test_another_process_gets_the_same_settings() -> None:
    settings = SceneOptions(require_signature=Path("/key.pem"), overlap=24, format="cog").settings()
    assert Settings.of(json.loads(json.dumps(settings.document()))) == settings


def test_a_command_is_given_its_group() -> None:
    seen: list[Any] = []

    @spread
    def command(*, first: int, chosen: SceneOptions, last: bool = False) -> None:
        """What it does."""
        seen.append((first, chosen, last))

    assert list(inspect.signature(command).parameters)[:2] == ["first", "model"]
    assert command.__doc__ == "What it does."
    given = {field.name: field.default for field in fields(SceneOptions)}
    command(first=1, last=True, **given | {"batch": 4})
    assert seen == [(1, SceneOptions(batch=4), True)]
