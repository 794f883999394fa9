"""Weights of rows: twice the weight is the row twice, weight zero no row."""

import numpy as np
import pytest
import torch

import kappaflow as kf
from kappaflow.data import load_table, weighted
from kappaflow.errors import ArgumentError
from kappaflow.training import batch_of
from kappaflow.training.measure import likelihood_figures

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(60, 2, generator=GENERATOR).double() * torch.tensor([1.0, 4.0])
HELD_OUT = torch.randn(20, 2, generator=GENERATOR).double()
TIMES = np.arange(60) % 4  # 0, 1, 2 or 3 times


def fitted(data, **settings):
    """Returns the weights of a small flow after full-batch training on data."""
    torch.manual_seed(0)
    flow = kf.real_nvp(2, depth=2, hidden=(8,)).double()
    next(iter(flow.bijection)).fit(X)  # the same units for all
    kf.fit(
        flow,
        data,
        validation=HELD_OUT,
        max_epochs=5,
        batch_size=1000,
        progress=False,
        **settings,
    )
    return torch.cat([parameter.detach().flatten() for parameter in flow.parameters()])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::kappaflow.errors.DataWarning")
def test_a_weight_of_two_is_the_row_twice_and_of_zero_no_row():
    repeated = X[np.repeat(np.arange(60), TIMES)]
    by_weight = fitted(X, weights=TIMES)
    torch.testing.assert_close(by_weight, fitted(repeated), atol=1e-12, rtol=1e-10)
    assert (by_weight - fitted(X)).abs().max() > 1e-3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::kappaflow.errors.DataWarning")
def test_only_ratios_of_weights_count():
    torch.testing.assert_close(
        fitted(X, weights=TIMES), fitted(X, weights=TIMES * 1e-6), atol=1e-12, rtol=1e-10
    )


def test_held_out_likelihoods_are_weighted_too():
    table = weighted(load_table(X.numpy()), TIMES)
    flow = kf.real_nvp(2, depth=2, hidden=(8,)).double()
    flow.eval()
    found = likelihood_figures(flow, batch_of(table, flow))["validation_nll"]
    nll = -flow.log_prob(X).detach().numpy()
    assert found == pytest.approx(np.average(nll, weights=TIMES), abs=1e-12)


def test_weights_follow_their_rows_through_a_split():
    table = weighted(load_table(X.numpy()), TIMES)
    part, _ = kf.data.split(table, fractions=(0.5, 0.5))
    assert np.array_equal(part.weights, TIMES[part.rows - 1])
    assert part.fingerprint() != load_table(part.values).fingerprint()
    assert kf.data.drop_duplicate_rows(table)[1] == 0


@pytest.mark.parametrize(
    "weights", [np.ones(3), -np.ones(60), np.zeros(60), np.full(60, np.nan), "many"]
)
def test_other_weights_are_refused_in_a_sentence(weights):
    with pytest.raises(ArgumentError, match="'weights' should"):
        kf.fit(kf.real_nvp(2, depth=2, hidden=(8,)), X.float(), weights=weights)
