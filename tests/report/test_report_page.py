"""The page of a report on a table."""

import base64
import hashlib
import math
import re
from dataclasses import replace

import pytest
from tests.report.examples import EVIL, INF, NAN, Page, build_report, changed, renamed

from kappaflow.diagnosis import Comparison
from kappaflow.finding import Finding
from kappaflow.report.content import Latent, Report
from kappaflow.report.files import render
from kappaflow.report.result import Likelihood


@pytest.fixture(scope="module")
def usual():
    return Page(render(build_report()))


def test_the_sections_stand_in_the_order_of_reading(usual):
    """A reader meets the verdict first and the settings last."""
    assert [attributes["id"] for tag, attributes in usual.tags if tag == "section"] == [
        "samples",
        "findings",
        "about",
        "curves",
        "likelihood",
        "depth",
        "latent-section",
        "glossary",
        "settings",
    ]


def test_the_verdict_stands_in_words_and_numbers_at_the_top(usual):
    """The verdict is text, not only a color."""
    top = usual.words.partition("Findings of the doctor")[0]
    assert "Use with care: 1 warning" in top
    for number in ("9.31 ± 0.14", "27.83 ± 0.14", "0.841 ± 0.010", "12.91"):
        assert number in top


@pytest.mark.parametrize(
    ("level", "severities", "words", "css"),
    [
        ("good", ["note"], "Good", "verdict ok"),
        ("care", ["warning", "warning"], "Use with care: 2 warnings", "verdict warning"),
        ("bad", ["error", "note"], "Do not use: 1 error", "verdict error"),
    ],
)
def test_the_color_of_the_verdict_follows_the_level(level, severities, words, css):
    """The level is a CSS class and a few words."""
    findings = [
        Finding(code="KF1", severity=s, layer=None, message="m", cause="c", fix="u", evidence={})
        for s in severities
    ]
    html = render(build_report(level=level, findings=findings))
    assert words in html
    assert f'class="{css}"' in html


def test_nothing_is_loaded_from_outside(usual):
    """Every address in attributes and style stays inside the page."""
    for tag, attributes in usual.tags:
        for name, value in attributes.items():
            if name in {"src", "href", "srcset", "action", "data", "poster", "background"}:
                assert (value or "").startswith(("#", "data:")), (tag, name, value)
            assert "url(" not in (value or "")
    assert len(usual.styles) == 1
    assert "url(" not in usual.styles[0]
    assert "@import" not in usual.styles[0]


def test_the_policy_forbids_requests_and_lets_only_our_scripts_run(usual):
    """A Content-Security-Policy allows two scripts by their hashes, and nothing else."""
    (policy,) = (
        attributes["content"]
        for tag, attributes in usual.tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert "'unsafe-eval'" not in policy
    run = [text for attributes, text in usual.scripts if "type" not in attributes]
    hashes = [base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in run]
    assert re.findall(r"'sha256-([^']+)'", policy) == hashes
    assert len(hashes) == 2
    assert sum("plotly.js v" in text for text in run) == 1


def test_names_with_script_tags_stay_text():
    """Names of columns, layers and rows never become markup, in HTML or in figures."""
    plain = build_report(columns=3, layers=2)
    profile = plain.profile.model_copy(update={"layers": [EVIL, EVIL]})
    hostile = changed(
        plain,
        about=plain.about.model_copy(update={"title": EVIL, "command": EVIL, "finished_at": EVIL}),
        notes=[EVIL],
        two_sample=renamed(plain.charts.two_sample, EVIL),
        corner=replace(plain.charts.corner, columns=(EVIL,) * 3),
        profile=profile,
        separations=[plain.result.separations[0].model_copy(update={"name": EVIL})],
        findings=[
            replace(f, layer=EVIL, message=EVIL, evidence={EVIL: EVIL})
            for f in plain.result.findings
        ],
        verdict=EVIL,
    )
    page = Page(render(hostile))
    assert sum(tag == "script" for tag, _ in page.tags) == 4
    assert not any(tag == "img" for tag, _ in page.tags)
    labels = list(_labels(page.figures))
    assert any("&lt;/script&gt;" in label for label in labels)
    assert not any("<" in label.removesuffix("<extra></extra>") for label in labels)


def _labels(value):
    """Yields every text in which plotly would read HTML."""
    if isinstance(value, dict):
        for item in value.values():
            yield from _labels(item)
    elif isinstance(value, list):
        for item in value:
            yield from _labels(item)
    elif isinstance(value, str):
        yield value


def test_every_figure_has_words_for_those_who_cannot_see_it(usual):
    """Each plot carries a label, each framed figure a caption, and each axis a title."""
    plots = [attributes for _, attributes in usual.tags if "data-figure" in attributes]
    assert {plot["data-figure"] for plot in plots} == set(usual.figures)
    assert all(plot["role"] == "img" and plot["aria-label"] for plot in plots)
    figures = sum(tag == "figure" for tag, _ in usual.tags)
    assert sum(tag == "figcaption" for tag, _ in usual.tags) == figures
    for name, figure in usual.figures.items():
        assert all(figure["layout"][axis]["title"]["text"] for axis in ("xaxis", "yaxis")), name


def test_the_worst_layer_and_the_best_epoch_are_marked(usual):
    """By a diamond with the name of the layer, and by a line."""
    assert usual.figures["curve-nll"]["layout"]["shapes"][0]["x0"] == 34
    (mark,) = (
        t for t in usual.figures["condition"]["data"] if t.get("name", "").startswith("worst")
    )
    assert mark["name"] == "worst: 10 AffineCoupling"
    assert mark["x"] == [11]


def test_a_worst_layer_that_cannot_be_drawn_is_named():
    """A layer with an infinite condition number is named, though it has no diamond."""
    profile = build_report(layers=4).profile.model_dump()
    table = {k: [*v[:2], INF, v[3]] for k, v in profile["layer_condition_number"].items()}
    html = render(build_report(layers=4, profile=profile | {"layer_condition_number": table}))
    assert "“2 AffineCoupling” first: its condition number is not finite" in html
    assert "3 of 24 values are not finite and are left out." in html


def spoilt(report: Report, value: float) -> Report:
    """Returns a report in which every number that may fail to be finite is this one."""

    def spoil(item):
        if isinstance(item, dict):
            return {key: spoil(inner) for key, inner in item.items()}
        if isinstance(item, list):
            return [spoil(inner) for inner in item]
        return value if isinstance(item, float) else item

    content = spoil(report.model_dump())
    latent = content["charts"]["latent"]
    latent["coordinates"] = [(value, value)] * len(latent["coordinates"])
    return type(report).model_validate(content)


@pytest.mark.parametrize("value", [NAN, INF, -INF, 1e300])
def test_numbers_that_are_not_finite_do_not_break_the_page(value):
    """A report full of nan or infinity has a page that says so, with valid JSON."""
    html = render(spoilt(build_report(layers=4, epochs=3), value))
    page = Page(html)
    assert page.figures
    if not math.isfinite(value):
        assert html.count("not finite") > 20
        assert 'class="value not-finite"' in html


@pytest.mark.parametrize(
    "size",
    [
        {"layers": 1},
        {"layers": 1024},
        {"epochs": 1},
        {"columns": 1},
        {"columns": 2},
        {"columns": 300},
        {"separations": [], "scores": []},
        {"findings": []},
        {"curves": []},
        {"two_sample": None},
        {"corner": None},
        {"latent": Latent(edges=[], density=[], normal=[], coordinates=[], beyond_four=NAN)},
        {
            "curves": [
                {"epoch": 1, "train_nll_standardized": None},
                {"epoch": 2, "validation_nll_standardized": 3.0},
            ]
        },
        {"references": [Comparison("Gaussian", 1, False, 600, -100.0, -100.0, 109.0, 0.1)]},
    ],
    ids=str,
)
def test_reports_of_every_size_render(size):
    """Small, large and partly empty reports make pages whose figures all have a place."""
    page = Page(render(build_report(**size)))
    places = {a["data-figure"] for _, a in page.tags if "data-figure" in a}
    assert places == set(page.figures)
    if size == {"columns": 1}:  # has no other to be drawn against
        assert not any(name.startswith("corner") for name in places) and "marginals" in places


@pytest.mark.slow
def test_a_page_of_very_many_columns_draws_those_that_differ_most():
    """A page of 300 columns stays readable and shows the worst column."""
    report = build_report(columns=300)
    result = report.charts.two_sample
    worst = replace(result.marginals[299], p_value=1e-20)
    result = replace(result, marginals=(*result.marginals[:299], worst))
    html = render(changed(report, two_sample=result))
    assert sum(name.startswith("marginal") for name in Page(html).figures) == 12
    assert 'title="column 300: p &lt; 10⁻¹²"' in html


def test_the_settings_are_folded_at_the_end():
    """A closed <details> in the last section has the facts about model and training."""
    report = build_report()
    text = render(report)
    last = text[text.index('<section id="settings"') :]
    assert re.findall("<details[^>]*>", last) == ["<details>"] * 2
    assert "<caption>Model</caption>" in last and "<caption>Training</caption>" in last
    assert "<caption>Training</caption>" not in text[: -len(last)]
    trials = [("spline, depth 4", 3, 1200, 1.5, 0.0, 0.0), ("nice", 1, 300, 1.9, 0.4, 0.01)]
    about = report.about.model_copy(update={"trials": trials})
    last = render(report.model_copy(update={"about": about})).split('<section id="settings"')[1]
    assert last.count("<details>") == 3 and '<th scope="row">spline, depth 4</th>' in last


def test_the_page_says_when_and_how_it_was_made_and_from_which_data():
    """The date, the command and the start of the fingerprint; nothing for what is unknown."""
    report = build_report()
    text = render(report)
    assert "<strong>Trained:</strong> 1 March 2026, 08:05 UTC</p>" in text
    assert "<strong>Command:</strong> kappaflow fit magic --out runs/magic</p>" in text
    assert "<strong>SHA-256 of the data:</strong> 03413cd70341</p>" in text
    unknown = {"finished_at": "", "command": "", "fingerprint": ""}
    about = report.about.model_copy(update=unknown)
    text = render(report.model_copy(update={"about": about}))
    assert not any(word in text for word in ("Trained:", "Command:", "SHA-256 of the data"))


def test_the_page_says_that_a_flow_is_worse_than_a_gaussian():
    """The comparison is a sentence, whichever is better."""
    part = Likelihood(
        name="test", rows=9, nll=5.0, nll_standardized=5.0, standard_error=0.1, quantiles={}
    )
    gaussian = Comparison("Gaussian", 1, False, 9, 3.0, 3.0, 2.0, 0.1)
    html = render(build_report(test=part, references=[gaussian]))
    assert (
        "Compared row by row with a Gaussian, the flow is 2.00 ± 0.10 nats per row worse" in html
    )


def test_the_test_rows_with_the_lowest_density_are_named_with_their_values():
    """With their line of the file, log_prob, and values; a report may have none."""
    html = render(build_report(columns=14))
    table = html[html.index('id="worst-rows"') :]
    table = table[: table.index("</table>")]
    assert re.findall(r'<th scope="row">(.*?)</th>', table) == ["line 17", "line 18", "line 19"]
    assert '<td data-name="log_prob">−90.50</td>' in table or "-90.50" in table
    assert table.count('<th scope="col">') == 3 + 12
    assert '<td data-name="Most unusual value">column 14 = 57, 12 sd</td>' in table
    assert "2 more columns are not shown" in html
    assert 'id="worst-rows"' not in render(build_report(worst_rows=None))


@pytest.mark.slow
def test_the_flow_is_compared_with_each_reference():
    """In a sentence with the paired difference, and in a row of the table."""
    html = render(build_report())
    compared = (
        "Compared row by row with a Gaussian mixture (4 components), the flow is 0.50 ± 0.12"
    )
    assert f"{compared} nats per row worse (600 rows)." in html
    assert "for comparison: a Gaussian mixture (4 components)" in html
    assert "for comparison" not in render(build_report(references=[]))
