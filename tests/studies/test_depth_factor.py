"""`depth-factor`: one measurement, and what is read from all of them."""

import polars as pl
import pytest

from kappaflow_studies.depth_factor import DEPTH_FACTOR, measure
from kappaflow_studies.engine.presets import settings_of

SMALL = {"hidden": 8, "epochs": 1, "batch_size": 64, "learning_rate": 5e-3, "points": 4}
SMALL |= {"repeats": 2, "seed": 0}


@pytest.mark.slow
def test_a_table_is_measured():
    """Couplings before and after, conditioning of both, and times."""
    case = {**SMALL, "what": "table", "data": "bananas-4", "rows": 256, "depth": 2}
    (row,) = measure(case)
    assert (row["shape"], row["couplings_before"], row["maps"]) == ("4", 2, 2)
    assert row["couplings_after"] > 2 and row["difference_float64"] < 1e-9
    assert row["twin_loss"] == pytest.approx(row["loss"], abs=1e-4)
    assert row["time_s"] > 0 and row["twin_time_s"] > 0 and row["map_condition"] > 1


@pytest.mark.slow
def test_images_are_measured():
    """A Glow of the digits, whose maps are its 1x1 convolutions."""
    pytest.importorskip("sklearn")
    case = {**SMALL, "what": "image", "data": "digits", "size": 0, "levels": 2, "depth": 1}
    (row,) = measure({**case, "points": 2, "batch_size": 256})
    assert (row["shape"], row["couplings_before"], row["maps"]) == ("1 x 8 x 8", 3, 2)
    assert row["couplings_after"] > 3 and row["difference_float64"] < 1e-9


def made_up(depth, after, **others):
    """Returns a row as it is measured."""
    row = {"what": "table", "data": "magic", "shape": "10", "depth": depth, "seed": 0}
    row |= {"couplings_before": depth, "couplings_after": after, "maps": depth}
    row |= {"map_condition": 3.5, "difference_float64": 1e-13, "difference_float32": 1e-5}
    row |= {"worst_layer": 2.0, "twin_worst_layer": 6.0, "peak": 9.0, "twin_peak": 18.0}
    return {**row, "time_s": 0.01, "twin_time_s": 0.05, **others}


@pytest.fixture
def settings():
    """Those of the preset."""
    return settings_of(DEPTH_FACTOR, "minutes", None)


def read(rows, settings):
    """Returns what is reported of rows."""
    return DEPTH_FACTOR.findings(pl.DataFrame(rows, infer_schema_length=None), settings)


def test_it_says_how_much_deeper_twins_are(settings):
    """The range, what lies within the bounds of the source, what each map cost, and the price."""
    result = read([made_up(4, 24), made_up(8, 32), made_up(2, 100)], settings).found
    assert "makes flows 4.00 to 50.0 times as deep, 6.00 times in the median" in result[0]
    assert "the source allows 47" in result[0] and "an upper bound" in result[0]
    assert result[1] == "Each map costs 3.00 to 49.0 more couplings."
    assert "3.00 to 3.00 times the condition number" in result[3]
    assert "takes 5.00 to 5.00 times as long" in result[4]
    assert result[5] == "3 of 3 trained flows were rewritten with one partition."


def test_the_chart_has_the_factors_of_the_source(settings):
    """Two lines, next to a point for each flow."""
    chart = read([made_up(4, 24), made_up(8, 40)], settings).charts[0]
    points, least, most = chart.panels[0].series
    assert (points.x, points.y) == ([4, 8], [24, 40])
    assert (least.y, most.y) == ([20, 40], [188, 376])


def test_a_flow_without_a_twin_is_named(settings):
    """In the table, with all others; where none has one that is what is reported."""
    lost = {name: None for name in made_up(4, 24) if name.startswith(("coupl", "twin", "map"))}
    findings = read([made_up(4, 24), made_up(8, 40, **lost)], settings)
    assert findings.found[-1] == "1 of 2 trained flows were rewritten with one partition."
    assert findings.tables[0].rows[1][:2] == ["magic, 10, 8 couplings", "none found"]
    nothing = read([made_up(8, 40, **lost)], settings)
    assert len(nothing.found) == 1 and nothing.charts == []


def test_each_preset_has_cases(settings):
    """Large images first."""
    full = settings_of(DEPTH_FACTOR, "full", None)
    assert 0 < len(DEPTH_FACTOR.cases(settings, 0)) < len(DEPTH_FACTOR.cases(full, 0))
    assert DEPTH_FACTOR.cases(full, 0)[0]["data"] == "faces"
