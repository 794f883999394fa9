"""A start that takes the correlations of the data away."""

import pytest
import torch

import kappaflow as kf
from kappaflow.errors import ArgumentError, DataError


def correlated(features, rows=400, seed=0):
    """Returns rows whose features are correlated and of different sizes."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(features, features, generator=generator)
    sizes = torch.logspace(-1, 1, features)
    return torch.randn(rows, features, generator=generator) @ mixing * sizes


def covariance(x):
    """Returns the covariance of rows, in float64."""
    return torch.cov(x.detach().double().T, correction=0)


@pytest.mark.slow
@pytest.mark.parametrize("features", [2, 3, 4, 7, 10])
def test_fitted_rows_have_unit_covariance(features):
    """In float64 to rounding, and by six couplings of one partition."""
    x = correlated(features).double()
    whiten = kf.factor.Whiten(features).double()
    assert torch.equal(whiten(x)[0], x), "the identity until it is fitted"
    whiten.fit(x)
    unit = torch.eye(features, dtype=torch.float64)
    assert (covariance(whiten(x)[0]) - unit).abs().max() < 1e-9
    half = kf.Partition.half(features)
    partitions = [part.partition for part in whiten.couplings]
    assert partitions == [half.swapped(), half] * 3
    assert max(part.condition_number for part in whiten.couplings) < 100


@pytest.mark.slow
@pytest.mark.parametrize("scales", [(1, 1, 1, 1), (1, 2, 1, 1), (3, 1, 2, 4)])
def test_a_fit_with_fewer_couplings_removes_an_earlier_fit(scales):
    """The identity uses none of the six, a diagonal matrix one or two."""
    whiten = kf.factor.Whiten(4).double()
    whiten.fit(correlated(4).double())
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 4).double()
    rows = signs * torch.tensor(scales)
    whiten.fit(rows)
    assert (covariance(whiten(rows)[0]) - torch.eye(4)).abs().max() < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [kf.real_nvp, kf.nice])
def test_a_fresh_flow_whitens_the_training_rows(recipe):
    """After the standardization; the first fit sets it, a second one does not."""
    x = correlated(5)
    flow = recipe(5, depth=4, hidden=(8,), start="whiten")
    _, whiten, *_ = flow.bijection
    assert isinstance(whiten, kf.factor.Whiten)
    assert not whiten.fitted
    kf.fit(flow, x, validation=x[:50], max_epochs=1, learning_rate=1e-12)
    assert whiten.fitted
    assert (covariance(flow.bijection(x)[0]) - torch.eye(5)).abs().max() < 1e-4
    before = [part.weight.clone() for part in whiten.couplings]
    kf.fit(flow, 2 * x, validation=x[:50], max_epochs=1, learning_rate=1e-12)
    pairs = zip(before, whiten.couplings, strict=True)
    assert all(torch.allclose(weight, part.weight, atol=1e-6) for weight, part in pairs)


def test_one_feature_has_nothing_to_decorrelate():
    """The recipe leaves the layer out; the layer itself raises an error."""
    assert len(kf.real_nvp(1, start="whiten").bijection) == len(kf.real_nvp(1).bijection)
    with pytest.raises(ArgumentError, match="at least 2"):
        kf.factor.Whiten(1)
    with pytest.raises(ArgumentError, match="'start' should be"):
        kf.real_nvp(4, start="hot")


def test_dependent_columns_are_refused():
    """They have no inverse covariance; the couplings do not change."""
    x = correlated(4).double()
    x[:, 3] = x[:, 0] - x[:, 1]
    whiten = kf.factor.Whiten(4).double()
    with pytest.raises(DataError, match="next to no variance"):
        whiten.fit(x)
    assert not whiten.fitted


@pytest.mark.parametrize(
    "rows",
    [
        torch.full((5, 3), float("nan")),
        torch.tensor([[1.0, 2.0, float("inf")], [0.0, 1.0, 2.0]]),
        torch.zeros(0, 3),
        1e200 * torch.eye(3, dtype=torch.float64),
    ],
    ids=["nan", "inf", "no rows", "huge"],
)
def test_rows_without_a_finite_covariance_are_refused(rows):
    """The error names likely causes."""
    whiten = kf.factor.Whiten(3)
    with pytest.raises(DataError, match="covariance is not finite"):
        whiten.fit(rows)
    assert not whiten.fitted
