"""Reports as HTML and Markdown: they parse, hold the same, and nothing in a text becomes markup."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sfiin.evaluation.document import Cell, Document, Paragraph, Picture, Section, table, to_html, to_markdown

Page = Callable[[str], Any]
Rows = Callable[[str], list[list[str]]]

PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)
NASTY = "a|b <script>x</script> *c* _d_ `e` [f](g) # h & \\ i"
BOLD = Cell("2.25 ± 0.1", True)
DOCUMENT = Document(
    "Title <1>",
    (
        Section("One", (Paragraph(NASTY), table("T", ("x", "y|z"), [("1.50", BOLD), (NASTY, "-3")]))),
        Section("Two", (Picture(PNG, 'a "picture"'), Paragraph("- no list"), Paragraph("1. no list"))),
    ),
)


def test_html_parses_and_needs_nothing_else(html_page: Page) -> None:
    page = html_page(to_html(DOCUMENT))
    assert not {"script", "link", "iframe"} & set(page.tags)
    sources = [value for name, value in page.attributes if name in ("src", "href")]
    assert sources == ["#s1", "#s2", sources[2]]
    assert str(sources[2]).startswith("data:image/png;base64,")
    assert NASTY in page.text
    assert "Title <1>" in page.text
    assert page.tags.count("strong") == 1


def test_both_hold_the_same_tables(html_page: Page, markdown_rows: Rows) -> None:
    rows = html_page(to_html(DOCUMENT)).rows
    assert rows == [["x", "y|z"], ["1.50", "2.25 ± 0.1"], [NASTY, "-3"]]
    assert markdown_rows(to_markdown(DOCUMENT)) == rows


def test_markdown_sees_no_markup_in_texts() -> None:
    text = to_markdown(DOCUMENT)
    assert "**2.25 ± 0.1**" in text
    assert r"\<script\>" in text
    assert "\n\\- no list" in text
    assert "\n1\\. no list" in text
    assert 'Figure (in the HTML report): a "picture"' in text


def test_a_row_of_another_length_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="2 cells"):
        table("T", ("x", "y"), [("1",)])
