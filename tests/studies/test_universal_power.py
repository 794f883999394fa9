"""Exponents of power laws."""

import numpy as np
import pytest

from kappaflow.errors import ArgumentError
from kappaflow_studies.universal.approximation import power_law


def test_an_exact_law_is_found():
    """Exponent and factor, with no width of the interval."""
    law = power_law([0.1, 0.2, 0.4, 0.8], [3 * x**4 for x in (0.1, 0.2, 0.4, 0.8)])
    assert law.exponent == pytest.approx(4) and law.factor == pytest.approx(3)
    assert law.high - law.low < 1e-10


@pytest.mark.slow
def test_the_interval_covers_as_often_as_it_says():
    """Of 400 noisy lines 95 %, within four standard errors."""
    generator = np.random.default_rng(0)
    x = np.geomspace(0.01, 1, 6)
    covered = 0
    for _ in range(400):
        law = power_law(x, x**1.5 * np.exp(generator.normal(0, 0.2, len(x))))
        covered += law.low <= 1.5 <= law.high
    assert abs(covered / 400 - 0.95) < 4 * (0.95 * 0.05 / 400) ** 0.5


@pytest.mark.parametrize(
    ("x", "y"),
    [([1, 2], [1, 2]), ([1, 1, 2], [1, 2, 3]), ([1, 2, 3], [1, 2, 0]), ([1, 2, 3], [1, 2])],
)
def test_too_little_for_an_interval_is_refused(x, y):
    """Two points, a zero, or lists of two lengths."""
    with pytest.raises(ArgumentError, match="'x' and 'y' should"):
        power_law(x, y)
