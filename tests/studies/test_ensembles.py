"""Random matrices: the same for the same name, size and number, with the spectra they promise."""

import numpy as np
import pytest

from kappaflow_studies import ensembles


def test_every_ensemble_has_positive_determinants_and_its_own_spectrum():
    """But the odd permutations; and the same draw is the same matrix."""
    for name in ensembles.ENSEMBLES:
        for number in range(6):
            matrix = ensembles.draw(name, 6, number)
            assert np.linalg.slogdet(matrix)[0] > 0
            assert (matrix == ensembles.draw(name, 6, number)).all()
    assert np.linalg.cond(ensembles.draw("geometric 1e4", 6, 0)) == pytest.approx(1e4)
    kinds = {name: ensembles.count(name, 4) for name in ensembles.NUMBERED}
    assert kinds == {"even permutations": 12, "odd permutations": 12}
    for name, sign in ensembles.NUMBERED.items():
        result = [ensembles.draw(name, 4, i) for i in range(12)]
        assert {round(np.linalg.det(matrix)) for matrix in result} == {sign}
        assert len({matrix.tobytes() for matrix in result}) == 12


def test_a_toeplitz_matrix_is_constant_along_its_diagonals():
    """And is no other matrix than that."""
    matrix = ensembles.draw("Toeplitz", 7, 3)
    assert (matrix[1:, 1:] == matrix[:-1, :-1]).all()
    assert len(np.unique(matrix)) == 13


def test_the_three_cycle_is_the_one_that_no_five_couplings_make():
    """The identity next to a cycle."""
    matrix = ensembles.draw("three-cycle", 8, 0)
    assert (matrix[:5, :5] == np.eye(5)).all()
    assert (np.linalg.matrix_power(matrix, 3) == np.eye(8)).all()
    assert not (matrix == np.eye(8)).all()
