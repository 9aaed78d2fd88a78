import base64
import dataclasses
import json
import math
import re
import time
import zlib
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import escape

from llfc_jax.report import html, page
from llfc_jax.report.numbers import clean

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
            i for i, e in enumerate(self.elements) if e[1].get("type") == "application/octet-stream"
        )
        return json.loads(zlib.decompress(base64.b64decode(self.script[place + 1])))


SECTIONS = [(made.LMC, made.lmc_rows()), (made.LLFC, made.llfc_rows())]


def write(path, rows=made.SUMMARY, spread=None, columns=made.SUMMARY_COLUMNS, **changes):
    given = {
        "title": "Two networks",
        "lead": "What they are.",
        "tables": [page.Table(rows, columns, spread=spread or {})],
        "verdicts": [page.Verdict("Plain `words`."), page.Verdict("Connected.", "holds")],
        "sections": SECTIONS,
        "details": DETAILS,
    }
    page.write_page(path, page.Report(**(given | changes)))
    return path.read_text("utf-8")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write(tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture(scope="module")
def parsed(text):
    return Page(text)


def test_nothing_is_fetched(parsed, text):
    for _, attrs, _ in parsed.elements:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert attrs.get(name, "#").startswith(("#", "data:")), attrs
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_the_pages_vega_knows_the_specs_of_altair(text):
    altair = pytest.importorskip("altair")
    held = re.search(r"Vega-Lite (\d+)\.(\d+)", text)
    assert held is not None
    assert altair.SCHEMA_VERSION.startswith(f"v{held[1]}.")


def test_identifiers_are_unique_and_links_lead_somewhere(parsed):
    ids = [attrs["id"] for _, attrs, _ in parsed.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    for _, attrs, _ in parsed.elements:
        if attrs.get("href", "").startswith("#"):
            assert attrs["href"][1:] in ids


def test_figures_say_what_they_show(parsed):
    plots = [a for a in parsed.all("div") if a.get("class") == "plot"]
    assert len(plots) == len(parsed.all("figure")) == len(parsed.all("figcaption")) == 7
    assert all(a["role"] == "img" and a["aria-label"] for a in plots)


def test_tables_are_tables(parsed):
    assert len(parsed.all("table")) == len(parsed.all("caption")) == 1 + 3
    assert all(attrs.get("scope") == "col" for attrs in parsed.all("th"))


def test_everything_is_said(parsed):
    said = " ".join(parsed.text)
    for words in (
        *("Two networks", "What they are.", "Holds: ", "Connected.", "not connected"),
        *(chart.caption for s in (made.LMC, made.LLFC) for chart in s.charts),
        *("data.name", "digits", "0.10.2"),
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


def test_the_page_holds_what_it_lists_and_what_it_draws(parsed):
    data = parsed.data()
    rows = made.llfc_rows()
    listed = data["sections"]["llfc"]["rows"]
    assert [row["layer"] for row in listed] == [row["layer"] for row in rows]
    wanted = [row["distance"] for row in rows]
    assert [row["distance"] for row in listed] == pytest.approx(wanted, rel=1e-5)
    assert "left_out" not in listed[0]  # only what is listed
    assert [chart["name"] for chart in data["charts"][:2]] == ["lmc_error", "lmc_loss"]
    drawn = [p for p in data["charts"][2]["points"] if p["column"] == "1 - cosine_alpha"]
    assert [point["value"] for point in drawn] == pytest.approx(wanted, rel=1e-5)
    assert all("values" not in spec["data"] for c in data["charts"] for spec in c["specs"])


def test_choices_are_shared_by_the_charts_that_have_them(parsed):
    data = parsed.data()
    menus = {menu["column"]: menu for menu in data["choices"]}
    assert list(menus) == ["pair", "align", "alpha"]
    assert menus["align"]["values"] == [None, "none", "weight"]
    assert (menus["alpha"]["value"], len(menus["alpha"]["values"])) == (0.5, 11)
    shared = {"by_pair": "pair", "by_align": "align"}
    choices = {chart["name"]: chart["choices"] for chart in data["charts"]}
    assert choices["lmc_error"] == choices["llfc_alphas"] == shared
    assert choices["llfc_layers"] == shared | {"by_alpha": "alpha"}


def test_charts_that_pin_unlike_values_keep_theirs(tmp_path):
    charts = made.LLFC.charts
    other = dataclasses.replace(charts[0], name="other", where={"alpha": 0.9})
    section = dataclasses.replace(made.LLFC, charts=(charts[0], other))
    data = Page(write(tmp_path / "p.html", sections=[(section, made.llfc_rows())])).data()
    assert [menu["column"] for menu in data["choices"]] == ["pair", "align"]


def test_a_chart_of_what_was_not_measured_is_left_out(tmp_path):
    rows = [row | {"error": float("nan")} for row in made.lmc_rows()]
    parsed = Page(write(tmp_path / "p.html", sections=[(made.LMC, rows)]))
    assert [chart["name"] for chart in parsed.data()["charts"]] == ["lmc_loss"]
    assert len(parsed.all("figure")) == 2  # the headline, and in its section


def test_the_headline_can_be_chosen(tmp_path):
    parsed = Page(write(tmp_path / "report.html", headline="llfc_layers"))
    first = parsed.all("figure")[0]["data-chart"]
    assert parsed.data()["charts"][int(first)]["name"] == "llfc_layers"


def test_deviations_stand_beside_their_numbers(tmp_path):
    rows = [row | {"half": 0.004} for row in made.SUMMARY]
    text = write(tmp_path / "report.html", rows=rows, spread={"baseline": "half"})
    assert "0.210 ± 0.004" in text


def test_a_summary_for_a_notebook():
    shown = html.summary([page.Verdict("Not `a` <b>.")], made.SUMMARY, {"barrier": "error barrier"})
    assert "<li>Not <code>a</code> &lt;b&gt;.</li>" in shown
    parsed = Page(shown)
    assert len(parsed.all("tr")) == 1 + len(made.SUMMARY)
    assert "independent" in parsed.text


def test_an_empty_run(tmp_path):
    section = dataclasses.replace(made.LLFC, charts=made.LLFC.charts[:1])
    text = write(
        tmp_path / "report.html",
        rows=[],
        verdicts=[],
        sections=[(section, [])],
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
        verdicts=[page.Verdict(c)],
        sections=[(section, rows)],
        rows=[{"pair": d, "flags": [e, a]}],
        details={a: b, f"x{c}": {d: {e: a}}},
    )
    parsed = Page(text)
    assert len(parsed.all("script")) == 3
    allowed = re.compile(r"(?!on)[a-z:-]+", re.IGNORECASE)
    assert all(allowed.fullmatch(name) for _, attrs, _ in parsed.elements for name in attrs)
    drawn = parsed.data()["charts"][0]["points"]
    assert {point["line"] for point in drawn} == {clean(f"{e}train"), clean(f"{e}test")}
    assert str(escape(clean(a))) in text


@given(HOSTILE)
def test_embedded_json_reads_back(word):
    text = page.embed({"word": word})
    assert json.loads(zlib.decompress(base64.b64decode(text))) == {"word": word}
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
    text = write(tmp_path / "report.html", sections=[(section, rows)])
    assert time.process_time() - start < 10  # under 1 s where nothing else runs
    assert len(text) < 2e6, len(text)


def test_many_sentences_are_folded_and_columns_without_content_left_out(tmp_path):
    many = [page.Verdict(f"Sentence {i}.") for i in range(page.FIRST + 3)]
    rows = [row | {"error": math.nan} for row in made.lmc_rows()]
    text = write(tmp_path / "report.html", verdicts=many, sections=[(made.LMC, rows)])
    parsed = Page(text)
    assert "3 more" in "".join(parsed.text)
    folded = [inside for tag, _, inside in parsed.elements if tag == "li" and "details" in inside]
    assert len(folded) == 3
    assert "error" not in parsed.data()["sections"]["lmc"]["columns"]
    assert "loss" in parsed.data()["sections"]["lmc"]["columns"]
