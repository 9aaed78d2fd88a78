import dataclasses
import functools
import json
import re
import tempfile
import time
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llfc_jax.report import figures, markup, page

from . import made

VOID = {"meta", "link", "br", "input", "img", "hr"}
DETAILS = {
    "seed": 0,
    "device": "cpu",
    "config": {"data": {"name": "digits"}, "alphas": made.ALPHAS, "empty": {}},
    "versions": {"jax": "0.10.2"},
}


class Page(HTMLParser):
    """Parses a page and checks on the way that its elements are balanced."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text, self.script = [], [], [], {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), attrs
        self.elements.append((tag, dict(attrs), tuple(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), tuple(self.open)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("script", "style"):
            self.script[len(self.elements)] = data
        else:
            self.text.append(data)

    def all(self, tag):
        return [attrs for name, attrs, _ in self.elements if name == tag]

    def data(self):
        place = next(
            i for i, e in enumerate(self.elements) if e[1].get("type") == "application/json"
        )
        return json.loads(self.script[place + 1])


@functools.cache
def sections():
    """The sections of a run, drawn once for all tests."""
    folder = tempfile.mkdtemp()
    run = ((made.LMC, made.lmc_rows()), (made.LLFC, made.llfc_rows()))
    return [(s, rows, figures.save_all(s, rows, folder)) for s, rows in run]


def write(path, **changes):
    given = {
        "title": "Two networks",
        "lead": "What they are.",
        "summary_rows": made.SUMMARY,
        "summary_columns": made.SUMMARY_COLUMNS,
        "verdicts": ["Plain `words`.", page.Verdict("Connected.", "holds")],
        "sections": sections(),
        "details": DETAILS,
    }
    page.write_page(path, **(given | changes))
    return path.read_text("utf-8")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write(tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture(scope="module")
def parsed(text):
    return Page(text)


def test_nothing_is_fetched(parsed, text):
    for _, attrs, _ in parsed.elements:
        for name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            assert attrs.get(name, "#").startswith(("#", "data:")), attrs
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert "default-src 'none'" in text


def test_identifiers_are_unique_and_links_lead_somewhere(parsed):
    ids = [attrs["id"] for _, attrs, _ in parsed.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    for _, attrs, _ in parsed.elements:
        for name in ("href", "xlink:href"):
            if attrs.get(name, "").startswith("#"):
                assert attrs[name][1:] in ids
        for used in re.findall(r"url\(#([^)]*)\)", " ".join(filter(None, attrs.values()))):
            assert used in ids


def test_pictures_say_what_they_show(parsed):
    pictures = [a for name, a, within in parsed.elements if name == "svg" and "svg" not in within]
    assert len(pictures) == 7  # six charts, the first of them also on the first screen
    assert all(a["role"] == "img" and a["aria-label"] for a in pictures)
    assert parsed.all("img") == []
    assert len(parsed.all("figcaption")) == len(parsed.all("figure")) == 7


def test_tables_are_tables(parsed):
    assert len(parsed.all("table")) == len(parsed.all("caption")) == 1 + 2 + 3
    assert all(attrs.get("scope") in ("col", "row") for attrs in parsed.all("th"))


def test_everything_is_said(parsed):
    said = " ".join(parsed.text)
    for words in (
        *("Two networks", "What they are.", "Holds: ", "Connected.", "not connected"),
        *(chart.caption for s in (made.LMC, made.LLFC) for chart in s.charts),
        *("data.name", "digits", "0.10.2", "all of them are in llfc.csv"),
    ):
        assert words in said, words
    assert "words" in said
    assert "`" not in said


def test_landmarks(parsed):
    assert [a["id"] for a in parsed.all("main")] == ["main"]
    assert len(parsed.all("h1")) == 1
    assert parsed.all("a")[0] == {"class": "skip", "href": "#main"}
    assert parsed.all("html") == [{"lang": "en"}]
    assert any(a.get("name") == "viewport" for a in parsed.all("meta"))


def test_the_rows_are_embedded(parsed):
    data = parsed.data()
    rows = made.llfc_rows()
    columns = data["tables"][1]["columns"]
    names, codes = columns["layer"]["names"], columns["layer"]["codes"]
    assert [names[code] for code in codes] == [row["layer"] for row in rows]
    assert columns["distance"] == pytest.approx([row["distance"] for row in rows], rel=1e-5)
    assert "left_out" not in columns  # only what is drawn or listed
    assert [chart["name"] for chart in data["charts"][:3]] == ["lmc_error", "lmc_error", "lmc_loss"]


def test_the_headline_can_be_chosen(tmp_path):
    parsed = Page(write(tmp_path / "report.html", headline="llfc_layers"))
    plain = [a["id"] for a in parsed.all("figure") if "data-plain" in a]
    charts = {chart["id"]: chart["name"] for chart in parsed.data()["charts"]}
    assert [charts[name] for name in plain] == ["llfc_layers"]


def test_the_same_results_give_the_same_page(tmp_path, text):
    """Whether its figures were drawn before or are drawn for it."""
    undrawn = [(section, rows, []) for section, rows, _ in sections()]
    assert write(tmp_path / "report.html", sections=undrawn) == text


def test_an_empty_run(tmp_path):
    section = dataclasses.replace(made.LLFC, charts=made.LLFC.charts[:1])
    text = write(
        tmp_path / "report.html",
        summary_rows=[],
        verdicts=[],
        sections=[(section, [], [])],
        details={},
    )
    Page(text)
    Page(write(tmp_path / "report.html", sections=[]))


HOSTILE = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        [
            *("</script><script>alert(1)</script>", "<!--<script>", "]]>", "--!>", "\x00\ud800"),
            *(
                '" onload="alert(1)',
                "' autofocus onfocus='x",
                "&lt;b&gt;",
                "`<b>`",
                "${1}",
                "\\u003c",
            ),
        ]
    ),
)


@settings(max_examples=8, deadline=None)
@given(st.lists(HOSTILE, min_size=5, max_size=5))
def test_hostile_words_are_shown_and_never_obeyed(tmp_path_factory, words):
    a, b, c, d, e = words
    chart = dataclasses.replace(
        *made.LMC.charts[:1], title=a, caption=b, x_label=c, y_label=d, y={"error": e}
    )
    section = dataclasses.replace(made.LMC, title=b, text=c, charts=(chart,), columns={"pair": d})
    rows = [row | {"pair": a, "split": e + row["split"]} for row in made.lmc_rows(aligns=("none",))]
    rows = rows[:22]
    path = tmp_path_factory.mktemp("hostile") / "report.html"
    text = write(
        path,
        title=a,
        lead=b,
        verdicts=[c],
        sections=[(section, rows, [])],
        summary_rows=[{"pair": d, "flags": [e, a]}],
        details={a: b, f"x{c}": {d: {e: a}}},
    )
    parsed = Page(text)
    assert len(parsed.all("script")) == 2
    allowed = re.compile(r"(?!on)[a-z:-]+", re.IGNORECASE)
    assert all(allowed.fullmatch(name) for _, attrs, _ in parsed.elements for name in attrs)
    split = parsed.data()["tables"][0]["columns"]["split"]
    assert split["names"] == [f"{e}train", f"{e}test"]
    assert markup.escape(a) in text


@given(HOSTILE)
def test_embedded_json_reads_back(word):
    text = markup.embed({"word": word})
    assert json.loads(text) == {"word": word}
    assert not set("<>&") & set(text)


def test_size_and_time(tmp_path):
    rows = made.llfc_rows([f"blocks_{i}/Conv_0" for i in range(60)])
    rows += [row | {"pair": "spawn_k9"} for row in rows[: 5000 - len(rows)]]
    charts = tuple(
        dataclasses.replace(chart, name=f"{chart.name}_{i}")
        for i in range(3)
        for chart in made.LLFC.charts[: 4 if i < 2 else 2]
    )
    assert (len(charts), len(rows)) == (10, 5000)
    section = dataclasses.replace(made.LLFC, charts=charts)
    start = time.process_time()
    text = write(tmp_path / "report.html", sections=[(section, rows, [])])
    assert time.process_time() - start < 30  # under 10 s where nothing else runs
    assert len(text) < 2.5e6, len(text)
