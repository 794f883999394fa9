"""A training that overfits resumes from its best weights, with more weight decay."""

import numpy as np
import pytest
import torch
from tests.training.examples import Interrupt

import kappaflow as kf


def bent(rows, seed):
    """Returns rows of three columns; the second bends with the first."""
    x = torch.randn(rows, 3, generator=torch.Generator().manual_seed(seed))
    x[:, 1] = 0.5 * x[:, 1] + x[:, 0] ** 2
    return x


def overfit(**settings):
    """Returns the result of a training on few rows, which the flow can learn by heart."""
    x, held_out = bent(256, 0), bent(1000, 1)
    torch.manual_seed(0)
    flow = kf.real_nvp(3, depth=4, hidden=(64, 64))
    fixed = {"max_epochs": 80, "patience": 40, "learning_rate": 5e-3, "progress": False}
    return kf.fit(flow, x, validation=held_out, **fixed, **settings)


@pytest.fixture(scope="module")
def decayed():
    """Returns the result of a training whose weight decay rises."""
    return overfit(overfit_decay=3.0)


def test_more_weight_decay_helps_where_a_flow_overfits(decayed):
    """It sets in ten epochs after the best one, is stored, and improves the likelihood."""
    plain = overfit()
    values = [figures["weight_decay"] for figures in decayed.history]
    first = values.index(3.0)
    assert values[:first] == [1e-4] * first and set(values[first:]) == {3.0}
    nll = [figures["validation_nll"] for figures in decayed.history]
    assert np.argmin(nll[:first]) <= first - 10 and nll[first] < nll[first - 1]
    assert decayed.validation_nll < plain.validation_nll
    assert nll[-1] < plain.history[-1]["validation_nll"] - 0.03
    assert {figures["weight_decay"] for figures in plain.history} == {1e-4}


def test_a_flow_that_does_not_overfit_keeps_its_weight_decay():
    x = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
    flow = kf.real_nvp(2, depth=2, hidden=(4,))
    result = kf.fit(flow, x, max_epochs=16, overfit_decay=3.0, progress=False)
    assert {figures["weight_decay"] for figures in result.history} == {1e-4}


def test_a_resumed_training_keeps_the_weight_decay(decayed, tmp_path, each_epoch):
    """Its losses are those of a training that was not interrupted."""
    later = [figures["weight_decay"] for figures in decayed.history].index(3.0) + 3
    with pytest.raises(KeyboardInterrupt):
        overfit(overfit_decay=3.0, out=tmp_path / "run", callbacks=[Interrupt(later)])
    resumed = overfit(overfit_decay=3.0, out=tmp_path / "run")
    losses = [[f["train_nll"] for f in result.history] for result in (resumed, decayed)]
    assert losses[0] == losses[1]


def test_a_training_cools_down_before_patience_ends_it():
    """The rate falls to zero over as many epochs as there were, and the likelihood rises again."""
    x, held_out = bent(2000, 0), bent(2000, 1)
    results = []
    for cooldown in (False, True):
        torch.manual_seed(0)
        flow = kf.spline(3, depth=2, hidden=(16,))
        settings = {"max_epochs": 400, "patience": 6, "learning_rate": 0.02, "average": 0.0}
        results.append(
            kf.fit(flow, x, validation=held_out, progress=False, cooldown=cooldown, **settings)
        )
    plain, cooled = results
    assert plain.stopped_because == cooled.stopped_because == "patience"
    assert len(cooled.history) == 2 * len(plain.history)
    shares = [f["learning_rate_share"] for f in cooled.history[len(plain.history) - 1 :]]
    assert sorted(shares, reverse=True) == shares and shares[-1] < 0.01 < 0.5 < shares[0]
    assert cooled.validation_nll < plain.validation_nll - 0.005
