"""The page of a diagnosis in a real browser."""

import dataclasses

import pytest
from tests.report import diagnoses
from tests.report.conftest import CHROMIUM

from kappaflow.report.diagnosis import render_diagnosis

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="no Chromium; set KAPPAFLOW_CHROMIUM"),
]


@pytest.mark.parametrize(
    ("make", "width", "scheme"),
    [
        (diagnoses.with_wrong_samples, 1200, "light"),
        (diagnoses.with_wrong_samples, 420, "dark"),
        (diagnoses.ill_conditioned, 420, "light"),
        (diagnoses.not_finite, 1200, "dark"),
        (diagnoses.with_small_error, 420, "dark"),
        (diagnoses.healthy, 420, "light"),
    ],
)
def test_a_browser_draws_the_evidence_and_asks_for_nothing(open_page, make, width, scheme):
    """On a desk and on a phone, light and dark: no error, no request, no sideways scrolling."""
    page = open_page(render_diagnosis(make(), title="flow"), width=width, scheme=scheme)
    boxes = page.locator(".finding .evidence .plot")
    wide = "(boxes) => boxes.every((b) => b.scrollWidth <= b.clientWidth)"
    assert boxes.evaluate_all(wide)


def test_markup_in_names_is_shown_as_it_is(open_page):
    """A layer may be called like a script."""
    name = '<a href="https://example.org">%{x} <b>b</b></a><script>document.title="!"</script>'
    made = diagnoses.ill_conditioned()
    findings = tuple(dataclasses.replace(one, layer=name) for one in made.findings)
    profile = dataclasses.replace(made.profile, layers=(name,))
    renamed = dataclasses.replace(made, findings=findings, profile=profile)
    page = open_page(render_diagnosis(renamed, title=name * 3), width=420)
    assert "!" not in page.title()[-1:]
    assert page.locator("svg a").count() == 0
    assert page.locator(".tag span").nth(1).text_content() == f"layer {name}"


def test_cards_follow_the_width_of_the_window(open_page):
    """A figure that was drawn wide does not keep its card from becoming narrow."""
    page = open_page(render_diagnosis(diagnoses.ill_conditioned()))
    page.set_viewport_size({"width": 420, "height": 844})
    page.wait_for_function("document.documentElement.scrollWidth <= 420")
    page.wait_for_function("document.querySelector('.finding').scrollWidth <= 420")
