"""One page that shows a run: it opens offline, alone, on any screen, with or without scripts."""

import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from llfc_jax.report import document, markup, settings
from llfc_jax.report.markup import escape, inline, prose, tag
from llfc_jax.report.sections import Book, Files, Rows
from llfc_jax.results import Section

TONES = {"holds": "✓", "fails": "✗", "warning": "!", "plain": "–"}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A finding in one sentence of plain words, with `code` in backticks.

    Attributes:
        text: the sentence.
        tone: its mark: "holds" a tick, "fails" a cross, "warning" an exclamation mark.
    """

    text: str
    tone: Literal["plain", "holds", "fails", "warning"] = "plain"


def write_page(
    path: str | os.PathLike[str],
    *,
    title: str,
    lead: str,
    summary_rows: Rows,
    summary_columns: Mapping[str, str],
    verdicts: Iterable[Verdict | str],
    sections: Iterable[tuple[Section, Rows, Files]],
    details: Mapping[str, Any],
    headline: str | None = None,
) -> None:
    """Write the page of a run, whole or not at all.

    Args:
        path: the HTML file.
        title: heading of the page.
        lead: a sentence or two below it.
        summary_rows: one row per pair and alignment.
        summary_columns: column of these rows -> heading; a cell that is a list of words is flags.
        verdicts: what was found, in words.
        sections: per measure its words and charts, its rows, and the SVG files of its charts in
            order (`figures.save_all`); a chart without a file is drawn here.
        details: how it was made (config, versions, device, seed); nested mappings are folded.
        headline: name of the chart on the first screen; the first chart by default.
    """
    book = Book(headline)
    parts = [book.add(*section) for section in sections]
    summary = markup.table(summary_rows, summary_columns, "Summary: one row per pair and alignment")
    document.write(
        path,
        title,
        nav=[*book.links, ("details", "Details")],
        main="".join(
            (
                opening(title, lead, verdicts, book.first),
                tag("div", summary, class_="summary"),
                *parts,
                settings.section(details),
            )
        ),
        data=book.data(),
    )


def opening(title: str, lead: str, verdicts: Iterable[Verdict | str], figure: str) -> str:
    """The first screen: what this is, what was found, and a figure of it."""
    head = tag("header", tag("h1", escape(title)), tag("div", prose(lead), class_="lead"))
    found = tag("ul", *(_verdict(v) for v in verdicts), class_="verdicts")
    return head + tag("div", found, figure, class_="first")


def _verdict(verdict: Verdict | str) -> str:
    verdict = Verdict(verdict) if isinstance(verdict, str) else verdict
    spoken = "" if verdict.tone == "plain" else f"{verdict.tone.capitalize()}: "
    return tag(
        "li",
        tag("span", TONES[verdict.tone], class_="mark", aria_hidden="true"),
        tag("span", tag("span", spoken, class_="hidden"), inline(verdict.text)),
        class_=verdict.tone,
    )
