"""The construction, measured."""

import pytest

from kappaflow.errors import ArgumentError
from kappaflow_studies.universal.approximation import approximate, power_law
from kappaflow_studies.universal.targets import Ring


def test_error_and_singular_values_are_measured_together():
    """The bound holds, the quantiles are in order, and the product is the determinant."""
    found = approximate(Ring(), 0.05, samples=5000, points=200)
    scales = found.scales
    assert found.error.bound < scales.epsilon and found.status == "exact"
    assert list(found.sigma_min) == sorted(found.sigma_min)
    determinant = scales.low_digits * scales.eta * scales.eta_prime
    assert found.sigma_min[1] * found.sigma_max[1] == pytest.approx(determinant, rel=1e-3)
    assert found.two_sample_w2 is None and found.floor is None


def test_samples_are_no_farther_apart_than_samples_of_the_target():
    """Up to the error, and a quarter of the floor for chance; the floor is far above the error."""
    found = approximate(Ring(), 0.02, samples=1000, points=2, draws=400)
    assert found.floor > 2 * found.error.bound
    assert abs(found.two_sample_w2 - found.floor) < found.error.bound + found.floor / 4


@pytest.mark.slow
def test_the_smallest_singular_value_falls_like_the_fourth_power():
    """A little faster, since the bound on the input grows like a root of a logarithm."""
    errors = [0.2, 0.1, 0.05, 0.025]
    found = [approximate(Ring(), error, samples=1000, points=300) for error in errors]
    law = power_law(errors, [one.sigma_min[1] for one in found])
    assert 4 <= law.exponent < 4.3


def test_singular_values_are_right_where_inverting_is_not():
    """At a condition number near 1e21 the product is still the determinant."""
    found = approximate(Ring(), 1e-5, samples=1000, points=101)
    scales = found.scales
    determinant = scales.low_digits * scales.eta * scales.eta_prime
    assert found.sigma_min[1] < 1e-21
    assert found.sigma_min[1] * found.sigma_max[1] == pytest.approx(determinant, rel=1e-6)


@pytest.mark.parametrize("arguments", [{"points": 0}, {"draws": -1}, {"samples": 1}])
def test_nothing_to_measure_at_is_refused(arguments):
    """No points, fewer draws than none, or no spread."""
    with pytest.raises(ArgumentError, match="should be"):
        approximate(Ring(), 0.1, **arguments)
