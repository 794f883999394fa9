"""Pruning removes the layers that a flow does not need, and says what that costs."""

import copy
import math

import pytest
import torch

import kappaflow as kf
from cases import bent_rows
from kappaflow.conditioning import layers_of
from kappaflow.errors import ArgumentError

TRAIN, VALIDATION, TEST = bent_rows(1_000, 0), bent_rows(500, 1), bent_rows(2_000, 2)


@pytest.fixture(scope="module")
def flow():
    """Returns a trained flow of six couplings."""
    torch.manual_seed(0)
    flow = kf.spline(3, depth=6, hidden=(24,))
    kf.fit(flow, TRAIN, max_epochs=25, learning_rate=5e-3, progress=False)
    return flow.eval()


def pruned(flow, *rows, **options):
    return kf.prune(flow, *(rows or (TRAIN, VALIDATION)), progress=False, **options)


def loss(flow, other):
    """Returns how much less likely test rows are by another flow, in nats."""
    with torch.no_grad():
        return (flow.log_prob(TEST) - other.log_prob(TEST)).mean().item()


def test_layers_that_do_nothing_go_first(flow):
    """Three couplings that are the identity are planted; nothing else may cost a hundredth."""
    layers = [layer.bijection for layer in layers_of(flow.core)]
    dead = [layer.bijection for layer in layers_of(kf.spline(3, depth=3, hidden=(8,)).core)]
    planted = [layers[0], dead[0], *layers[1:4], *dead[1:], *layers[4:]]
    deeper = kf.Flow(flow.base, kf.Chain([*flow.standardization, *planted])).eval()
    before = copy.deepcopy(deeper.state_dict())
    result = pruned(deeper, nats=1e-3, max_epochs=1, learning_rate=1e-6)
    assert result.removed == ("2 SplineCoupling", "6 SplineCoupling", "7 SplineCoupling")
    assert result.kept == 6 and abs(loss(deeper, result.flow)) < 2e-3
    assert all(torch.equal(value, before[name]) for name, value in deeper.state_dict().items())


def test_the_loss_is_within_the_tolerance_and_the_flow_is_shorter(flow):
    """It is what flows lose on other rows too; a tolerance or a training lets more layers go."""
    small, large = (
        pruned(flow, nats=nats, max_epochs=1, learning_rate=1e-9) for nats in (0.075, 0.6)
    )
    trained = pruned(flow, nats=0.075, max_epochs=6)
    assert 1 <= large.kept < small.kept < 6 and trained.kept < small.kept
    for result, nats in ((small, 0.075), (large, 0.6), (trained, 0.075)):
        assert result.loss <= nats
        assert loss(flow, result.flow) == pytest.approx(result.loss, abs=0.1)
        assert len(layers_of(result.flow.core)) == result.kept == 6 - len(result.removed)
        assert result.standard_error < 0.1 and len(result.trials) <= math.ceil(math.log2(6))
    assert large.time < small.time < 1.2


def test_a_flow_that_needs_all_its_layers_stays(flow):
    """Without a training and without a tolerance nothing can go, and the flow is the old one."""
    result = pruned(flow, nats=1e-9, max_epochs=1, learning_rate=1e-9)
    assert result.removed == () and result.flow is flow
    assert (result.loss, result.kept) == (0, 6)
    assert all(trial.loss > 1e-9 for trial in result.trials)


def test_a_stack_stays_a_stack_and_its_start_stays():
    """Affine couplings are still executed together, after the whitening."""
    torch.manual_seed(0)
    flow = kf.real_nvp(3, depth=6, hidden=(16,), start="whiten")
    kf.fit(flow, TRAIN, max_epochs=5, progress=False)
    one, few = (pruned(flow, nats=nats, max_epochs=1, learning_rate=1e-9) for nats in (0.5, 0.07))
    assert one.kept == 1 < few.kept < 6
    kinds = [type(part).__name__ for part in few.flow.bijection]
    assert kinds == ["Standardize", "Whiten", "CouplingStack"]


def test_a_conditional_flow_keeps_its_context():
    """Its embedding and the names of its columns stay."""
    context = TRAIN[:, :1]
    torch.manual_seed(0)
    flow = kf.spline(
        2, depth=3, hidden=(16,), context_features=1, network={"embedding": torch.nn.Linear(1, 4)}
    )
    kf.fit(flow, (TRAIN[:, 1:], context), max_epochs=5, progress=False)
    rows = (VALIDATION[:, 1:], VALIDATION[:, :1])
    result = pruned(flow, (TRAIN[:, 1:], context), rows, nats=2.0, max_epochs=2)
    assert result.kept < 3
    assert result.flow.log_prob(*rows).shape == (500,)


def test_what_cannot_be_pruned_is_refused(flow):
    """The message says what is missing."""
    with pytest.raises(ArgumentError, match=r"at least two layers that can be removed.*it has 1"):
        pruned(kf.spline(3, depth=1, hidden=(8,)))
    with pytest.raises(ArgumentError, match="'nats' should be"):
        pruned(flow, nats=0)
    with pytest.raises(ArgumentError, match="max_epoch"):
        pruned(flow, max_epoch=3)
