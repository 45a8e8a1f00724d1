from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from runtime import backends, options
from runtime.errors import OutputError


def test_the_providers_are_the_backends() -> None:
    assert get_args(options.Provider)[0] == backends.Choice


def test_an_existing_output_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="--overwrite"):
        options.refuse_existing(tmp_path, overwrite=False)
    options.refuse_existing(tmp_path, overwrite=True)
    options.refuse_existing(tmp_path / "new.tif", overwrite=False)
