"""The page in a real browser, where one is installed."""

import dataclasses
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
    *("--enable-logging=stderr", "--virtual-time-budget=4000", "--window-size=1280,900"),
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"no browser: none of {', '.join(NAMES)}")


def open_page(text, folder, script=""):
    """The document after `script` has run in it, and what the console said."""
    wait = f"window.addEventListener('load', () => setTimeout(() => {{ {script} }}, 300));"
    path = folder / "page.html"
    path.write_text(text.replace("</body>", f"<script id='test'>{wait}</script></body>"), "utf-8")
    run = subprocess.run(
        [BROWSER, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout, [line for line in run.stderr.splitlines() if "CONSOLE" in line]


def figure(dom, number):
    start = dom.index(f'id="figure-{number}"')
    return dom[start : dom.index("</figure>", start)]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write(tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture(scope="module")
def opened(text, tmp_path_factory):
    return open_page(text, tmp_path_factory.mktemp("browser"))


def test_the_console_is_silent(opened):
    assert opened[1] == []


def test_figures_are_drawn_from_the_rows(opened):
    for number, chart in enumerate((made.LMC.charts[0], *made.LMC.charts, *made.LLFC.charts), 1):
        drawn = figure(opened[0], number)
        assert drawn.count('class="stop"') == 6, chart.name
        assert chart.x_label in drawn
        assert "spawn_k5 · weight" in drawn


def test_the_same_lines_as_in_python(opened):
    drawn = figure(opened[0], 5)
    lines = re.findall(r'class="series" data-y="(\w+)" data-line="([^"]*)"', drawn)
    assert lines.count(("baseline", "")) == 6  # the same for every alpha, so drawn once
    assert len([line for line in lines if line[0] == "distance"]) == 6 * len(made.ALPHAS)
    assert "values below 10⁻⁸ are drawn at 10⁻⁸" in drawn


def test_choices_redraw(text, tmp_path):
    script = """
      const turn = (selector, change, event) => {
        const control = document.querySelector(selector);
        change(control);
        control.dispatchEvent(new Event(event));
      };
      turn('#figure-4 input[type=range]', (c) => { c.value = 9; }, 'input');
      turn('#figure-5 select', (c) => { c.value = 3; }, 'change');
      turn('#figure-4 select', (c) => { c.value = 3; }, 'change');
      turn('#figure-6 input[type=checkbox]', (c) => { c.checked = true; }, 'change');
      turn('details[data-table="1"] select', (c) => { c.value = 2; }, 'change');
      document.getElementById('theme').click();
    """
    dom, console = open_page(text, tmp_path, script)
    assert console == []
    assert "alpha = 0.9" in figure(dom, 4)
    assert set(re.findall(r'data-y="(\w+)"', figure(dom, 4))) == {"coefficient"}
    lines = re.findall(r'data-y="distance" data-line="([^"]*)"', figure(dom, 5))
    assert set(lines) == {"0.2"}
    assert "10⁻" in figure(dom, 6)
    assert "154 rows chosen of 462" in dom
    assert 'data-theme="dark"' in dom


def test_values_by_keyboard_and_pointer(text, tmp_path):
    script = """
      const stop = document.querySelectorAll('#figure-4 .stop')[0];
      stop.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowRight', bubbles: true }));
      const first = document.querySelectorAll('#figure-5 .stop')[0];
      const press = (target, key) =>
        target.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
      first.focus();
      press(first, 'PageDown');
      for (const key of ['Home', 'ArrowDown', 'ArrowDown']) press(document.activeElement, key);
      const box = document.querySelectorAll('#figure-2 .stop')[4].getBoundingClientRect();
      document.querySelectorAll('#figure-2 .stop')[4].dispatchEvent(
        new PointerEvent('pointermove', {
          bubbles: true, clientX: box.left + box.width / 2, clientY: box.top + 5,
        }),
      );
    """
    dom, console = open_page(text, tmp_path, script)
    assert console == []
    row = next(r for r in made.llfc_rows() if r["layer"] == "Dense_0" and r["alpha"] == 0.5)
    spoken = re.search(r'aria-live="polite">([^<]*)', figure(dom, 4))
    assert spoken is not None
    assert spoken[1].startswith(f"spawn_k1 · none; Dense_0; 1 - cosine_alpha {row['distance']:.4g}")
    spoken = re.search(r'aria-live="polite">([^<]*)', figure(dom, 5))
    assert spoken is not None
    assert spoken[1].startswith("spawn_k1 · weight; Dense_0; alpha = 0.")
    assert len(re.findall(r"1 - cosine_alpha", spoken[1])) == 1  # of eleven lines, the one in front
    tip = figure(dom, 2).split('class="tip"')[1]
    assert "independent · none · alpha = 0.5" in tip
    row = [r for r in made.lmc_rows() if r["pair"] == "independent" and r["alpha"] == 0.5]
    assert f"{row[0]['error']:.4g}" in tip


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen(text, tmp_path, width):
    # headless windows have a smallest width: a frame of the wanted width stands in for the phone
    script = f"""
      document.getElementById('test').remove();
      const frame = document.createElement('iframe');
      frame.style.width = '{width}px';
      frame.srcdoc = document.documentElement.outerHTML.replace(/<meta http-equiv[^>]*>/, '');
      document.body.replaceChildren(frame);
      setTimeout(() => {{
        const inner = frame.contentDocument.documentElement;
        document.title = `wide ${{inner.scrollWidth}} of ${{inner.clientWidth}}`;
      }}, 1500);
    """
    dom, _ = open_page(text.replace("default-src 'none';", "default-src *;"), tmp_path, script)
    wide = re.search(r"wide (\d+) of (\d+)", dom)
    assert wide is not None
    assert int(wide[1]) <= int(wide[2]) + 1


def test_an_axis_ends_where_the_values_do(tmp_path):
    rows = made.lmc_rows()
    nothing = dict.fromkeys(made.LMC.charts[0].y, math.nan)
    beyond = [row | nothing | {"alpha": 50.0} for row in rows[:1]]
    text = write(tmp_path / "report.html", sections=[(made.LMC, rows + beyond, [])])
    drawn = figure(open_page(text, tmp_path)[0], 1)
    ticks = re.findall(r'class="tick" text-anchor="middle"[^>]*>([^<]+)', drawn)
    assert ticks
    assert max(map(float, ticks)) == 1


def test_powers_along_x_stand_evenly_with_their_values_as_ticks(tmp_path):
    (chart,) = (c for c in made.LLFC.charts if c.x == "alpha" and c.lines)
    chart = dataclasses.replace(chart, x="width", log_x=True, lines=None)
    section = dataclasses.replace(made.LLFC, charts=(chart,))
    rows = [{"pair": "a", "width": w, "distance": 0.1 / w} for w in (0.5, 1.0, 2.0, 4.0)]
    text = write(tmp_path / "report.html", sections=[(section, rows, [])])
    drawn = figure(open_page(text, tmp_path)[0], 1)
    tick = r'<text x="([^"]+)"[^>]*class="tick" text-anchor="middle"[^>]*>([^<]+)'
    places, words = zip(*re.findall(tick, drawn), strict=True)
    assert words == ("0.5", "1", "2", "4")
    a, b, c, d = map(float, places)
    assert b - a == pytest.approx(c - b) == pytest.approx(d - c)


def test_hostile_names_stay_names(tmp_path):
    evil = "</script><img src=x onerror=\"document.title='owned'\">"
    rows = [row | {"pair": evil, "split": evil + row["split"]} for row in made.lmc_rows()]
    text = write(
        tmp_path / "report.html",
        title=evil,
        verdicts=[page.Verdict(evil)],
        sections=[(made.LMC, rows, [])],
        details=DETAILS | {evil: evil},
    )
    dom, console = open_page(text, tmp_path)
    assert console == []
    assert "<img" not in dom
    assert "<title>owned" not in dom
