"""The recipe for autoregressive splines: orders, starts, options, training, files."""

import math

import pytest
import torch

import kappaflow as kf
from kappaflow.bijections import AutoregressiveSpline, Permutation

SMALL = {"hidden": (16, 16), "depth": 2}


def orders(flow):
    """Returns the permutations of a flow, in order."""
    return [part.index.tolist() for part in flow.bijection if isinstance(part, Permutation)]


def test_orders_are_reversed_then_random():
    """Few features are reversed each time, and one feature has no order."""
    first, second, third = orders(kf.autoregressive(5, depth=4))
    other = orders(kf.autoregressive(5, depth=4, couplings={"seed": 9}))
    assert first == third == [4, 3, 2, 1, 0] and sorted(second) == [0, 1, 2, 3, 4]
    assert other[0] == first and other[1] != second
    assert orders(kf.autoregressive(3, depth=7)) == [[2, 1, 0]] * 6
    assert orders(kf.autoregressive(1)) == []


def test_options_reach_the_layers():
    settings = {"bins": 4, "bound": 3.0, "min_bin": 0.2, "min_slope": 0.1, "scale_bound": 6.0}
    flow = kf.autoregressive(
        2, **SMALL, start="whiten", couplings=settings, network={"dropout": 0.2}
    )
    layers = [part for part in flow.bijection if isinstance(part, AutoregressiveSpline)]
    assert [type(part).__name__ for part in flow.bijection][:2] == ["Standardize", "Whiten"]
    for layer in layers:
        assert vars(layer.shape) == {k: v for k, v in settings.items() if k != "scale_bound"}
        assert layer.scale_bound == 3.0 and layer.network.dropout == 0.2
    with pytest.raises(kf.errors.ArgumentError, match="no circular column with this model"):
        kf.autoregressive(2, bounds=["circular", None])


@pytest.mark.parametrize("context", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_one_feature_is_learned_with_and_without_a_context(context, tmp_path):
    """Two narrow modes, which move with the context; a saved flow has the same density."""
    generator = torch.Generator().manual_seed(0)
    c, noise = torch.randn(2, 2000, 1, generator=generator)
    x = 2.0 * torch.randint(2, (2000, 1), generator=generator) - 1 + 0.2 * noise
    rows = (x + 2 * c, c) if context else (x,)
    flow = kf.autoregressive(1, **SMALL, context_features=context)
    data = rows if context else x
    kf.fit(flow, data, max_epochs=25, learning_rate=1e-2, progress=False, seed=0)
    entropy = 0.5 * math.log(2 * math.pi * math.e) + math.log(2 * 0.2)
    assert -flow.log_prob(*rows).mean() < entropy + 0.1
    kf.save(flow, tmp_path / "flow")
    assert torch.equal(kf.load(tmp_path / "flow").log_prob(*rows), flow.log_prob(*rows))
