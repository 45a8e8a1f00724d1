from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import typer

from sfiin.runtime.backends import select
from sfiin.runtime.commands import options
from sfiin.runtime.errors import OutputError


def test_the_providers_are_the_backends() -> None:
    assert get_args(options.Provider)[0] == select.Choice


def test_an_existing_output_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="--overwrite"):
        options.refuse_existing(tmp_path, overwrite=False)
    options.refuse_existing(tmp_path, overwrite=True)
    options.refuse_existing(tmp_path / "new.tif", overwrite=False)


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("512M", 512 << 20), ("2G", 2 << 30), ("3KiB", 3072), ("4GB", 4 << 30)]
)
def test_sizes(text: str, size: int) -> None:
    assert options.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "2T", "1.5G", "G"])
def test_what_is_no_size(text: Any) -> None:
    with pytest.raises(typer.BadParameter):
        options.parse_size(text)
