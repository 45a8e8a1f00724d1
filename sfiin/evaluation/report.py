"""How does a model compare, and what does it look like inside? The evaluation as a report.

It is made in three steps: `report_data.gather` opens everything and refuses what does not fit,
`report_data.measure` runs all methods on all pairs, and `assemble` turns what came out into sections. `write`
publishes it as HTML and as Markdown.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sfiin.evaluation import sections
from sfiin.evaluation.document import Document, Section, to_html, to_markdown
from sfiin.evaluation.report_data import Measured, ReportData
from sfiin.runtime.files import publish

SECTIONS: dict[str, Callable[[ReportData, Measured], sections.Parts]] = {
    "What was evaluated": sections.what,
    "Quality at reduced resolution": sections.reduced_resolution,
    "Quality at full resolution": sections.full_resolution,
    "Error maps": sections.error_maps,
    "Features": sections.features,
    "Amplitude and phase": sections.phases,
    "Ablation": sections.ablation,
}


def assemble(data: ReportData, measured: Measured, watch: Callable[[str], None] = lambda _: None) -> Document:
    """The report; `watch` gets each section's title."""
    sections = []
    for title, section in SECTIONS.items():
        watch(title)
        sections.append(Section(title, tuple(section(data, measured))))
    return Document(f"Evaluation of {data.request.model.name}", tuple(sections))


def write(path: Path, document: Document) -> None:
    """Write the HTML to `path` and the Markdown beside it, under the same stem, once both are complete.

    Raises OutputError; nothing half-written is left.
    """
    with publish(path) as page, publish(path.with_suffix(".md")) as text:
        page.write_text(to_html(document), encoding="utf-8")
        text.write_text(to_markdown(document), encoding="utf-8")
