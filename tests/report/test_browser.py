"""All pages in a real browser: each asks for nothing and fits its width (`open_page`)."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from PIL import Image
from tests.report import examples
from tests.report.conftest import CHROMIUM
from tests.report.examples import NAN, build_report, changed, renamed

import kappaflow as kf
from kappaflow.cli.app import main
from kappaflow.report.diagnosis import render_diagnosis
from kappaflow.report.files import render
from kappaflow_studies.factors.page import render_factors
from kappaflow_studies.factors.trade_off import trade_off

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="no Chromium; set KAPPAFLOW_CHROMIUM"),
]


def factors_page():
    """Returns the page of a map with its curve."""
    matrix = np.random.default_rng(1).standard_normal((8, 8))
    factorization = kf.factor_linear(matrix)
    trials = trade_off(matrix, counts=(6, 8, 11), known={6: factorization})
    return render_factors(factorization, "w" * 300, trials=trials)


def tiled_page():
    """Returns the page of a map of hundreds of features, which is drawn in tiles."""
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((200, 200)))[0]
    return render_factors(kf.factor_linear(rotation, method="rotation"), "map.npy")


NOTHING_FINITE = [
    {"epoch": i, "train_nll_standardized": NAN, "validation_nll_standardized": 1e300}
    for i in (1, 2)
]
EMPTY = {"separations": [], "scores": [], "two_sample": None, "findings": []}
PAGES = {
    "report": lambda: render(build_report()),
    "one of each": lambda: render(build_report(layers=1, epochs=1, columns=1)),
    "1024 layers": lambda: render(build_report(layers=1024, columns=2)),
    "conditional": lambda: render(build_report(columns=2, **examples.compared_at_contexts())),
    "little": lambda: render(build_report(**EMPTY)),
    "nothing finite": lambda: render(build_report(curves=NOTHING_FINITE)),
    "300 columns": lambda: render(build_report(references=[], columns=300)),
    "wrong samples": lambda: render_diagnosis(examples.with_wrong_samples()),
    "ill-conditioned": lambda: render_diagnosis(examples.ill_conditioned()),
    "not finite": lambda: render_diagnosis(examples.not_finite()),
    "small error": lambda: render_diagnosis(examples.with_small_error()),
    "healthy": lambda: render_diagnosis(examples.healthy()),
    "factors": factors_page,
    "large map": tiled_page,
}


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (380, "dark")])
@pytest.mark.parametrize("name", PAGES)
def test_a_browser_draws_all_figures_and_asks_for_nothing(open_page, name, width, scheme):
    """On a desk and on a phone, light and dark: no error, no request, no sideways scrolling."""
    page = open_page(PAGES[name](), width=width, scheme=scheme)
    ink = page.evaluate("getComputedStyle(document.documentElement).color")
    assert (ink == "rgb(29, 33, 38)") == (scheme == "light")
    boxes = page.locator(".finding .evidence .plot")
    fits = "(boxes) => boxes.every((box) => box.scrollWidth <= box.clientWidth)"
    assert boxes.evaluate_all(fits)


def test_figures_follow_the_colors_of_the_page(open_page):
    """When the reader's screen turns dark, so do the figures, and paper is always light."""
    page = open_page(PAGES["report"]())
    line = page.locator("[data-figure=envelope] .js-line").last
    stroke = "(e) => getComputedStyle(e).stroke"
    light = line.evaluate(stroke)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(
        "(light) => [...document.querySelectorAll('[data-figure=envelope] .js-line')]"
        ".every((one) => getComputedStyle(one).stroke !== light)",
        arg=light,
    )
    dark = line.evaluate(stroke)
    assert light != dark
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert line.evaluate(stroke) == light
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert line.evaluate(stroke) == dark


@pytest.mark.parametrize("name", ["report", "ill-conditioned"])
def test_figures_follow_the_width_of_the_window(open_page, name):
    """Turning a phone or dragging a window leaves no figure wider than the page."""
    page = open_page(PAGES[name]())
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_function("document.documentElement.scrollWidth <= 390")
    page.wait_for_function(
        "[...document.querySelectorAll('[data-figure]')]"
        ".every((b) => b.querySelector('svg').clientWidth <= b.clientWidth)"
    )


BROKEN_WORDS = """() => {
  const broken = [], texts = document.createTreeWalker(document.querySelector("main"), 4);
  while (texts.nextNode()) {
    const node = texts.currentNode;
    if (node.parentElement.closest("svg, option") !== null) continue;
    for (const word of node.data.matchAll(/[\\w.,%]{2,24}/g)) {
      const range = document.createRange();
      range.setStart(node, word.index);
      range.setEnd(node, word.index + word[0].length);
      const lines = new Set([...range.getClientRects()].map((box) => Math.round(box.top)));
      if (lines.size > 1) broken.push(word[0]);
    }
  }
  return broken;
}"""
OUTSIDE = """() => [...document.querySelectorAll("main *")].filter((one) => {
  const box = one.getBoundingClientRect();
  return one.closest("svg") === null && (box.left < 0 || box.right > innerWidth + 0.5);
}).map((one) => one.outerHTML.slice(0, 200))"""


def test_a_phone_breaks_no_word_and_shows_each_element(open_page):
    """With unfolded settings: all is inside a width of 420 pixels."""
    page = open_page(render(build_report(columns=14)), width=420, scheme="dark")
    page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    assert page.evaluate(BROKEN_WORDS) == []
    assert page.evaluate(OUTSIDE) == []


def test_long_words_do_not_widen_a_phone(open_page):
    """A title, a path or a value without a space wraps."""
    plain = build_report(columns=2)
    word = "w" * 300
    about = plain.about.model_copy(update={"title": word, "data": [(word, word)]})
    finding = replace(
        plain.result.findings[0], layer=word, message=word, fix=word, evidence={word: word}
    )
    report = changed(
        plain,
        about=about,
        notes=[word],
        verdict=word,
        findings=[finding],
        test=plain.result.test.model_copy(update={"name": word}),
        parts=[],
        two_sample=renamed(plain.charts.two_sample, word),
        separations=[plain.result.separations[0].model_copy(update={"name": word})],
        corner=replace(plain.charts.corner, columns=(word, word)),
        profile=plain.profile.model_copy(update={"layers": [word] * 16}),
    )
    open_page(render(report), width=390)


# No "/": they are names of files and folders too.
RUNS = "document.documentElement.dataset.ran=1"
NAMES = (
    f"<img src=x onerror={RUNS}>",
    f'"><svg onload={RUNS}>',
    f"'-{RUNS}-'<script>{RUNS}",
    f"<a href=javascript:{RUNS}>%{{x}} $\\href{{javascript:{RUNS}}}{{x}}$",
    "$x_$",
)
SMALL = ["--hidden", "4", "--max-epochs", "1", "--quiet"]


@pytest.fixture
def shows(open_page):
    """Returns a function that opens a page, hovers over its charts and returns its HTML."""

    def show(path):
        page = open_page(path.read_text(encoding="utf-8"))
        for box in page.locator("[data-figure]").all():
            box.hover()  # draws the labels
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.dataset.ran") is None
        assert page.locator("a[href^='javascript'], [onerror], [onload], svg a").count() == 0
        return page.content()

    return show


def test_names_with_markup_stay_text_on_pages_of_a_table(tmp_path, shows):
    """Names of columns are in tables, in titles of figures and in their labels."""
    numbers = np.random.default_rng(0).normal(size=(300, len(NAMES))).round(4)
    table, run = tmp_path / f"{NAMES[0]}.csv", tmp_path / "run"
    pl.DataFrame(numbers, schema=list(NAMES)).write_csv(table)
    fit = ["fit", str(table), "--out", str(run), "--model", "real_nvp", "--depth", "2"]
    assert main([*fit, *SMALL]) == 0
    content = shows(run / "report.html")
    assert "&lt;img src=x" in content and "%{x}" in content
    assert main(["doctor", str(run), "--out", str(tmp_path / "doctor.html")]) == 0
    shows(tmp_path / "doctor.html")


def test_names_with_markup_stay_text_on_the_page_of_images(tmp_path, shows):
    """Classes are the names of folders."""
    rng, folder = np.random.default_rng(0), tmp_path / f"{NAMES[1]} images"
    for name in NAMES[:2]:
        (folder / name).mkdir(parents=True)
        for i in range(20):
            pixels = rng.integers(0, 256, (8, 8), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    fit = ["fit", str(folder), "--out", str(tmp_path / "run"), "--model", "glow", "--by-class"]
    assert main([*fit, "--levels", "1", "--steps", "1", *SMALL]) == 0
    content = shows(tmp_path / "run" / "report.html")
    assert "&lt;img src=x" in content and "&lt;svg onload" in content
