"""The bases: a mixture of normals against torch.distributions, fitted, trained and stored."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

import kappaflow as kf
from kappaflow.flows.mixture_fit import best_components

CENTERS = torch.tensor([[3.0, 0.0], [-3.0, 1.0]])


def two_clusters(n=2000, seed=0):
    """Returns rows of two narrow clusters, one with a quarter of the rows."""
    generator = torch.Generator().manual_seed(seed)
    which = (torch.rand(n, generator=generator) < 0.25).long()
    spread = torch.tensor([[0.2, 0.0], [0.1, 0.5]])
    return CENTERS[which] + torch.randn(n, 2, generator=generator) @ spread.T


def fitted():
    base = kf.flows.NormalMixture(2, components=2).double()
    base.fit(two_clusters())
    return base


def reference(base):
    """Returns the same density by torch.distributions."""
    lower = base.factors.tril(-1) + torch.diag_embed(base.factors.diagonal(dim1=1, dim2=2).exp())
    components = MultivariateNormal(base.means, precision_matrix=lower.mT @ lower)
    return MixtureSameFamily(Categorical(logits=base.logits), components)


def test_log_prob_is_that_of_torch_distributions():
    base, z = fitted(), 4 * torch.randn(50, 2, dtype=torch.float64)
    torch.testing.assert_close(base.log_prob(z), reference(base).log_prob(z))
    assert base.log_prob(z.bfloat16()).dtype == torch.float32


def test_fitting_finds_clusters_and_their_weights():
    base = fitted()
    order = base.means[:, 0].argsort(descending=True)
    torch.testing.assert_close(base.means[order], CENTERS.double(), rtol=0, atol=0.1)
    weights = base.logits.softmax(0)[order]
    torch.testing.assert_close(weights[1].item(), 0.25, rtol=0, atol=0.03)


def test_samples_follow_the_density_and_the_generator():
    base = fitted()
    z = base.sample(40_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    again = base.sample(40_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.equal(z, again)
    torch.testing.assert_close(z.mean(0), reference(base).mean, rtol=0, atol=0.06)
    torch.testing.assert_close(z.var(0), reference(base).variance, rtol=0.05, atol=0)
    assert base.sample(0).shape == (0, 2)


def test_temperature_zero_samples_the_means():
    flow = kf.real_nvp(2, depth=2, hidden=(4,), start={"components": 2})
    flow.standardization.fit(two_clusters())
    x = flow.sample(200, temperature=0.0, generator=torch.Generator().manual_seed(0))
    distance = torch.cdist(x, CENTERS).min(1).values
    assert distance.max() < 0.3
    assert len({tuple(row.tolist()) for row in x.round(decimals=3)}) == 2


@pytest.mark.slow
def test_a_flow_with_a_mixture_starts_at_the_mixture_trains_and_is_stored(tmp_path):
    """Its density integrates to one, and a loaded flow has the same."""
    x = two_clusters()
    flow = kf.spline(2, depth=2, hidden=(8,), start={"components": 2})
    assert not flow.standardization.fitted
    flow.standardization.fit(x)
    start = -flow.log_prob(x).mean().item()
    expected = -fitted().log_prob(x.double()).mean().item()
    assert start == pytest.approx(expected, abs=0.02)
    result = kf.fit(
        flow, x, max_epochs=2, learning_rate=1e-3, progress=False, out=tmp_path / "run"
    )
    grid = torch.linspace(-6, 6, 601)
    mass = flow.log_prob(torch.cartesian_prod(grid, grid)).exp().sum() * 0.02**2
    assert mass.item() == pytest.approx(1, abs=1e-3)
    assert any(p.grad is not None for p in flow.base.parameters())
    loaded = kf.load(tmp_path / "run")
    torch.testing.assert_close(loaded.log_prob(x), result.flow.log_prob(x), rtol=0, atol=0)


def test_the_number_of_components_follows_the_clusters():
    x = two_clusters().double().numpy()
    assert best_components(x) == 2
    assert best_components(np.random.default_rng(0).normal(size=(500, 3))) == 1
    assert best_components(x, seconds=0.0) <= 2
    for rows in range(1, 8):
        assert best_components(x[:rows]) == 1


def test_a_small_tight_cluster_is_a_component():
    """1 % of the rows within 0.05 of a point: k-means alone divides the others instead."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5_000, 5))
    x[:50] = 1 + 0.05 * x[:50]
    assert best_components(x) == 2
    base = kf.flows.NormalMixture(5, components=2)
    base.fit(torch.from_numpy(x))
    small = base.logits.softmax(0).argmin()
    assert base.logits.softmax(0)[small].item() == pytest.approx(0.01, rel=0.1)
    torch.testing.assert_close(base.means[small], torch.ones(5), rtol=0, atol=0.05)


def test_a_mixture_of_few_rows_is_fitted():
    """The densest place would be all of them."""
    base = kf.flows.NormalMixture(5, components=2)
    base.fit(torch.eye(5))
    assert base.log_prob(torch.eye(5)).isfinite().all()


def test_a_mixture_needs_as_many_finite_rows_as_components():
    base = kf.flows.NormalMixture(2, components=4)
    for rows, message in ((torch.randn(3, 2), "got 3"), (torch.full((5, 2), math.nan), "got 0")):
        with pytest.raises(kf.errors.DataError, match=f"of 4 components needs .* {message}"):
            base.fit(rows)
    with pytest.raises(kf.errors.ArgumentError, match="components"):
        kf.real_nvp(2, start={"components": 0})


def test_log_prob_of_narrow_clusters_far_from_zero_is_accurate_in_float32():
    base = kf.flows.NormalMixture(1, components=1)
    with torch.no_grad():
        base.means.fill_(100.0)
        base.factors.fill_(math.log(1e3))
    z = torch.tensor([[100.0], [100.001]])
    exact = kf.flows.NormalMixture(1, components=1).double()
    exact.load_state_dict(base.state_dict())
    torch.testing.assert_close(
        base.log_prob(z).double(), exact.log_prob(z.double()), rtol=1e-5, atol=0
    )


def test_a_mixture_counts_rows_by_their_weights():
    """Rows of weight 0 take no part."""
    x = two_clusters()
    flow = kf.real_nvp(2, depth=2, hidden=(4,), start={"components": 2})
    flow.standardization.fit_new(x, weights=(x[:, 0] > 0).float())
    means = flow.bijection.inverse(flow.base.means.detach())[0]
    assert (means[:, 0] > 2).all()


def test_log_prob_is_in_full_precision_under_autocast():
    base, z = kf.flows.NormalMixture(2, components=2), two_clusters()
    base.fit(z)
    expected = base.log_prob(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = base.log_prob(z)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def test_samples_of_a_float64_base_have_its_digits():
    z = kf.flows.NormalMixture(1, components=1).double().sample(50, dtype=torch.float64)
    assert not torch.equal(z, z.float().double())


def test_gradients_that_samples_do_not_carry_are_refused():
    """The weights of the components get none."""
    flow = kf.real_nvp(2, depth=2, hidden=(4,), start={"components": 2})
    with pytest.raises(kf.errors.ArgumentError, match="got NormalMixture: leave 'components' out"):
        flow.rsample(3)
    with pytest.raises(kf.errors.ArgumentError, match="leave 'components' out"):
        kf.fit_energy(flow, lambda x: -x.square().sum(1), steps=1)
    density = flow.as_distribution()
    assert not density.has_rsample and density.sample((3,)).shape == (3, 2)
