"""Mixtures on a sphere: flows of a budget, what is measured of them, and what is reported."""

from math import log

import polars as pl
import pytest
import torch

from kappaflow import CouplingStack
from kappaflow.errors import ArgumentError
from kappaflow_studies.engine.presets import settings_of
from kappaflow_studies.engine.study import frame_of
from kappaflow_studies.sphere import SPHERE
from kappaflow_studies.sphere.bounds import LayerClass, min_depth, min_parameters
from kappaflow_studies.sphere.measure import flow_of_budget, measure
from kappaflow_studies.sphere.packing import mixture_packing

FLOW = {
    "kind": "flow",
    "components": 1,
    "features": 2,
    "sigma": 0.05,
    "depth": 2,
    "budget": 200,
    "seed": 0,
    "steps": 60,
    "batch_size": 128,
    "learning_rate": 5e-3,
    "points": 200,
}
SMALL = {
    "mixtures": ((4, 2),),
    "budgets": (100, 200),
    "depths": (1, 2),
    "seeds": 1,
    "steps": 4,
    "batch_size": 32,
    "points": 50,
    "components": (4,),
    "features": (2,),
    "family_components": (3,),
    "tuples": 5,
    "bound_components": (8, 16),
    "bound_features": (16,),
}


def settings(**changed):
    """Returns the settings of the short preset, but for these."""
    return settings_of(SPHERE, "minutes", None).model_copy(update=SMALL | changed)


@pytest.mark.slow
@pytest.mark.parametrize(("features", "depth"), [(2, 3), (5, 16), (32, 1)])
def test_a_flow_of_a_budget_uses_nearly_all_of_it(features, depth):
    """Never more; the depth is the one of the case."""
    flow = flow_of_budget(features, depth, 5000)
    assert 4700 < sum(p.numel() for p in flow.parameters()) <= 5000
    stacks = [part for part in flow.bijection if isinstance(part, CouplingStack)]
    assert sum(len(stack.to_chain()) for stack in stacks) == depth
    with pytest.raises(ArgumentError, match="'budgets' should be larger, got 10: "):
        flow_of_budget(features, depth, 10)


@pytest.mark.slow
def test_a_flow_learns_a_single_gaussian():
    """Standardized, it starts close to it: all distances are near 0 or the floor, and exact."""
    (row,) = measure(FLOW)
    assert abs(row["divergence"]) < 0.05 and row["total_variation"] < 0.1
    assert row["two_sample"] == pytest.approx(row["floor"], rel=0.5)
    assert row["stretch_to_data"] == pytest.approx(0.05, rel=0.3)
    assert row["stretch_to_latent"] == pytest.approx(20, rel=0.3)
    assert row["tearing_bound"] == 0 and row["volume_bound"] <= row["total_variation"]
    assert row["parameters"] <= 200


def test_a_flow_that_is_hardly_trained_is_far_from_a_mixture():
    """It is a Gaussian, whose divergence from separate modes is large; bounds stay below."""
    case = {**FLOW, "components": 8, "features": 4, "steps": 1, "learning_rate": 1e-6}
    (row,) = measure(case)
    spread = (1 / 4 + 0.05**2) / 0.05**2  # of the variances of flow and component
    assert row["divergence"] == pytest.approx(2 * log(spread) - log(8), rel=0.25)
    assert row["total_variation"] > 0.9
    assert row["two_sample"] > 2 * row["floor"] > 0
    assert 0 < row["tearing_bound"] < row["total_variation"]


def test_a_training_that_fails_is_a_row_that_says_so():
    """The experiment continues."""
    (row,) = measure({**FLOW, "learning_rate": 1e30, "steps": 200})
    assert "divergence" not in row and row["failed"]


def test_a_generator_is_level_with_the_floor():
    """And float32 moves its points by rounding only."""
    case = {**FLOW, "kind": "generator", "components": 16, "features": 8, "accuracy": 0.01}
    (row,) = measure(case)
    assert row["two_sample"] == pytest.approx(row["floor"], rel=0.3)
    assert 0 < row["wasserstein_bound"] < 0.004 * row["mean_distance"]
    assert 0 < row["float32_gap"] < 1e-5
    assert row["numbers"] == 15 * 12 + 56


def test_a_family_is_measured_over_all_pairs():
    """The smallest is below the mean, and above what is predicted of it."""
    case = {"kind": "family", "components": 8, "features": 16, "sigma": 0.01, "seed": 1}
    (row,) = measure({**case, "tuples": 6})
    assert row["predicted"] < row["smallest"] < row["mean"]
    assert row["nearest"] < row["mean"]
    assert row["smallest"] - 2 * 0.01 * 4 - 0.01 < row["smallest_of_mixtures"] < row["smallest"]


def test_the_bound_is_that_of_the_theory():
    """A row for each size of layers; none where there is no family."""
    case = {"kind": "bound", "components": 64, "features": 32, "sigma": 0.05, "distance": 0.1}
    layers = {"layer_parameters": [1, 8], "layer_lipschitz": 2.0, "whole_lipschitz": 50.0}
    rows = measure(case | layers)
    family = mixture_packing(64, 32, distance=0.1, sigma=0.05)
    assert [row["min_depth"] for row in rows] == [
        min_depth(family, LayerClass(p, 2.0, 2.0, 50.0), 32) for p in (1, 8)
    ]
    assert rows[0]["min_depth"] > rows[1]["min_depth"] > 1
    assert rows[0]["min_parameters"] == min_parameters(family)
    assert measure(case | layers | {"distance": 1.5}) == []


@pytest.mark.parametrize("preset", ["minutes", "full"])
def test_the_presets_make_cases_that_differ(preset):
    """Seeds of one run are not those of another; deep flows come first."""
    preset_settings = settings_of(SPHERE, preset, None)
    cases = SPHERE.cases(preset_settings, 0)
    assert len({str(case) for case in cases}) == len(cases)
    flows, others = (
        [case for case in SPHERE.cases(preset_settings, seed) if case["kind"] == "flow"]
        for seed in (0, 1)
    )
    assert not {case["seed"] for case in flows} & {case["seed"] for case in others}
    assert (flows[0]["depth"], flows[-1]["depth"]) == (32, 1)


def flow_row(depth, budget, divergence, **more):
    """Returns a row of a flow as it is measured."""
    numbers = {"total_variation": 0.5, "tearing_bound": 0.1, "volume_bound": 0.0}
    numbers |= {"two_sample": 0.3, "floor": 0.2, "stretch_to_data": float(depth), "parameters": 99}
    numbers |= {"condition_number_median": 9.0}
    shared = {"kind": "flow", "components": 4, "features": 2, "depth": depth, "budget": budget}
    return {**shared, **numbers, "divergence": divergence, **more}


def test_what_is_said_follows_the_numbers():
    """The best depth, the floor, the bounds; medians over seeds."""
    frame = pl.DataFrame(
        [
            *(flow_row(1, 100, x) for x in (4.0, 3.0, 9.0)),
            flow_row(2, 100, 2.5, two_sample=0.25, tearing_bound=0.25),
            flow_row(1, 200, 2.0),
            flow_row(2, 200, 3.0, tearing_bound=0.6),
            {"kind": "flow", "components": 4, "features": 2, "depth": 2, "budget": 200},
            {"kind": "generator", "components": 4, "features": 2, "numbers": 41, "hidden_units": 9}
            | {"two_sample": 0.21, "floor": 0.2, "wasserstein_bound": 0.01, "mean_distance": 0.5}
            | {"float32_gap": 1e-7},
            {"kind": "family", "components": 3, "features": 2, "smallest": 0.5, "mean": 1.0}
            | {"predicted": 0.25, "nearest": 0.9, "smallest_of_mixtures": 0.4},
            {"kind": "bound", "components": 8, "features": 16, "layer_size": 8, "min_depth": 5}
            | {"min_parameters": 12.0, "generator_numbers": 1234},
        ],
        infer_schema_length=None,
    )
    findings = SPHERE.findings(frame, settings())
    message = " ".join(findings.found)
    for number in (
        "100 parameters: 4.00 at depth 1, least 2.50 at depth 2", "the best flow 0.250",
        "200 parameters: 2.00 at depth 1, least 2.00 at depth 1", "in 5 of 6 flows: 20 to 120 %",
        "at most 0.25 % of the measured divergence; it holds in 6 of 6", "in 1 of 1 families",
    ):  # fmt: skip
        assert number in message
    charts = {chart.name: chart for chart in findings.charts}
    series = charts["wasserstein"].panels[0].series
    assert [line.name for line in series[2:]] == ["the generator", "two samples of it"]
    assert [line.y for line in series[2:]] == [[0.21, 0.21], [0.2, 0.2]]
    assert charts["divergence"].panels[0].series[0].y == [4.0, 2.5]
    assert charts["variation"].panels[0].series[2].y == [0.1, 0.25]


def test_a_kind_without_results_is_not_spoken_of():
    """As where the bound finds no family at all, or every training failed."""
    frame = pl.DataFrame({"kind": ["generator"], "components": [4], "features": [2]})
    assert SPHERE.findings(frame, settings()).found == []


@pytest.mark.slow
def test_all_kinds_are_measured_and_spoken_of():
    """With few steps: each case has its rows, each chart its lines."""
    small = settings()
    measured = [(case, measure(case), 0.1) for case in SPHERE.cases(small, 0)]
    torch.randn(3)
    assert all(measure(case) == rows for case, rows, _ in measured)  # whatever was sampled before
    assert all(rows for _, rows, _ in measured)
    findings = SPHERE.findings(frame_of(measured), small)
    assert len(findings.found) == 8
    for chart in findings.charts:
        for panel in chart.panels:
            assert panel.series and all(series.y for series in panel.series)
