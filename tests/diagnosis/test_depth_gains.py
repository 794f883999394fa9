"""Gains over depth add up, have the right errors, and name layers that do nothing."""

import copy

import numpy as np
import pytest
import torch
from scipy import stats

import kappaflow as kf
from cases import bent_rows
from kappaflow.conditioning import layers_of
from kappaflow.errors import ArgumentError


@pytest.fixture(scope="module")
def flow():
    """Returns a trained flow of six couplings."""
    torch.manual_seed(0)
    flow = kf.spline(3, depth=6, hidden=(24,))
    kf.fit(flow, bent_rows(2_000, 0), max_epochs=15, learning_rate=5e-3, progress=False)
    return flow.eval()


def with_layers(flow, change):
    """Returns a flow whose list of layers after the standardization was changed."""
    layers = [layer.bijection for layer in layers_of(flow.core)]
    return kf.Flow(flow.base, kf.Chain([*flow.standardization, *change(layers)])).eval()


def test_gains_add_up_to_the_gain_over_a_gaussian(flow):
    """That Gaussian is scipy's, fitted to the training rows, in the units of the flow."""
    train, x = bent_rows(2_000, 0), bent_rows(1_500, 1)
    gains = kf.depth_gains(flow, x, train=train.numpy())
    with torch.no_grad():
        own = flow.log_prob(x).double().numpy()
    reference = stats.multivariate_normal(train.mean(0), np.cov(train.T, ddof=0)).logpdf(x)
    assert gains.total == pytest.approx((own - reference).mean(), abs=1e-4)
    assert gains.nats.sum().item() + gains.base == pytest.approx(gains.total, abs=1e-4)
    assert gains.total > 0.3 and len(gains.nats) == len(gains.layers) == 6


def test_the_errors_of_gains_are_those_of_a_bootstrap(flow):
    """The bootstrap draws rows again, and measures everything again."""
    train, x = (bent_rows(500, 0), None), bent_rows(300, 1)
    gains = kf.depth_gains(flow, x, train=train)
    rng = torch.Generator().manual_seed(0)
    draws = [torch.randint(len(x), (len(x),), generator=rng) for _ in range(40)]
    again = torch.stack([kf.depth_gains(flow, x[i], train=train).nats for i in draws])
    assert torch.allclose(again.std(0), gains.standard_errors, rtol=0.35)


def test_a_dead_layer_a_copy_and_an_undoing_pair_are_named(flow):
    """Each is planted in a trained flow, and nothing else is named."""

    def change(layers):
        twin = copy.deepcopy(layers[2])
        dead = next(iter(kf.spline(3, depth=1, hidden=(8,)).core))
        return [*layers[:3], kf.Inverse(twin), twin, *layers[3:5], dead, layers[5]]

    gains = kf.depth_gains(with_layers(flow, change), bent_rows(1_000, 1))
    assert gains.idle == (7,)
    assert gains.pairs == ((2, 3),)
    assert gains.copies == ((2, 4),)
    assert gains.nats[7].item() == pytest.approx(0, abs=1e-6)
    text = repr(gains)
    assert "not needed: 8" in text and "undo each other: 3" in text and "copies: 5" in text


def test_a_flow_that_was_trained_has_nothing_to_name(flow):
    """Without each layer it loses much, and the loss is that of the flow without it."""
    x = bent_rows(500, 1)
    gains = kf.depth_gains(flow, x)
    assert not (gains.idle or gains.pairs or gains.copies)
    without = with_layers(flow, lambda layers: [*layers[:1], *layers[2:]])
    with torch.no_grad():
        loss = (flow.log_prob(x) - without.log_prob(x)).mean().item()
    assert gains.losses[1].item() == pytest.approx(loss, abs=1e-5)


def test_a_profile_that_is_known_is_not_measured_again(flow):
    """Its condition numbers are those of the gains."""
    x = bent_rows(200, 1)
    profile = kf.profile(flow, x[:16])
    gains = kf.depth_gains(flow, x, profile=profile)
    assert torch.equal(gains.condition_number, profile.condition_number.quantile(0.95, dim=1))
    assert not torch.equal(gains.condition_number, kf.depth_gains(flow, x).condition_number)


def test_a_linear_layer_gains_nothing_but_a_flow_may_need_it(flow):
    """A Gaussian is as good before a permutation as after it; the flow is not without it."""
    swap = kf.bijections.Permutation((2, 0, 1))
    moved = with_layers(flow, lambda layers: [swap, kf.Inverse(copy.deepcopy(swap)), *layers])
    gains = kf.depth_gains(moved, bent_rows(1_000, 1))
    assert gains.nats[:2].abs().max() < 1e-6 < gains.losses[:2].min()
    assert gains.idle == () == gains.pairs


def test_clusters_are_seen_by_a_mixture_alone():
    """A flow that separates two clusters gains much over a Gaussian, next to nothing over two."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2_000, 2, generator=generator) * 0.3
    x[: len(x) // 2] += 2
    x = x[torch.randperm(len(x), generator=generator)]
    torch.manual_seed(0)
    flow = kf.spline(2, depth=2, hidden=(16,), start="gaussianize")
    kf.fit(flow, x[:1_000], max_epochs=10, learning_rate=5e-3, progress=False)
    normal, mixed = (kf.depth_gains(flow, x[1_000:], mixture=m) for m in (False, True))
    assert normal.total > 0.3 > 0.05 > mixed.total
    assert mixed.reference == "Gaussian mixture"


def test_a_conditional_flow_is_compared_with_a_linear_regression():
    """On rows of a linear regression it gains nothing, with its own context."""
    generator = torch.Generator().manual_seed(0)
    context = torch.randn(2_000, 1, generator=generator)
    x = 3 * context + torch.randn(2_000, 2, generator=generator)
    torch.manual_seed(0)
    flow = kf.real_nvp(2, depth=4, hidden=(16,), context_features=1)
    kf.fit(flow, (x[:1_000], context[:1_000]), max_epochs=30, learning_rate=5e-3, progress=False)
    gains = kf.depth_gains(flow, x[1_000:], context=context[1_000:])
    assert gains.total == pytest.approx(0, abs=0.06)
    assert gains.log_prob[0].mean().item() == pytest.approx(-2 * stats.norm().entropy(), abs=0.05)


def test_a_flow_of_another_library_has_gains_too():
    """Its layers have the names that wrap gives them."""
    zuko = pytest.importorskip("zuko")
    torch.manual_seed(0)
    x = bent_rows(600, 0)
    wrapped = kf.wrap(zuko.flows.NSF(3, transforms=2, hidden_features=(16,)))
    gains = kf.depth_gains(wrapped, x)
    with torch.no_grad():
        assert gains.log_prob[-1].mean().item() == pytest.approx(
            wrapped.log_prob(x).mean().item(), abs=1e-5
        )
    assert len(gains.layers) == len(layers_of(wrapped.core))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": bent_rows(7, 0)}, "needs more rows: give at least 8 rows as 'x', or 4 as 'train'"),
        ({"x": bent_rows(1, 0)}, "'x' should hold at least two rows"),
        ({"x": torch.ones(100, 3)}, "is constant or a linear function of others"),
        (
            {"x": bent_rows(50, 0), "train": (bent_rows(50, 0)[:, :2], None)},
            "'train' should hold rows",
        ),
        ({"x": bent_rows(50, 0), "weights": torch.ones(5)}, "'weights' should be 50 numbers"),
        ({"x": bent_rows(50, 0), "weights": -torch.ones(50)}, "'weights' should be 50 numbers"),
        ({"flow": "flow", "x": bent_rows(50, 0)}, "'flow' should be a Flow, got str"),
    ],
    ids=["few rows", "one row", "constant", "train", "weights", "negative", "flow"],
)
def test_what_has_no_gains_is_refused(flow, arguments, message):
    """The message names the argument."""
    with pytest.raises(ArgumentError, match=message):
        kf.depth_gains(**{"flow": flow, **arguments})
