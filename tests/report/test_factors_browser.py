"""The page of a factorization in a real browser."""

import numpy as np
import pytest
from tests.report.conftest import CHROMIUM

import kappaflow as kf
from kappaflow_studies.factors.page import render_factors
from kappaflow_studies.factors.trade_off import trade_off

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="no Chromium; set KAPPAFLOW_CHROMIUM"),
]


def page_of(matrix, name="map.npy", **settings):
    """Returns the page of a map with its curve."""
    found = kf.factor_linear(matrix, **settings)
    trials = trade_off(matrix, counts=(6, 8, 11), known={6: found})
    return render_factors(found, name, trials=trials)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (380, "dark")])
def test_a_browser_draws_the_factors_and_asks_for_nothing(open_page, width, scheme):
    """On a desk and on a phone, light and dark; the middle of the colors is the paper's."""
    page = open_page(
        page_of(np.random.default_rng(1).standard_normal((8, 8))), width=width, scheme=scheme
    )
    assert page.locator("[data-figure]").count() == 9
    colors = page.evaluate(
        "document.querySelector('[data-figure=factors-1]').data[0].colorscale.map((c) => c[1])"
    )
    paper = "#ffffff" if scheme == "light" else "#1b1e22"
    assert colors[1] == paper and not any("var(" in color for color in colors)
    assert page.locator("[data-figure=factors-1] .heatmaplayer image").count() == 1


def test_long_names_and_large_maps_do_not_widen_a_phone(open_page):
    """A name without a space wraps, and a map of hundreds of features is drawn in tiles."""
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((200, 200)))[0]
    found = kf.factor_linear(rotation, method="rotation")
    open_page(render_factors(found, "w" * 300), width=380)
