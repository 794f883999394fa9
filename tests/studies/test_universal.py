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
divergence = ["square", "checkerboard"]
reaches = [2.0, 3.0]
digits = [3, 4]
divergence_samples = 2000
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Settings for two seconds."""
    path = tmp_path_factory.mktemp("universal") / "tiny.toml"
    path.write_text(TINY)
    return settings_of(UNIVERSAL, "minutes", path)


def measured(settings):
    """Returns the table of all cases."""
    return frame_of([(case, measure(case), 0.0) for case in UNIVERSAL.cases(settings, 3)])


@pytest.mark.slow
def test_findings_have_the_numbers_of_the_measurements(settings):
    """Sentences, and lines in the order of the errors: medians and bands, point by point."""
    frame = measured(settings)
    findings = UNIVERSAL.findings(frame, settings)
    numbers = (
        "1 planar targets and 1 in four", "an exponent from 4.0", "the exponent 0.5",
        "the exponent 0.0", "error of 0.02 the total",
        "with 16 cells for each feature have 0.0", "at a median condition number of ",
        "33 couplings are within 0.26",
        "agree with the bound in 2 of 2", "for 2 of 2 targets",
    )  # fmt: skip
    for sentence, number in zip(findings.found, numbers, strict=True):
        assert number in sentence
    assert "below the allowed error in 6 of 6 cases" in findings.found[2]
    charts = {chart.name: chart for chart in findings.charts}
    assert [p.title for p in charts["draws"].panels] == ["square itself", "square, 0.2"]
    smallest = next(s for s in charts["conditioning"].panels[0].series if s.name == "smallest")
    rows = frame.filter((pl.col("target") == "square") & (pl.col("what") == "error"))
    assert smallest.x == [1e-5, 0.02, 0.05, 0.2]
    assert smallest.y == rows.sort("epsilon")["sigma_min"].to_list() == sorted(smallest.y)
    bands = zip(smallest.low, smallest.y, smallest.high, strict=True)
    assert all(low < y < high for low, y, high in bands)
    rates = {series.name: series for series in charts["rates"].panels[0].series}
    assert rates["three, any map"].x == [0.02, 0.05, 0.2]  # not below the other constructions
    four = frame.filter(target="square", form="triangular, 4").sort("epsilon")
    assert rates["four, triangular map"].y == four["sigma_min"].to_list()


def test_a_row_has_the_determinant_and_the_floor():
    """Also at a condition number near 1e21; two samples differ by the floor and the bound."""
    case = {"what": "error", "target": "ring", "samples": 1000, "points": 101, "seed": 0}
    for epsilon, draws in ((0.02, 400), (1e-5, 0)):
        (row,) = measure({**case, "epsilon": epsilon, "draws": draws})
        determinant = row["low_digits"] * row["eta"] * row["eta_prime"]
        assert row["sigma_min"] * row["sigma_max"] == pytest.approx(determinant, rel=1e-3)
        assert row["sigma_min_low"] <= row["sigma_min"] <= row["sigma_min_high"]
        assert row["bound"] < epsilon and (row["floor"] is None) == (draws == 0)
        if draws:
            excess = abs(row["two_sample_w2"] - row["floor"])
            assert excess < row["bound"] + row["floor"] / 4
    assert row["sigma_min"] < 1e-21


def test_pictures_stand_upright():
    """The banana is at the bottom in the middle, and at the top at both ends."""
    case = {"what": "picture", "target": "banana", "epsilon": 0.0, "draws": 4000, "bins": 12}
    counts = torch.tensor(measure({**case, "seed": 0})[0]["counts"]).reshape(12, 12)
    assert counts.sum() == 4000
    assert counts[:4, 5:7].sum() > 300 and counts[8:, 5:7].sum() == 0
    assert counts[8:, :2].sum() > 100 and counts[:4, :2].sum() == 0


@pytest.mark.parametrize(
    ("changed", "sentences"),
    [
        ({"errors": (0.2, 0.1), "triangular": ()}, 1),  # two errors have no exponent
        ({"targets": ("square",), "triangular": ("square",)}, 6),  # no target of more features
    ],
)
def test_without_some_rows_there_are_fewer_sentences(settings, changed, sentences):
    """And nothing fails."""
    few = {"two_sample_down_to": 1.0, "steps": (), "pictured": (), "divergence": ()} | changed
    settings = settings.model_copy(update=few)
    findings = UNIVERSAL.findings(measured(settings), settings)
    assert len(findings.found) == sentences
