"""`partition`: flows of equal parameters, one measurement, and what is read from all of them."""

import polars as pl
import pytest
import torch

import kappaflow as kf
from kappaflow.testing.contract import jittered
from kappaflow_studies.engine.presets import settings_of
from kappaflow_studies.partition import PARTITION
from kappaflow_studies.partition.measure import (
    HALVES,
    IMAGE_KINDS,
    LAST_CHANGES,
    TABLE_KINDS,
    image_flow,
    measure,
    parameters,
    table_flow,
    widths,
)

FEATURES = {"magic": 10, "bananas-8": 8}
SMALL = {"hidden": 8, "epochs": 1, "batch_size": 64, "learning_rate": 5e-3, "points": 4, "seed": 0}
TABLE = {**SMALL, "what": "table", "data": "bananas-4", "rows": 256, "depth": 2}


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["minutes", "full"])
def test_flows_of_one_depth_have_equally_many_parameters(preset):
    """Within two percent, maps counted, on each table and on the digits."""
    settings = settings_of(PARTITION, preset, None)
    assert set(settings.tables) == set(FEATURES) and settings.images == ("digits",)
    hidden, depth = settings.hidden, settings.depths[0]
    for features in FEATURES.values():
        equal = parameters(table_flow(HALVES, features, depth, (hidden, hidden), 0))
        for kind in TABLE_KINDS:

            def count(a, b, kind=kind, features=features):
                return parameters(table_flow(kind, features, depth, (a, b), 0))

            chosen = widths(count, equal, hidden)
            assert abs(count(*chosen) / equal - 1) < 0.02, (kind, chosen)
            assert max(chosen) < 1.3 * min(chosen)
    for steps in settings.steps:
        built = [
            parameters(image_flow(kind, (1, 8, 8), 17, steps, settings.channels))
            for kind in IMAGE_KINDS
        ]
        assert max(built) / min(built) < 1.02, steps


@pytest.mark.slow
def test_a_permutation_that_exchanges_halves_is_a_fixed_partition():
    """Rewriting such a Glow on halves costs no coupling; other permutations cost some."""
    x = torch.randint(0, 17, (4, 1, 8, 8)).float()
    for kind, costs in ((HALVES, False), ("permutations", True)):
        flow = jittered(image_flow(kind, (1, 8, 8), 17, 2, 4))
        flow.log_prob(x)  # starts what is started from data
        flow.eval()
        assert sum(isinstance(part, kf.bijections.Permutation) for part in flow.modules()) == 4
        _, message = kf.rewrite_fixed_partition(flow, x)
        assert (message.couplings_after > message.couplings_before) == costs
        assert message.differences["float64"].log_prob < 1e-9


def test_the_kinds_are_what_they_are_called():
    """Partitions and maps, by name."""
    built = {kind: table_flow(kind, 6, 2, (4, 4), 0) for kind in TABLE_KINDS}
    kept = {
        kind: {
            part.partition.kept for part in flow.modules() if isinstance(part, kf.AffineCoupling)
        }
        for kind, flow in built.items()
    }
    assert kept["LU maps"] == kept["orthogonal maps"] == {(0, 1, 2)}
    assert kept[LAST_CHANGES] == {(0, 1, 2, 3, 4)}
    stacks = {
        kind: next(iter(built[kind].core)) for kind in (HALVES, "alternating", "permutations")
    }
    assert stacks[HALVES].partitions[1].kept == (3, 4, 5)
    assert stacks["alternating"].partitions[0].kept == (0, 2, 4)
    assert all(index is not None for index in stacks["permutations"].permutations)
    for kind, layer in (("LU maps", kf.bijections.LULinear), (LAST_CHANGES, kf.bijections.Linear)):
        assert sum(isinstance(part, layer) for part in built[kind].modules()) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "data"), [("LU maps", "bananas-4"), (LAST_CHANGES, "bananas-6")])
def test_a_case_measures_a_flow_and_its_twin(kind, data):
    """Same loss to rounding, more couplings; the numbers are those of a trained flow."""
    (row,) = measure({**TABLE, "kind": kind, "data": data})
    assert row["twin_couplings_after"] > row["couplings"] == 2
    assert row["twin_difference_float64"] < 1e-9
    assert row["twin_loss"] == pytest.approx(row["loss"], abs=1e-4)
    assert row["twin_condition_middle"] == pytest.approx(row["condition_middle"], rel=1e-3)
    assert row["condition_low"] <= row["condition_middle"] <= row["condition_high"]
    assert 1 < row["worst_layer"] < row["peak"] * 10
    assert abs(row["parameters"] / row["of_halves"] - 1) < 0.2  # of networks this small


@pytest.mark.slow
def test_images_are_measured_in_bits():
    """A Glow of the digits, and its twin, channel by channel."""
    pytest.importorskip("sklearn")
    case = {**SMALL, "what": "image", "data": "digits", "kind": "orthogonal maps", "depth": 1}
    (row,) = measure({**case, "points": 2, "batch_size": 256})
    assert row["couplings"] == row["twin_couplings_before"] == 3
    assert 2 < row["loss"] < 9
    assert row["twin_difference_float64"] < 1e-9


def made_up(kind, depth, loss, seed=0, twin=None, **others):
    """Returns a row as it is measured."""
    row = {"what": "table", "data": "magic", "kind": kind, "depth": depth, "seed": seed}
    row |= {"couplings": depth, "parameters": 1000 + depth, "of_halves": 1000, "widths": [8, 9]}
    row |= {"condition_low": 2.0, "condition_middle": 4.0 + depth, "condition_high": 9.0}
    row |= {"loss": loss, "worst_layer": 3.0, "peak": 5.0}
    if twin is not None:
        figures = {"loss": loss, "couplings_before": depth, "couplings_after": twin, "maps": depth}
        figures |= {"difference_float64": 1e-13, "difference_float32": 2e-5}
        figures |= {"worst_layer": 6.0, "peak": 20.0}
        row |= {f"twin_{name}": value for name, value in figures.items()}
    return {**row, **others}


def read(rows, **changes):
    """Returns what is reported of rows."""
    settings = settings_of(PARTITION, "minutes", None).model_copy(update=changes)
    return PARTITION.findings(pl.DataFrame(rows, infer_schema_length=None), settings)


ROWS = [
    made_up(HALVES, 2, 8.0),
    made_up(HALVES, 4, 7.0),
    made_up(HALVES, 16, 5.5),
    made_up(HALVES, 32, 6.5),
    made_up("LU maps", 2, 7.0, twin=12),
    made_up("LU maps", 4, 6.0, twin=24),
    made_up(LAST_CHANGES, 4, 9.0, twin=90),
]


def test_it_says_what_maps_buy_and_what_training_misses():
    """At the largest common depth; the fixed halves that are deep enough for the twin."""
    message = " ".join(read(ROWS).found)
    for number in (
        "on 1 of 1 data sets", "worse than it on 1 of 1", "LU maps 6.000, fixed halves 7.000",
        "LU maps equal 24 of fixed halves, with 6.000", "end at 6.500, 0.500 worse",
        "with 32 couplings, and 1.0 times the parameters", "3 of 3 trained flows",
        "2.0 to 2.0 times", "costs 5.0 to 5.0 couplings",
    ):  # fmt: skip
        assert number in message
    deeper = " ".join(read([*ROWS, made_up(HALVES, 24, 5.75)]).found)
    assert "worse than it on 0 of 1" in deeper and "end at 5.750, 0.250 better" in deeper
    lost = made_up("permutations", 4, 6.5, twin_why_not="no")
    findings = read([*ROWS, lost])
    assert "3 of 4 trained flows" in findings.found[3]
    rows = [row[:3] for row in findings.tables[2].rows]
    assert ["magic, permutations, 4", "4", "none found"] in rows


def test_medians_and_ranges_are_over_seeds():
    """In the sentences, the chart and the table."""
    rows = [made_up(kind, 4, loss, seed) for seed, loss in enumerate((6.0, 7.0, 9.0))
            for kind in (HALVES, "permutations")]  # fmt: skip
    findings = read(rows, seeds=3)
    assert "the median of 3 seeds" in findings.found[0]
    assert findings.tables[0].rows[0] == ["magic, halves", "7.000 (6.000 to 9.000)"]
    line = findings.charts[0].panels[0].series[0]
    assert (line.y, line.low, line.high) == ([7.0], [6.0], [9.0])
    assert findings.tables[1].rows[0] == ["magic, halves", "8.00 (2.00 to 9.00)"]


def test_charts_show_twins_where_they_are():
    """At their own depth next to the trained halves; those of another partition are left out."""
    chart = next(chart for chart in read(ROWS).charts if chart.name == "twins")
    halves, twins = chart.panels[0].series
    assert (halves.x, halves.y) == ([2, 4, 16, 32], [8.0, 7.0, 5.5, 6.5])
    assert (twins.name, twins.x, twins.y) == ("twin of LU maps", [12, 24], [7.0, 6.0])
    layers = next(chart for chart in read(ROWS).charts if chart.name == "layers")
    names = [series.name for series in layers.panels[0].series]
    assert names == ["LU maps", "LU maps, twin", LAST_CHANGES, f"{LAST_CHANGES}, twin"]
