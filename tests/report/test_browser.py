"""The page in a real browser, where one is installed: what it draws, its menus, and its values."""

import html
import math
import re
import shutil
import subprocess

import pytest

from llfc_jax.report import page

from . import made
from .test_page import DETAILS, write

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--enable-logging=stderr", "--virtual-time-budget=30000", "--window-size=1280,900"),
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"no browser: none of {', '.join(NAMES)}")
# Runs a script once all figures are drawn, and says so when it is through.
WAIT = """<script id="test">
const ready = setInterval(async () => {
  if (!document.documentElement.dataset.drawn) return;
  clearInterval(ready);
  const pause = (ms) => new Promise((go) => setTimeout(go, ms));
  const turn = (selector, value) => {
    const control = document.querySelector(selector);
    const option = [...control.options].find((o) => o.textContent === value);
    control.value = option.value;
    control.dispatchEvent(new Event("change"));
  };
  SCRIPT
  document.body.dataset.done = "yes";
}, 50);
</script></body>"""


def open_page(text, folder, script="", *flags):
    """The document after `script` has run in it, and what the console said."""
    path = folder / "page.html"
    before, _, after = text.rpartition("</body>")
    path.write_text(before + WAIT.replace("SCRIPT", script) + after, "utf-8")
    flags = (*FLAGS, *flags, f"--user-data-dir={folder / 'profile'}")
    run = subprocess.run(
        [BROWSER, *flags, "--dump-dom", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert 'data-done="yes"' in run.stdout
    return run.stdout, [line for line in run.stderr.splitlines() if "CONSOLE" in line]


def figure(dom, number):
    """The markup of the figure at a place on the page; the first is the headline again."""
    return re.findall(r"<figure.*?</figure>", dom, re.DOTALL)[number]


def points(drawn):
    """What the drawn points say of themselves, as dictionaries."""
    found = re.findall(r'<path aria-label="([^"]*)"[^>]*aria-roledescription="point"', drawn)
    return [dict(part.split(": ", 1) for part in html.unescape(f).split("; ")) for f in found]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write(tmp_path_factory.mktemp("page") / "report.html")


def test_every_figure_is_drawn_from_the_rows(text, tmp_path):
    dom, console = open_page(text, tmp_path)
    assert console == []
    for number, chart in enumerate((made.LMC.charts[0], *made.LMC.charts, *made.LLFC.charts)):
        drawn = figure(dom, number)
        assert html.escape(chart.x_label) in drawn
        assert "spawn_k5 · aligned by weight" in drawn
    drawn = points(figure(dom, 1))
    assert len(drawn) == len(made.lmc_rows())
    row = next(r for r in made.lmc_rows() if r["pair"] == "independent" and r["alpha"] == 0.5)
    values = {float(p["error"]) for p in drawn if p["pair"] == "independent"}
    assert any(math.isclose(value, row["error"], rel_tol=1e-3) for value in values)
    assert "α = 0.5" in figure(dom, 3)
    assert "var(--c0)" in figure(dom, 1)  # colours follow the theme


def test_menus_move_all_charts_and_tables(text, tmp_path):
    script = """
      document.querySelector("details[data-section=llfc]").open = true;
      await pause(100);
      turn("select[name=align]", "weight");
      turn("select[name=alpha]", "0.9");
      document.querySelectorAll("figure")[4].querySelector("button.scale").click();
      document.getElementById("theme").click();
      await pause(2000);
    """
    dom, console = open_page(text, tmp_path, script)
    assert console == []
    for number in range(7):
        drawn = figure(dom, number)
        assert "spawn_k5 · aligned by weight" in drawn
        assert "spawn_k5 · not aligned" not in drawn
    assert "α = 0.9" in figure(dom, 3)
    row = next(r for r in made.llfc_rows() if (r["layer"], r["alpha"]) == ("Dense_0", 0.9))
    values = [p for p in points(figure(dom, 3)) if p["layer, in depth order"] == "Dense_0"]
    assert float(values[0]["1 - cosine"]) == pytest.approx(0.15 * row["distance"], rel=2e-2)
    assert "Logarithmic scale" in figure(dom, 4)
    assert "values below" not in figure(dom, 4)
    assert "The first 200 of 231 rows; all 462 are in llfc.csv" in dom
    assert 'data-theme="dark"' in dom


def test_the_pointer_reads_a_value_and_the_legend_picks_a_line(text, tmp_path):
    script = """
      const plot = document.querySelectorAll("figure")[1].querySelector("svg");
      plot.scrollIntoView({ behavior: "instant", block: "center" });
      const label = [...plot.querySelectorAll("text")].find((t) => t.textContent === "train");
      const mark = [...plot.querySelectorAll("path[aria-roledescription=point]")].find((p) =>
        p.getAttribute("aria-label").includes("pair: independent"));
      const { left, top, width } = mark.getBoundingClientRect();
      const at = { bubbles: true, clientX: left + width / 2, clientY: top + 2 };
      const over = document.elementFromPoint(at.clientX, at.clientY);
      for (const kind of ["pointerover", "pointermove", "mousemove"])
        over.dispatchEvent(new PointerEvent(kind, at));
      await pause(300);
      document.body.dataset.tip = document.getElementById("vg-tooltip-element").innerText;
      const entry = label.getBoundingClientRect();
      const on = { bubbles: true, clientX: entry.left + 3, clientY: entry.top + 3 };
      document.elementFromPoint(on.clientX, on.clientY)?.dispatchEvent(new MouseEvent("click", on));
      await pause(500);
    """
    dom, console = open_page(text, tmp_path, script)
    assert console == []
    tip = re.search(r'data-tip="([^"]*)"', dom)
    assert tip is not None
    said = html.unescape(tip[1]).split()
    rows = [r for r in made.lmc_rows() if (r["pair"], r["align"]) == ("independent", "none")]
    assert {"independent", "none"} <= {*said}
    assert {f"{row['error']:.4g}" for row in rows} & {*said}
    assert {p["split"] for p in points(figure(dom, 1))} == {"train"}


def test_nothing_is_wider_than_the_screen(text, tmp_path):
    # headless windows have a smallest width: a frame of the wanted width stands in for the phone
    (tmp_path / "inner.html").write_text(text, "utf-8")
    frames = "".join(
        f'<iframe src="inner.html" style="width:{width}px;height:900px"></iframe>'
        for width in (390, 1280)
    )
    script = """
      const frames = [...document.querySelectorAll("iframe")];
      const pages = () => frames.map((frame) => frame.contentDocument.documentElement);
      while (pages().some((page) => !page.dataset.drawn)) await pause(100);
      const words = pages().map((page) => `wide ${page.scrollWidth} of ${page.clientWidth};`);
      document.title = words.join(" ");
    """
    outer = f'<html data-drawn="1"><body>{frames}</body></html>'
    dom, _ = open_page(outer, tmp_path, script, "--allow-file-access-from-files")
    found = re.findall(r"wide (\d+) of (\d+);", dom)
    assert len(found) == 2
    assert all(int(wide) <= int(screen) + 1 for wide, screen in found)


def test_hostile_names_stay_names(tmp_path):
    evil = "</script><img src=x onerror=\"document.title='owned'\">"
    rows = [row | {"pair": evil, "split": evil + row["split"]} for row in made.lmc_rows()]
    text = write(
        tmp_path / "report.html",
        title=evil,
        verdicts=[page.Verdict(evil)],
        sections=[(made.LMC, rows)],
        details=DETAILS | {evil: evil},
    )
    dom, console = open_page(text, tmp_path)
    assert console == []
    assert '<img src="x"' not in dom
    assert "<title>owned" not in dom
