"""The report as a browser shows it, on a phone and on a wide screen, in both themes."""

import json
import re
import shutil
import struct
import subprocess
import zlib
from html import escape, unescape

import pytest

from poise.report import render
from tests.report import sample_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium, chromium-browser or google-chrome"),
]

WIDTHS = (1280, 360)
THEMES = ("light", "dark")

# Measures one laid-out document; runs in the page around it.
MEASURE = """
const seen = [];
function shown(e) { return !(e.closest('details:not([open])') && !e.closest('summary')); }
function colour(s) { return s.match(/[\\d.]+/g).map(Number); }
function luminance(c) {
  const [r, g, b] = c.slice(0, 3).map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function contrast(a, b) {
  const [x, y] = [luminance(a), luminance(b)].sort((p, q) => q - p);
  return (x + 0.05) / (y + 0.05);
}
function ground(e) {
  for (; e; e = e.parentElement) {
    const c = colour(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c;
  }
}
function rows(rects) {
  let overlaps = 0;
  for (let i = 0; i < rects.length; i++) for (let j = 0; j < i; j++) {
    const [a, b] = [rects[i], rects[j]];
    if (a.left < b.right && b.left < a.right && a.top + 1 < b.bottom && b.top + 1 < a.bottom) overlaps++;
  }
  return overlaps;
}
function measure(frame) {
  const d = frame.contentDocument, all = [...d.body.querySelectorAll('*')].filter(shown);
  const words = all.filter(e => e.closest('svg') === null
    && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()));
  const rect = e => e.getBoundingClientRect();
  const range = e => { const r = d.createRange(); r.selectNodeContents(e); return r.getBoundingClientRect(); };
  const free = words.filter(e => !e.closest('.scroll'));
  const charts = [...d.querySelectorAll('.chart')];
  const marks = [...d.querySelectorAll('svg path.stroke, svg path.dot')];
  return {
    inner: frame.contentWindow.innerWidth,
    scroll: d.scrollingElement.scrollWidth,
    words: free.length,
    outside: free.filter(e => range(e).right > d.documentElement.clientWidth + 0.5 || range(e).left < -0.5)
      .map(e => e.textContent.slice(0, 40)),
    contrast: Math.min(...words.map(e => contrast(colour(getComputedStyle(e).color), ground(e)))),
    marks: Math.min(...marks.map(e => contrast(colour(getComputedStyle(e).stroke), ground(d.body.parentElement)))),
    ticks: charts.map(c => rows([...c.querySelectorAll('span, .x-label, .y-label')].map(range))),
    legends: charts.filter(c => c.previousElementSibling)
      .map(c => rect(c.querySelector('svg')).top - rect(c.previousElementSibling).bottom),
    level: [...d.querySelectorAll('.figures')].map(f => [...f.querySelectorAll('.chart > svg')].map(s =>
      [Math.round(rect(s.closest('figure')).top), Math.round(rect(s).top * 10) / 10])),
    plot: charts.map(c => rect(c.querySelector('svg')).width),
    tiles: [...d.querySelectorAll('.tiles .value')].map(e =>
      [Math.round(rect(e.parentElement).top), Math.round(rect(e).top * 10) / 10]),
  };
}
addEventListener('load', () => {
  document.body.innerHTML = '<pre>' + JSON.stringify([...document.querySelectorAll('iframe')].map(measure)) + '</pre>';
});
"""


def browse(folder, *arguments):
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={folder / 'profile'}", *arguments, (folder / "around.html").as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120).stdout


def frame(document, width, height):
    # A frame is as wide as it is told to be; a window of headless Chromium is at least 500 pixels wide.
    style = f"border:0;display:block;width:{width}px;height:{height}px"
    return f'<iframe style="{style}" srcdoc="{escape(document)}"></iframe>'


@pytest.fixture(scope="module")
def documents():
    return {theme: render(sample_page.page(), theme=theme) for theme in THEMES}


@pytest.fixture(scope="module")
def layouts(documents, tmp_path_factory):
    folder = tmp_path_factory.mktemp("layout")
    frames = "".join(frame(documents[theme], width, 900) for theme in THEMES for width in WIDTHS)
    (folder / "around.html").write_text(f"<!doctype html><body>{frames}<script>{MEASURE}</script>", encoding="utf-8")
    dom = browse(folder, "--dump-dom", "--virtual-time-budget=10000")
    measured = json.loads(unescape(re.search(r"<pre>(\[.*\])</pre>", dom, re.DOTALL)[1]))
    keys = [(theme, width) for theme in THEMES for width in WIDTHS]
    return dict(zip(keys, measured, strict=True))


@pytest.fixture(params=[(theme, width) for theme in THEMES for width in WIDTHS], ids=lambda p: f"{p[0]}-{p[1]}")
def layout(request, layouts):
    return request.param[1], layouts[request.param]


def test_nothing_is_wider_than_the_screen(layout):
    width, measured = layout
    assert measured["inner"] == measured["scroll"] == width
    assert measured["words"] > 150
    assert measured["outside"] == []


def test_labels_do_not_overlap_and_legends_stay_above_the_curves(layout):
    _, measured = layout
    assert measured["ticks"] == [0] * 5
    assert len(measured["legends"]) == 4 and min(measured["legends"]) > 0
    assert min(measured["plot"]) > 230


def test_words_and_curves_stand_out_from_the_ground(layout):
    _, measured = layout
    assert measured["contrast"] >= 4.5
    assert measured["marks"] >= 3


def test_plots_and_tiles_side_by_side_stand_level(layout):
    width, measured = layout
    pairs = 0
    for figures in [*measured["level"], measured["tiles"]]:
        for place, (top, plot) in enumerate(figures):
            for other_top, other_plot in figures[:place]:
                if top == other_top:
                    pairs += 1
                    assert plot == other_plot
    assert pairs >= (10 if width == 1280 else 4)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("theme", THEMES)
def test_the_picture_of_the_page_is_not_blank(documents, theme, width, tmp_path):
    (tmp_path / "around.html").write_text(
        f"<!doctype html><body style='margin:0'>{frame(documents[theme], width, 1200)}", encoding="utf-8"
    )
    browse(tmp_path, f"--window-size={width},1200", f"--screenshot={tmp_path / 'page.png'}")
    size, corner, kinds = read_png((tmp_path / "page.png").read_bytes())
    assert size == (width, 1200)
    assert min(corner) > 240 if theme == "light" else max(corner) < 40
    assert kinds > 200


def read_png(data):
    """(size, colour of the first pixel, number of different rows as they are stored) of an 8-bit RGB(A) image."""
    place, body, header = 8, b"", None
    while place < len(data):
        (length,), kind = struct.unpack(">I", data[place : place + 4]), data[place + 4 : place + 8]
        chunk = data[place + 8 : place + 8 + length]
        header = struct.unpack(">IIBBBBB", chunk) if kind == b"IHDR" else header
        body += chunk if kind == b"IDAT" else b""
        place += length + 12
    width, height, depth, colour = header[:4]
    assert depth == 8 and colour in (2, 6)
    raw = zlib.decompress(body)
    stride = 1 + width * (3 if colour == 2 else 4)
    # The first pixel has no neighbours, so no filter changes it.
    return (width, height), tuple(raw[1:4]), len({raw[k * stride : (k + 1) * stride] for k in range(height)})
