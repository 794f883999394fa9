"""A condition number that is asked for: kept, not wasted, resumed, refused."""

import math
import warnings

import numpy as np
import pytest
import torch
from tests.training.examples import small

import kappaflow as kf
from kappaflow.data.batches import Batch
from kappaflow.testing.contract import jittered
from kappaflow.training.budget import (
    AT_ONCE,
    REACH,
    SOFTNESS,
    ConditionBudget,
    DualVariable,
    correlation_note,
    project_to_budget,
)
from kappaflow.training.measure import condition_numbers, quantile

K = 1e3  # condition number of the covariance of the rows: a flow of them has its root


def rows(count, seed):
    """Rows of a Gaussian with axes that are no coordinates."""
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64))[0]
    deviations = torch.logspace(0, -math.log10(K) / 2, 4, dtype=torch.float64)
    draws = torch.randn(
        count, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return (draws * deviations @ turn.T).float()


def fitted(x, **settings):
    """Returns what a fit gives, without the warning that correlations exceed the budget."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", kf.errors.DataWarning)
        return kf.fit(small(4), x, batch_size=128, progress=False, **settings)


def p95(flow, x):
    """The 95 % condition number by the public spectrum, at standardized rows."""
    result = kf.spectrum(flow.core, flow.standardization(x)[0].detach()).condition_number
    return result.quantile(0.95).item()


def best_gaussian(x, budget):
    """The least mean NLL of rows by Gaussians whose covariance has a condition number of budget^2.

    Source: Won, Lim, Kim, Rajaratnam 2013: eigenvalues are clipped.
    """
    x = (x - x.mean(0)) / x.std(0)
    values = np.linalg.eigvalsh(np.cov(x.T.double().numpy()))

    def nll(least):
        clipped = np.clip(values, least, least * budget**2)
        return 0.5 * (np.log(2 * np.pi * clipped) + values / clipped).sum()

    return min(map(nll, np.geomspace(values[0], values[-1], 500)))


@pytest.mark.slow
def test_the_budget_is_kept_on_rows_that_trained_nothing_and_is_not_wasted():
    """10 % above to 15 % below on new rows, where the flow would need six times as much."""
    x, new = rows(1500, seed=1), rows(1000, seed=2)
    result = fitted(x, max_epochs=30, learning_rate=5e-3, condition_budget=5.0)
    best = result.history[result.best_epoch - 1]
    assert 4.25 < best["condition_number_p95"] <= 5.0
    assert 4.25 < p95(result.flow, new) < 5.5
    units = result.flow.standardization.bijections[0].deviation.log().sum().item()
    nll = -result.flow.log_prob(new).mean().item() - units
    assert -0.2 < nll - best_gaussian(new, 5.0) < 0.8


@pytest.mark.slow
def test_a_budget_that_nobody_needs_changes_nothing():
    """The same weights, bit for bit, as without one."""
    x = rows(300, seed=1)
    free = fitted(x, max_epochs=4)
    loose = fitted(x, max_epochs=4, condition_budget=1e6)
    for item, other in zip(free.flow.parameters(), loose.flow.parameters(), strict=True):
        assert torch.equal(item, other)
    assert "condition_price" not in free.history[0] and "condition_price" in loose.history[0]


@pytest.mark.slow
def test_a_flow_with_a_context_and_one_with_padding_take_a_budget():
    """The condition number is that by x at its context, and of points with their padding."""
    x, context = rows(300, seed=1), torch.rand(300, 2)
    torch.manual_seed(0)
    flow = kf.real_nvp(4, depth=2, hidden=(8,), context_features=2)
    settings = {"max_epochs": 3, "batch_size": 64, "condition_budget": 2.0, "progress": False}
    result = kf.fit(flow, (x, context), learning_rate=2e-2, **settings)
    assert result.history[result.best_epoch - 1]["condition_number_p95"] <= 2.0
    torch.manual_seed(0)
    flow = kf.real_nvp(4, depth=2, hidden=(8,), padding=1)
    with pytest.warns(kf.errors.DataWarning, match="correlations"):
        result = kf.fit(flow, x, learning_rate=2e-2, **settings)
    assert result.history[result.best_epoch - 1]["condition_number_p95"] <= 2.0


def test_a_flow_that_cannot_come_down_says_so_and_is_as_it_was():
    """One that starts far above, with no time to fall."""
    torch.manual_seed(0)
    flow = kf.real_nvp(4, depth=2, hidden=(8,), couplings={"mixing": "plain"})
    with torch.no_grad():
        for part in flow.modules():
            if isinstance(part, kf.bijections.Linear):
                part.weight[0] *= 1e4
    before = {name: value.clone() for name, value in flow.named_parameters()}
    with pytest.raises(
        kf.errors.NumericalError, match="no weights kept the condition budget of 2"
    ):
        kf.fit(flow, torch.randn(200, 4), condition_budget=2.0, max_epochs=2, progress=False)
    for name, value in flow.named_parameters():
        assert torch.equal(value, before[name])


@pytest.mark.slow
def test_the_note_on_correlations_gives_the_root_of_their_condition_number():
    """And is silent where the budget is enough, or a context may explain them."""
    x = rows(2000, seed=1)
    table = kf.load_table(x)
    values = np.linalg.eigvalsh(np.corrcoef(x.T.numpy()))
    needed = math.sqrt(values[-1] / values[0])
    assert f"{needed:.3g}" in (correlation_note(table, 0.9 * needed) or "")
    assert correlation_note(table, 1.1 * needed) is None
    with pytest.warns(kf.errors.DataWarning, match="less correlated than the data"):
        result = kf.fit(small(4), x, condition_budget=2.0, max_epochs=1, progress=False)
    assert "the budget is 2:" in result.notes[-1]


def test_the_dual_variable_rises_while_points_are_above_and_falls_while_none_is():
    """Dual ascent: by 5 % a look for each softness, and more at once."""
    flow = small(4)
    dual = DualVariable()
    budget = ConditionBudget(10.0, flow, dual, 100)
    budget._follow(torch.full((8,), 0.1, dtype=torch.float64))
    assert dual.lasting == pytest.approx(math.exp(0.05))
    assert dual.per_log == pytest.approx(math.exp(0.05 + AT_ONCE * 0.1))
    budget._follow(torch.full((8,), -9.0, dtype=torch.float64))
    assert dual.lasting == pytest.approx(math.exp(0.05 - 0.2))
    assert budget.dual is dual


def test_the_penalty_is_a_mean_over_all_points():
    """Of 48 points, three are above the aim: the penalty counts the others as zero."""
    torch.manual_seed(0)
    flow, x = jittered(small(4)).eval(), rows(48, seed=1)
    log_condition = condition_numbers(flow, Batch(x, None)).log().sort().values
    aim = log_condition[-4:-2].mean().item()
    dual = DualVariable(shift=0.0)
    penalty = ConditionBudget(math.exp(aim + REACH * SOFTNESS), flow, dual, 100)._penalty
    excess = torch.nn.functional.softplus((log_condition[-3:] - aim) / SOFTNESS - REACH)
    expected = SOFTNESS * excess.sum().item() / 48
    assert penalty(Batch(x, None)).item() == pytest.approx(expected, rel=1e-3)


def test_condition_numbers_of_rows_are_right_far_beyond_rounding():
    """Two shears, of determinant 1: the larger singular value follows from the Frobenius norm."""
    parts, shear = [], 300.7
    for partition in (kf.Partition.half(2), kf.Partition.half(2).swapped()):
        parts.append(kf.bijections.AdditiveCoupling(partition, kf.nets.MLP(1, 1, ())))
        with torch.no_grad():
            parts[-1].conditioner.layers[0].weight.fill_(shear)
    flow = kf.Flow(kf.StandardNormal(2), kf.Chain(parts))
    x = torch.randn(5, 2)
    squares = (1 + shear**2) ** 2 + 2 * shear**2 + 1
    assert squares > 1e9
    result = condition_numbers(flow, Batch(x, None))
    assert result.tolist() == pytest.approx([squares] * 5, rel=1e-3)
    x[1] = float("nan")
    assert condition_numbers(flow, Batch(x, None)).isnan().tolist() == [False, True] + [False] * 3


def test_weights_a_little_above_are_moved_until_they_keep_the_budget():
    """Towards the start, by no more than is needed; the flow itself is left as it was."""
    x = rows(300, seed=1)
    flow = small(4)
    flow.eval()
    start = {name: t.clone() for name, t in flow.state_dict().items()}
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape)) if "bias" not in name else None
    current = {name: t.clone() for name, t in flow.state_dict().items()}
    now = quantile(condition_numbers(flow, Batch(x, None)), 0.95)
    requested = 1 + 0.8 * (now - 1)
    moved = project_to_budget(
        flow, start, Batch(x, None), requested, {"condition_number_p95": now}
    )
    assert moved is not None
    assert 0.9 * requested < moved[0]["condition_number_p95"] <= requested
    assert all(torch.equal(t, current[name]) for name, t in flow.state_dict().items())
    flow.load_state_dict(moved[1])
    again = quantile(condition_numbers(flow, Batch(x, None)), 0.95)
    assert again == pytest.approx(moved[0]["condition_number_p95"])
    assert (
        project_to_budget(flow, start, Batch(x, None), 2 * now, {"condition_number_p95": now})
        is None
    )
