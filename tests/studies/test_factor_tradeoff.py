"""The trade-off of couplings and conditioning: cases, and what is reported of them."""

import polars as pl
import pytest

from kappaflow.errors import ArgumentError
from kappaflow_studies import run_study
from kappaflow_studies.engine.presets import settings_of
from kappaflow_studies.factor_tradeoff import FACTOR_TRADEOFF

SETTINGS = {
    "ensembles": ["Gaussian", "geometric 1e2"],
    "sizes": [4, 8],
    "draws": [1, 2],
    "couplings": [6, 12],
}


def row(ensemble, n, draw, couplings, condition_number, **others):
    """Returns a row as it is measured."""
    figures = {"method": "continuation", "residual": 1e-15, "time_s": 2.0, "of_the_map": 100.0}
    named = {"ensemble": ensemble, "n": n, "draw": draw, "couplings": couplings}
    return {**named, **figures, "condition_number": condition_number, "error": None, **others}


@pytest.fixture
def settings(tmp_path):
    """Two ensembles of two sizes."""
    text = "\n".join(f"{key} = {value}" for key, value in SETTINGS.items())
    (tmp_path / "mine.toml").write_text(text)
    return settings_of(FACTOR_TRADEOFF, "minutes", tmp_path / "mine.toml")


def test_medians_and_quartiles_are_over_the_draws(settings):
    """Searches without an end are counted and left out; a bound stands below equal maps."""
    rows = [row("Gaussian", 8, draw, 6, 5.0 + draw) for draw in (0, 1)]
    rows += [row("Gaussian", 8, draw, 12, 2.0 + draw) for draw in (0, 1)]
    rows += [row("Gaussian", 4, 0, 6, None, residual=None, method=None, error="lost")]
    rows += [row("geometric 1e2", 8, 0, 6, 4.0), row("geometric 1e2", 8, 0, 12, 3.0)]
    result = FACTOR_TRADEOFF.findings(pl.DataFrame(rows, infer_schema_length=None), settings)
    message = " ".join(result.found)
    assert (
        "At 8 features" in message and "with 6 couplings and with 12 (median of 2 maps)" in message
    )
    assert (
        "Gaussian maps 5.50 and 2.50; Geometric spectrum of condition number 1e2 4.00" in message
    )
    assert "1 of 7 searches ended without one" in message
    gaussian, geometric, times = result.tables
    assert gaussian.rows == [["8", "2", "5.50 (5.25 to 5.75)", "2.50 (2.25 to 2.75)"]]
    assert geometric.rows == [["8", "1", "4.00", "3.00"]]
    assert times.rows == [["8", "2.0", "2.0"]]
    bound = result.charts[0].panels[1].series[-1]
    assert bound.name == "lower bound"
    assert bound.y == [pytest.approx(100 ** (1 / 6)), pytest.approx(100 ** (1 / 12))]


@pytest.mark.slow
def test_a_small_run_finds_better_factors_with_more_couplings(tmp_path):
    """End to end, on a map of four features."""
    text = 'ensembles = ["Gaussian"]\nsizes = [4]\ndraws = [1]\ncouplings = [6, 12]'
    (tmp_path / "mine.toml").write_text(text)
    run_study(
        FACTOR_TRADEOFF,
        tmp_path / "out",
        config=tmp_path / "mine.toml",
        processes=1,
        progress=False,
    )
    frame = pl.read_parquet(tmp_path / "out/results.parquet")
    six, twelve = frame.sort("couplings")["condition_number"]
    assert twelve < six and frame["residual"].max() < 1e-12


def test_draws_go_with_sizes(tmp_path):
    """A number is missing: it is reported."""
    text = 'ensembles = ["Gaussian"]\nsizes = [4, 8]\ndraws = [1]\ncouplings = [6]'
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(ArgumentError, match="'draws' should have a number for each size"):
        settings_of(FACTOR_TRADEOFF, "minutes", tmp_path / "mine.toml")
