"""KF301 says where the condition number grows over depth, and at which row it is largest."""

import dataclasses
import math

import pytest
import torch

import kappaflow as kf
from kappaflow.diagnosis.checks.conditioning import growth_of


def stretched(*factors, features=2):
    """A flow with a layer per factor, which stretches the first feature."""
    rest = [0.0] * (features - 1)
    layers = [
        kf.bijections.ElementwiseAffine(features, log_scale=[math.log(factor), *rest])
        for factor in factors
    ]
    return kf.Flow(kf.StandardNormal(features), kf.Chain(layers))


def points(n=8):
    """Rows near 0, so that nothing overflows."""
    return 1e-6 * torch.randn(n, 2, generator=torch.Generator().manual_seed(0))


def with_condition_numbers(*numbers):
    """A profile with these cumulative condition numbers, one row per layer."""
    profile = kf.profile(stretched(*[1.0] * len(numbers)), points(len(numbers[0])))
    numbers = torch.tensor(numbers, dtype=torch.float64)
    return dataclasses.replace(profile, sigma_max=numbers, sigma_min=torch.ones_like(numbers))


def finding(flow, x=None):
    """KF301 of a flow."""
    diagnosis = kf.doctor(flow, points() if x is None else x)
    return next(one for one in diagnosis.findings if one.code == "KF301")


def test_even_growth_is_a_factor_per_layer():
    """Eight layers of 5 each: all grow, and the geometric mean is named."""
    found = finding(stretched(*[5.0] * 8))
    assert "At row " in found.cause
    assert found.cause.endswith("the condition number grows by 5 per layer: in 8 of 8 layers.")
    assert found.evidence["factor_a_layer"] == pytest.approx(5, rel=1e-5)
    assert found.evidence["layers_growing"] == 8


def test_growth_in_one_layer_names_it():
    """The third of five has most of the growth."""
    found = finding(stretched(2.0, 2.0, 3e5, 2.0, 2.0))
    assert found.cause.endswith(
        "the worst, most of the growth is in layer 3 ElementwiseAffine: a factor of 3e+05."
    )
    assert found.evidence["largest_factor_layer"] == "3 ElementwiseAffine"
    assert found.evidence["largest_factor"] == pytest.approx(3e5, rel=1e-5)


def test_the_worst_row_is_that_of_the_whole_flow():
    """Not the row that is worst in between; and only its own growth counts."""
    found = growth_of(with_condition_numbers([1e9, 2.0, 3.0], [10.0, 30.0, 5.0]))
    assert (found.point, found.layers, found.growing) == (1, 2, 2)
    assert found.per_layer == pytest.approx(30**0.5)
    assert (found.largest, found.layer) == (pytest.approx(15), "2 ElementwiseAffine")


def test_rows_that_are_not_finite_are_skipped():
    """The worst of the others is named."""
    found = growth_of(with_condition_numbers([2.0, 2.0, 2.0], [math.inf, 4.0, math.nan]))
    assert found.point == 1


def test_layers_that_reduce_the_condition_number_do_not_count_as_growing():
    """A rise that is undone later is not growth."""
    found = growth_of(with_condition_numbers([10.0], [1e3], [10.0], [1e3], [100.0]))
    assert (found.growing, found.in_one) == (3, False)
    assert found.per_layer == pytest.approx(100**0.2)
    assert "grows by 2.5 per layer: in 3 of 5 layers" in found.sentence("row 0")


def test_samples_are_not_called_rows():
    """Without rows the doctor uses samples of the flow."""
    flow = stretched(1e-3, 1e-3, 1e-3)
    causes = [one.cause for one in kf.doctor(flow).findings if one.code == "KF301"]
    assert len(causes) == 1 and " At sample " in causes[0]


def test_the_worst_row_is_found():
    """One of many rows lies where a coupling stretches."""
    coupling = kf.AffineCoupling(kf.Partition.half(2), kf.nets.MLP(1, 2, ()), scale_bound=14.0)
    with torch.no_grad():
        coupling.conditioner.layers[0].weight[0] = 1.0
    x = torch.zeros(20, 2)
    x[13, 0] = 20.0
    found = finding(kf.Flow(kf.StandardNormal(2), kf.Chain([coupling])), x)
    assert found.evidence["worst_point"] == 13
    assert "At row 13, the worst" in found.cause
