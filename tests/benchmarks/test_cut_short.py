"""The gain at the end of a training, which KF506 judges by."""

import math

import pytest


def test_the_gain_is_that_of_the_last_epochs(benchmark):
    """The best of the last tenth against the best before it; infinite for a single epoch."""
    gain = benchmark("cut_short").gain
    nll = [5.0, 4.0, 3.0, 3.5, 3.2, 3.1, 3.0, 2.9, 2.8, 2.5]
    assert gain(nll, 0.1) == pytest.approx(0.3) and gain(nll, 0.5) == pytest.approx(0.5)
    assert gain([1.0, 2.0], 0.5) == 0.0
    assert gain([1.0], 0.5) == math.inf
