"""What is a report made of, and how does it become HTML and Markdown?

A report is sections of paragraphs, tables and pictures, without any markup of its own. HTML holds all of it
in one file, pictures too; Markdown holds the same words and tables, and of a picture what it shows.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Paragraph:
    """Plain text."""

    text: str


@dataclass(frozen=True)
class Cell:
    """A table's cell: plain text, bold where it is the best of its column."""

    text: str
    bold: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header; all rows are as long as the header."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Picture:
    """A PNG file's bytes and what it shows."""

    png: bytes
    caption: str


@dataclass(frozen=True)
class Section:
    """A titled part of a report."""

    title: str
    parts: tuple[Paragraph | Table | Picture, ...]


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    sections: tuple[Section, ...]


def table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str | Cell]]) -> Table:
    """A table of texts and cells. Raises ValueError for a row that is not as long as the header."""
    if any(len(row) != len(header) for row in rows):
        raise ValueError(f"table '{caption}': every row needs {len(header)} cells")
    cells = tuple(tuple(Cell(item) if isinstance(item, str) else item for item in row) for row in rows)
    return Table(caption, tuple(header), cells)


def to_html(document: Document) -> str:
    """One file that needs no other: style and pictures are inside, and there is no script."""
    title = escape(document.title)
    sections = list(enumerate(document.sections, 1))
    links = "".join(f'<li><a href="#s{i}">{escape(section.title)}</a></li>' for i, section in sections)
    body = "\n".join(_html_section(f"s{i}", section) for i, section in sections)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{title}</h1>\n<nav><ol>{links}</ol></nav>\n{body}\n</body>\n</html>\n"
    )


def to_markdown(document: Document) -> str:
    """The same words, tables and numbers; a picture is its caption."""
    lines = [f"# {_plain(document.title)}"]
    for section in document.sections:
        lines.append(f"## {_plain(section.title)}")
        lines += [_markdown(part) for part in section.parts]
    return "\n\n".join(lines) + "\n"


def _html_section(anchor: str, section: Section) -> str:
    parts = "\n".join(_html(part) for part in section.parts)
    return f'<section id="{anchor}">\n<h2>{escape(section.title)}</h2>\n{parts}\n</section>'


def _html(part: Paragraph | Table | Picture) -> str:
    if isinstance(part, Paragraph):
        return f"<p>{escape(part.text)}</p>"
    if isinstance(part, Picture):
        data, caption = base64.b64encode(part.png).decode("ascii"), escape(part.caption)
        image = f'<img alt="{caption}" src="data:image/png;base64,{data}">'
        return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"
    head = "".join(f"<th>{escape(name)}</th>" for name in part.header)
    rows = "\n".join(f"<tr>{''.join(_html_cell(cell) for cell in row)}</tr>" for row in part.rows)
    return (
        f'<div class="wide"><table><caption>{escape(part.caption)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


def _html_cell(cell: Cell) -> str:
    text = escape(cell.text)
    return f"<td><strong>{text}</strong></td>" if cell.bold else f"<td>{text}</td>"


def _markdown(part: Paragraph | Table | Picture) -> str:
    if isinstance(part, Paragraph):
        return _plain(part.text)
    if isinstance(part, Picture):
        return f"Figure (in the HTML report): {_plain(part.caption)}"
    rows = [[_bold(cell) for cell in row] for row in part.rows]
    body = [[_plain(name) for name in part.header], ["---"] * len(part.header), *rows]
    return "\n".join([f"{_plain(part.caption)}", "", *(f"| {' | '.join(row)} |" for row in body)])


def _bold(cell: Cell) -> str:
    return f"**{_plain(cell.text)}**" if cell.bold else _plain(cell.text)


def _plain(text: str) -> str:
    """Text in which Markdown sees no markup: one line, its signs escaped."""
    line = re.sub(r"([\\`*_\[\]<>|~#&])", r"\\\1", " ".join(text.split()))
    return re.sub(r"^(\d*)([-+.)])(?= )", r"\1\\\2", line)  # else a list would begin here


_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff; max-width: 76rem;
  margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.3rem; margin-top: 2.6rem; border-bottom: 1px solid #ccc; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: 0.3rem; }
th, td { text-align: left; padding: 0.15rem 0.8rem 0.15rem 0; border-bottom: 1px solid #e4e4e4;
  vertical-align: top; overflow-wrap: anywhere; min-width: 3.2rem; }
figure { margin: 1.4rem 0; } img { max-width: 100%; height: auto; }
figcaption { font-size: 0.9rem; color: #444; }
"""
