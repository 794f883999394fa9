import pytest
from tests.report.conftest import CHROMIUM

from kappaflow.report import render

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
    page.wait_for_timeout(500)
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
    page.wait_for_timeout(1000)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    widths = "(boxes) => boxes.every((b) => b.querySelector('svg').clientWidth <= b.clientWidth)"
    assert page.locator("[data-figure]").evaluate_all(widths)


def test_markup_in_names_is_shown_as_it_is(make_report, open_page):
    """A column may be called like a script, a link or a format of plotly, and is shown so."""
    plain = make_report(columns=3, layers=2)
    name = '<a href="https://example.org">%{x} $x$ <b>b</b></a><script>document.title="!"</script>'
    html = render(
        plain.model_copy(
            update={
                "marginals": [m.model_copy(update={"column": name}) for m in plain.marginals],
                "pairs": plain.pairs.model_copy(update={"columns": [name] * 3}),
                "profile": plain.profile.model_copy(update={"layers": [name, name]}),
            }
        )
    )
    page = open_page(html)
    assert "!" not in page.title()
    assert page.locator("svg a").count() == 0
    assert page.locator(".small-figures h4").first.text_content() == name
    assert page.locator(".pairs .xtitle").first.text_content().startswith('<a href="https://')


@pytest.mark.parametrize(
    "size",
    [
        {"layers": 1, "epochs": 1, "columns": 1},
        {"layers": 1024, "columns": 2},
        {"separations": [], "marginals": [], "findings": []},
        {
            "curves": [
                {"epoch": i, "train_nll_standardized": NAN, "validation_nll_standardized": 1e300}
                for i in (1, 2)
            ]
        },
        {"gaussian_nll_standardized": NAN, "columns": 300},
    ],
    ids=["one of each", "1024 layers", "little", "nothing finite", "300 columns"],
)
@pytest.mark.parametrize("width", [1280, 390])
def test_reports_of_every_size_are_drawn(make_report, open_page, size, width):
    """Corner cases draw without complaint, on a desk and on a phone."""
    open_page(render(make_report(**size)), width=width)


def test_long_words_do_not_widen_a_phone(make_report, open_page):
    """A title, a path or a value without a space wraps."""
    plain = make_report(columns=2)
    word = "w" * 300
    about = plain.about.model_copy(update={"title": word, "data": [(word, word)], "notes": [word]})
    finding = plain.findings[0].model_copy(
        update={"layer": word, "message": word, "cure": word, "evidence": {word: word}}
    )
    part = plain.likelihoods[0].model_copy(update={"name": word})
    marginals = [m.model_copy(update={"column": word}) for m in plain.marginals]
    report = plain.model_copy(
        update={
            "about": about,
            "verdict": word,
            "findings": [finding],
            "likelihoods": [part],
            "marginals": marginals,
            "separations": [plain.separations[0].model_copy(update={"name": word})],
            "pairs": plain.pairs.model_copy(update={"columns": [word, word]}),
            "profile": plain.profile.model_copy(update={"layers": [word] * 16}),
        }
    )
    for width in (390, 1280):
        open_page(render(report), width=width)
