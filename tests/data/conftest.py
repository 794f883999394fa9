"""Small tables and files that the tests of kappaflow.data share."""

import numpy as np
import pytest
from numpy.typing import NDArray


@pytest.fixture
def healthy() -> NDArray[np.float64]:
    """Returns 400 rows of 4 correlated Gaussian columns with which nothing is wrong."""
    generator = np.random.default_rng(7)
    mixing = np.array([[1, 0, 0, 0], [0.5, 2, 0, 0], [-1, 0.3, 1, 0], [0.2, 0, 0.9, 3]])
    return generator.standard_normal((400, 4)) @ mixing.T + [0.0, 5.0, -2.0, 100.0]
