import pytest

from sfiin.runtime.toml import parse


def test_a_document_is_read_and_what_is_none_refused() -> None:
    assert parse("[a]\nb = [1, 2.5]") == {"a": {"b": [1, 2.5]}}
    with pytest.raises(ValueError, match="line 1"):
        parse("a = = 1")
