"""The page of a factorization shows the numbers of the factorization."""

import json
import re

import numpy as np
import pytest

import kappaflow as kf
from kappaflow.report.charts.plotly import draw
from kappaflow.report.factorization import MOST_CELLS, changes, factors_chart, map_chart
from kappaflow_studies.factors.page import render_factors, trade_off_curve
from kappaflow_studies.factors.trade_off import CountResult, trade_off


@pytest.fixture(scope="module")
def result():
    """Returns the factorization of a Gaussian map of 8 features."""
    return kf.factor_linear(np.random.default_rng(1).standard_normal((8, 8)))


def drawn(page):
    """Returns the figures that the script of a page draws."""
    text = re.search(r'id="figure-data">(.*?)</script>', page, re.DOTALL).group(1)
    return json.loads(text)


@pytest.mark.slow
def test_the_page_shows_the_map_and_each_factor(result):
    """Heat maps of T and of all couplings, and a bar each, with their own numbers."""
    figures = drawn(render_factors(result, "map.npy"))
    assert set(figures) == {"map", "condition-bars", *(f"factors-{i}" for i in range(1, 7))}
    assert np.allclose(figures["map"]["data"][0]["z"], result.matrix, rtol=5e-3)
    for number, coupling in enumerate(result.couplings, start=1):
        shown = figures[f"factors-{number}"]["data"][0]["z"]
        assert np.allclose(shown, coupling.matrix(), rtol=5e-3)
    bars = figures["condition-bars"]["data"][0]
    assert bars["x"] == [1, 2, 3, 4, 5, 6] and bars["y"] == list(result.condition_numbers)


def test_factors_share_one_scale_of_colors_that_is_even_about_zero(result):
    """The paler of two factors is the smaller one."""
    chart = factors_chart(result)
    maps = [draw(panel, chart)["data"][0] for panel in chart.panels]
    ends = {(drawn["zmin"], drawn["zmax"]) for drawn in maps}
    largest = max(coupling.matrix().abs().max().item() for coupling in result.couplings)
    assert ends == {(-largest, largest)}


def test_a_large_map_is_drawn_in_tiles_that_keep_a_lone_entry():
    """Each cell is the entry of largest absolute value, with its sign; the page says so."""
    matrix = np.eye(2 * MOST_CELLS)
    matrix[5, 150] = -7.0
    result = kf.factor_linear(matrix, couplings=2)
    cells = np.array(map_chart(result).panels[0].heat.values)
    assert cells.shape == (MOST_CELLS, MOST_CELLS)
    assert cells[2, 75] == -7 and (cells.diagonal() == 1).all() and (cells != 0).sum() == 97
    assert "2 by 2 entries" in render_factors(result, "map.npy")


@pytest.mark.slow
def test_the_curve_has_the_map_and_the_lower_bound(result):
    """The map at each count, this page, and the lower bound."""
    trials = trade_off(result.matrix, counts=(6, 8), known={6: result})
    plain = trade_off_curve(result, trials)
    least, mine, page = plain.panels[0].series
    names = [series.name for series in (least, mine, page)]
    assert names == ["no factorization is below", "this map", "this page"]
    assert mine.x == [6, 8]
    assert mine.y == [trial.factorization.condition_number for trial in trials]
    least = np.array(least.y)
    assert np.allclose(least, np.linalg.cond(result.matrix) ** (1 / np.array([6, 7, 8])))


def test_a_count_that_was_not_found_has_a_line_and_no_point(result):
    """The reason is on the page, escaped."""
    trials = [CountResult(5, None, "five <need> more"), CountResult(6, result)]
    page = render_factors(result, "map.npy", trials=trials)
    assert "5 couplings: five &lt;need&gt; more" in page
    assert drawn(page)["trade-off"]["data"][1]["x"] == [6]


def test_the_identity_has_a_page_without_factors():
    """An identity has no couplings to draw."""
    page = render_factors(kf.factor_linear(np.eye(3)), "identity.csv", trials=[])
    assert "The identity has no factors." in page and set(drawn(page)) == {"map"}


@pytest.mark.parametrize(
    ("features", "partition", "words"),
    [
        (6, "half", "features 3 to 5"),
        (6, "alternating", "features 1, 3, 5"),
        (20, "alternating", "features 1, 3, 5, 7, 9, 11, 13, 15, ... (10)"),
        (2, "half", "feature 1"),
    ],
)
def test_what_a_coupling_changes_is_written_as_text(features, partition, words):
    """A range, a list, or the beginning of one."""
    rotation = np.eye(features)[[1, 0, *range(2, features)]] * -1.0
    result = kf.factor_linear(rotation, partition=partition)
    texts = {changes(result, number) for number in range(1, len(result) + 1)}
    assert words in texts
