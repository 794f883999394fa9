"""KF301 says where the condition number grows over depth, and at which row it is largest."""

import dataclasses
import math

import pytest
import torch

import kappaflow as kf
from diagnosis.faulty import alone, findings, points
from kappaflow.diagnosis.checks.conditioning import growth_of


def stretched(*factors):
    """A flow of two features with a layer per factor, which stretches the first one."""
    scales = [[math.log(factor), 0.0] for factor in factors]
    layers = [kf.bijections.ElementwiseAffine(2, log_scale=scale) for scale in scales]
    return alone(*layers, features=2)


POINTS = 1e-6 * points(n=8, features=2)  # near 0, so that nothing overflows


def with_condition_numbers(*numbers):
    """A profile with these cumulative condition numbers, one row per layer."""
    profile = kf.profile(stretched(*[1.0] * len(numbers)), POINTS[: len(numbers[0])])
    numbers = torch.tensor(numbers, dtype=torch.float64)
    return dataclasses.replace(profile, sigma_max=numbers, sigma_min=torch.ones_like(numbers))


def test_even_growth_is_a_factor_per_layer():
    """Eight layers of 5 each: all grow, and the geometric mean is named."""
    finding = findings(stretched(*[5.0] * 8), POINTS)["KF301"]
    assert "At row " in finding.cause
    assert finding.cause.endswith("the condition number grows by 5 per layer: in 8 of 8 layers.")
    assert finding.evidence["factor_a_layer"] == pytest.approx(5, rel=1e-5)
    assert finding.evidence["layers_growing"] == 8


def test_growth_in_one_layer_names_it():
    """The third of five has most of the growth."""
    finding = findings(stretched(2.0, 2.0, 3e5, 2.0, 2.0), POINTS)["KF301"]
    assert finding.cause.endswith(
        "the worst, most of the growth is in layer 3 ElementwiseAffine: a factor of 3e+05."
    )
    assert finding.evidence["largest_factor_layer"] == "3 ElementwiseAffine"
    assert finding.evidence["largest_factor"] == pytest.approx(3e5, rel=1e-5)


def test_the_worst_row_is_that_of_the_whole_flow():
    """Only its own growth counts; rows that are not finite are skipped."""
    evidence, _ = growth_of(with_condition_numbers([1e9, 2.0, 3.0], [10.0, 30.0, 5.0]))
    assert evidence == {
        "worst_point": 1,
        "layers_growing": 2,
        "factor_a_layer": pytest.approx(30**0.5),
        "largest_factor": pytest.approx(15),
        "largest_factor_layer": "2 ElementwiseAffine",
    }
    evidence, _ = growth_of(with_condition_numbers([2.0] * 3, [math.inf, 4.0, math.nan]))
    assert evidence["worst_point"] == 1


def test_layers_that_reduce_the_condition_number_do_not_count_as_growing():
    """A rise that is undone later is not growth."""
    evidence, sentence = growth_of(with_condition_numbers([10.0], [1e3], [10.0], [1e3], [100.0]))
    assert evidence["layers_growing"] == 3
    assert "grows by 2.5 per layer: in 3 of 5 layers" in sentence


def test_samples_are_not_called_rows():
    """Without rows the doctor uses samples of the flow."""
    assert " At sample " in findings(stretched(1e-3, 1e-3, 1e-3), None)["KF301"].cause


def test_the_worst_row_is_found():
    """One of many rows lies where a coupling stretches."""
    coupling = kf.AffineCoupling(kf.Partition.half(2), kf.nets.MLP(1, 2, ()), scale_bound=14.0)
    with torch.no_grad():
        coupling.conditioner.layers[0].weight[0] = 1.0
    x = torch.zeros(20, 2)
    x[13, 0] = 20.0
    finding = findings(alone(coupling, features=2), x)["KF301"]
    assert finding.evidence["worst_point"] == 13 and "At row 13, the worst" in finding.cause
