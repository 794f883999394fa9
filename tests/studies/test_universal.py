"""`universal`: its cases, one measurement, and what is read from all of them."""

import polars as pl
import pytest
import torch

from kappaflow_studies.engine.presets import settings_of
from kappaflow_studies.engine.study import frame_of
from kappaflow_studies.universal import UNIVERSAL
from kappaflow_studies.universal.measure import measure

TINY = """
targets = ["square", "banana-4d"]
errors = [0.2, 0.05, 0.02, 1e-5]
samples = 2000
points = 51
draws = 100
two_sample_down_to = 0.1
pictured = [0.2]
picture_draws = 500
bins = 8
triangular = ["square", "banana-4d"]
triangular_errors = [0.2, 0.05, 0.02]
triangular_samples = 1000
steps = [4, 8]
"""


@pytest.fixture
def tiny(tmp_path):
    """Settings for two seconds."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


def measured(settings):
    """Returns the table of all cases."""
    return frame_of([(case, measure(case), 0.0) for case in UNIVERSAL.cases(settings, 3)])


@pytest.mark.slow
def test_it_says_what_it_found(tiny):
    """The numbers of the sentences, and which pictures stand where."""
    settings = settings_of(UNIVERSAL, "minutes", tiny)
    findings = UNIVERSAL.findings(measured(settings), settings)
    found = findings.found
    assert "1 planar targets and 1 in four or more dimensions, of 2 in all" in found[0]
    assert "with an exponent from 4.0" in found[1]
    assert "three couplings have the exponent 0.5" in found[2]
    assert "below the allowed error in 6 of 6 cases" in found[2]
    assert "four couplings have the exponent 0.0" in found[3]
    assert "at an allowed error of 0.02 the total variation distance" in found[4]
    assert "33 couplings are within 0.26" in found[5]
    assert "Two samples agree with the bound in 2 of 2" in found[6]
    assert "for 2 of 2 targets, samples are not recovered at an error of 1" in found[7]
    draws = next(chart for chart in findings.charts if chart.name == "draws")
    assert [panel.title for panel in draws.panels] == ["square itself", "square, 0.2"]


@pytest.mark.slow
def test_what_is_drawn_is_what_was_measured(tiny):
    """Medians and bands of the singular values, point by point, in the order of the errors."""
    settings = settings_of(UNIVERSAL, "minutes", tiny)
    frame = measured(settings)
    charts = {chart.name: chart for chart in UNIVERSAL.findings(frame, settings).charts}
    smallest = next(s for s in charts["conditioning"].panels[0].series if s.name == "smallest")
    rows = frame.filter((pl.col("target") == "square") & (pl.col("what") == "error"))
    rows = rows.sort("epsilon")
    assert smallest.x == [1e-5, 0.02, 0.05, 0.2]
    assert smallest.y == rows["sigma_min"].to_list() and smallest.y == sorted(smallest.y)
    bands = zip(smallest.low, smallest.y, smallest.high, strict=True)
    assert all(low < y < high for low, y, high in bands)
    rates = {s.name: s for s in charts["rates"].panels[0].series}
    assert rates["three, any map"].x == [0.02, 0.05, 0.2]  # not below the other constructions
    four = frame.filter(target="square", form="triangular, 4").sort("epsilon")
    assert rates["four, triangular map"].y == four["sigma_min"].to_list()


def test_pictures_stand_upright():
    """The banana is at the bottom in the middle, and at the top at both ends."""
    case = {"what": "picture", "target": "banana", "epsilon": 0.0, "draws": 4000, "bins": 12}
    counts = torch.tensor(measure({**case, "seed": 0})[0]["counts"]).reshape(12, 12)
    assert counts.sum() == 4000
    assert counts[:4, 5:7].sum() > 300 and counts[8:, 5:7].sum() == 0
    assert counts[8:, :2].sum() > 100 and counts[:4, :2].sum() == 0


def test_each_preset_has_cases_that_can_be_named():
    """Both are valid, the full one is larger."""
    minutes, full = (settings_of(UNIVERSAL, name, None) for name in ("minutes", "full"))
    assert 0 < len(UNIVERSAL.cases(minutes, 0)) < len(UNIVERSAL.cases(full, 0))
    assert min(minutes.errors) <= 0.02 and "banana-4d" in minutes.targets


@pytest.mark.slow
def test_planar_targets_alone_have_exponents_too(tiny):
    """Nothing is reported of more features then."""
    settings = settings_of(UNIVERSAL, "minutes", tiny)
    planar = {"targets": ("square",), "triangular": ("square",), "steps": (), "pictured": ()}
    settings = settings.model_copy(update=planar)
    found = UNIVERSAL.findings(measured(settings), settings).found
    three = next(one for one in found if "three couplings have the exponent" in one)
    assert "for two features; the derivation" in three


def test_two_errors_have_no_exponent(tiny):
    """Nothing is reported of a slope then, and nothing fails."""
    settings = settings_of(UNIVERSAL, "minutes", tiny)
    few = {"errors": (0.2, 0.1), "two_sample_down_to": 1.0, "triangular": (), "steps": ()}
    settings = settings.model_copy(update=few)
    found = UNIVERSAL.findings(measured(settings), settings)
    assert len(found.found) == 1 and found.tables[0].rows == []
