from dataclasses import replace

import pytest
from tests.report.conftest import CHROMIUM, changed

from kappaflow.report.files import render

NAN = float("nan")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="no Chromium; set KAPPAFLOW_CHROMIUM"),
]


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_browser_draws_all_figures_and_asks_for_nothing(report, open_page, width, scheme):
    """On a desk and on a phone, light and dark: no error, no request, no sideways scrolling."""
    page = open_page(render(report), width=width, scheme=scheme)
    ink = page.evaluate("getComputedStyle(document.documentElement).color")
    title = page.locator("#curves .xtitle").first
    assert page.evaluate("(e) => getComputedStyle(e).fill", title.element_handle()) != ""
    assert (ink == "rgb(29, 33, 38)") == (scheme == "light")


def test_figures_follow_the_colors_of_the_page(report, open_page):
    """When the reader's screen turns dark, so do the figures, and paper is always light."""
    page = open_page(render(report))
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


def test_figures_follow_the_width_of_the_window(report, open_page):
    """Turning a phone or dragging a window leaves no figure wider than the page."""
    page = open_page(render(report))
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_breaks_no_word_and_shows_each_element(make_report, open_page, scheme):
    """With unfolded settings, in both colors: all is inside a width of 420 pixels."""
    page = open_page(render(make_report(columns=14)), width=420, scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    assert page.evaluate(BROKEN_WORDS) == []
    assert page.evaluate(OUTSIDE) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 420


def test_a_reader_selects_two_columns(make_report, open_page):
    """The chart shows them, with their names, their frame and the samples outside."""
    report = make_report(columns=7)
    report.charts.pairs.samples[0][5] = 1e6
    page = open_page(render(report))
    lists = page.locator(".picker select")
    lists.nth(0).select_option("column 6")
    lists.nth(1).select_option("column 1")
    plot = page.locator("[data-figure=any-pair]")
    assert plot.locator(".xtitle").text_content() == "column 6"
    assert plot.locator(".ytitle").text_content() == "column 1"
    shown = plot.evaluate("(box) => [box.data[0].x.slice(0, 2), box.data[1].y.slice(0, 2)]")
    assert shown[0] == [row[5] for row in report.charts.pairs.data[:2]]
    assert shown[1] == [row[0] for row in report.charts.pairs.samples[:2]]
    assert "of 400 samples outside" in page.locator(".picker .remark").text_content()


def test_markup_in_names_is_shown_as_it_is(make_report, open_page):
    """A column may be called like a script, a link or a format of plotly, and is shown so."""
    plain = make_report(columns=3, layers=2)
    name = '<a href="https://example.org">%{x} $x$ <b>b</b></a><script>document.title="!"</script>'
    html = render(
        changed(
            plain,
            marginals=[m.model_copy(update={"column": name}) for m in plain.charts.marginals],
            pairs=plain.charts.pairs.model_copy(update={"columns": [name] * 3}),
            profile=plain.profile.model_copy(update={"layers": [name, name]}),
        )
    )
    page = open_page(html)
    assert "!" not in page.title()
    assert page.locator("svg a").count() == 0
    assert page.locator(".panels.small h4").first.text_content() == name
    assert page.locator(".pairs .xtitle").first.text_content().startswith('<a href="https://')


SIZES = {
    "one of each": {"layers": 1, "epochs": 1, "columns": 1},
    "1024 layers": {"layers": 1024, "columns": 2},
    "little": {"separations": [], "scores": [], "marginals": [], "findings": []},
    "nothing finite": {
        "curves": [
            {"epoch": i, "train_nll_standardized": NAN, "validation_nll_standardized": 1e300}
            for i in (1, 2)
        ]
    },
    "300 columns": {"references": [], "columns": 300},
}


@pytest.mark.parametrize(
    ("size", "width"),
    [*((size, 390) for size in SIZES), ("1024 layers", 1280), ("300 columns", 1280)],
)
def test_reports_of_every_size_are_drawn(make_report, open_page, size, width):
    """Corner cases draw without complaint, on a desk and on a phone."""
    open_page(render(make_report(**SIZES[size])), width=width)


def test_long_words_do_not_widen_a_phone(make_report, open_page):
    """A title, a path or a value without a space wraps."""
    plain = make_report(columns=2)
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
        marginals=[m.model_copy(update={"column": word}) for m in plain.charts.marginals],
        separations=[plain.result.separations[0].model_copy(update={"name": word})],
        pairs=plain.charts.pairs.model_copy(update={"columns": [word, word]}),
        profile=plain.profile.model_copy(update={"layers": [word] * 16}),
    )
    for width in (390, 1280):
        open_page(render(report), width=width)
