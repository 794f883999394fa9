"""Whitening by ideal couplings: the bounds, against draws of rotations."""

import math

import pytest
import torch
from scipy.stats import ortho_group

from kappaflow_studies.depth_conditioning.ideal_couplings import (
    after_ideal_coupling,
    expected_non_standardness,
    last_whitening_factor,
    non_standardness,
    whitening_factor,
)


def spectrum(n, condition_number):
    """Returns a geometric spectrum of mean 1."""
    values = torch.logspace(0, math.log10(condition_number), n, dtype=torch.float64)
    return values / values.mean()


def rotated(eigenvalues, count, seed=0):
    """Returns covariances with these eigenvalues, turned at random."""
    n = len(eigenvalues)
    turns = torch.from_numpy(ortho_group.rvs(n, size=count, random_state=seed)).reshape(-1, n, n)
    return turns @ torch.diag(eigenvalues) @ turns.mT


def test_it_is_the_divergence_from_the_standard_normal():
    """What torch says of two Gaussians."""
    covariance = rotated(spectrum(5, 30.0), 1)[0]
    law, standard = (
        torch.distributions.MultivariateNormal(torch.zeros(5, dtype=torch.float64), matrix)
        for matrix in (covariance, torch.eye(5, dtype=torch.float64))
    )
    expected = torch.distributions.kl_divergence(law, standard)
    torch.testing.assert_close(non_standardness(covariance), expected)


def test_the_ideal_coupling_is_ideal():
    """No other shift and scale, found by descent, brings the covariance nearer."""
    covariance = rotated(spectrum(4, 50.0), 1)[0]
    numbers = (0.1 * torch.randn(2, 3, dtype=torch.float64)).requires_grad_()
    kept_scale = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    parameters = [numbers, kept_scale]
    optimizer = torch.optim.LBFGS(parameters, max_iter=500, tolerance_grad=1e-12)

    def loss():
        top = torch.cat((torch.diag(kept_scale.exp()), torch.zeros(2, 2)), 1)
        bottom = torch.cat((numbers[:, :2], torch.diag(numbers[:, 2].exp())), 1)
        matrix = torch.cat((top, bottom))
        value = non_standardness(matrix @ covariance @ matrix.T)
        optimizer.zero_grad()
        value.backward()
        return value

    optimizer.step(loss)
    best = non_standardness(after_ideal_coupling(covariance, 2))
    torch.testing.assert_close(loss().detach(), best, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("condition_number", [1.5, 10.0, 1000.0])
@pytest.mark.parametrize(("n", "kept"), [(2, 1), (6, 3), (7, 2), (16, 8)])
def test_the_expectation_is_below_both_bounds(n, kept, condition_number):
    """Over 2000 rotations, by five standard errors; and the sharper bound is the sharper."""
    eigenvalues = spectrum(n, condition_number)
    result = non_standardness(after_ideal_coupling(rotated(eigenvalues, 2000), kept))
    before = -eigenvalues.log().sum().item() / 2
    sharp = expected_non_standardness(eigenvalues, kept).item()
    blunt = before * whitening_factor(before, n, kept)
    assert result.mean() + 5 * result.std() / math.sqrt(2000) < sharp
    assert sharp <= blunt < before


@pytest.mark.parametrize(("n", "kept"), [(2, 1), (6, 3), (7, 2), (16, 8)])
def test_close_to_the_identity_the_factor_is_exact(n, kept):
    """For a condition number of 1.01, within five standard errors."""
    eigenvalues = spectrum(n, 1.01)
    before = -eigenvalues.log().sum().item() / 2
    result = non_standardness(after_ideal_coupling(rotated(eigenvalues, 4000), kept)) / before
    allowed = 5 * result.std() / math.sqrt(4000) + 0.01
    assert abs(result.mean() - last_whitening_factor(n, kept)) < allowed


def test_the_factor_grows_with_the_loss():
    """So its power bounds several layers; near zero it is 1 - 2 p q / ((n - 1) (n + 2))."""
    factors = [whitening_factor(loss, 10, 4) for loss in (1e-9, 1e-3, 0.1, 1.0, 5.0)]
    assert factors == sorted(factors) and factors[-1] < 1
    assert factors[0] == pytest.approx(1 - 2 * 4 * 6 / (9 * 12), rel=1e-4)
    assert last_whitening_factor(10, 4) < factors[0]


@pytest.mark.parametrize("n", [2, 4, 8])
def test_equicorrelated_features_take_a_layer_for_each_binary_digit(n):
    """Each half stays equicorrelated, with a correlation that is not zero, down to one feature."""
    covariance = torch.full((n, n), 0.3, dtype=torch.float64).fill_diagonal_(1)
    while n > 1:
        assert non_standardness(covariance) > 1e-4
        after = after_ideal_coupling(covariance, n // 2)
        n //= 2
        covariance = after[n:, n:]
        off = covariance[~torch.eye(n, dtype=torch.bool)]
        assert n == 1 or (off.std() < 1e-12 < abs(off).min())
    torch.testing.assert_close(covariance, torch.ones(1, 1, dtype=torch.float64))
