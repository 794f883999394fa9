"""Condition budgets: a penalty with a dual variable, and a projection of the weights."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from kappaflow.conditioning.stretched import log_stretch, stretched
from kappaflow.data import Table
from kappaflow.data.batches import Batch, Batches
from kappaflow.flows import Flow
from kappaflow.flows.eval_mode import evaluation_mode
from kappaflow.training.measure import (
    budget_figures,
    conditioning_figures,
    likelihood_figures,
    mean,
    quantile,
)
from kappaflow.training.objective import State

LEVEL = 0.95  # the quantile that the budget limits
EVERY = 4  # steps from one penalty to the next
LOOKS = 400  # fewest penalties in a training; a short one has them more often
VECTORS = 480  # points times dimensions in a penalty
SOFTNESS = 0.1  # width of the corner of the penalty, in log(condition number)
REACH = 3.0  # points from this many softnesses below the aim are penalized
PLAIN_UP_TO = 2.0  # the dual variable above which the likelihood is divided
RATE = 0.05  # change of the log of the dual variable at each penalty, per softness
MOST = 4.0  # softnesses from the aim beyond which the dual variable moves no faster
AT_ONCE = 4.0  # power of (quantile / aim) by which the dual variable is larger until the next
FLOOR = 0.05  # smallest dual variable: from here it can rise again
WITHIN = 0.97  # share of the budget that is aimed at; the rest allows for other rows
AVERAGED = 0.1  # weight of the latest penalty in the average of the shares
CORRECTION = 200  # steps over which a miss on held-out rows is corrected

FAR = 2.0  # times the budget; weights beyond are not projected
JUST = 0.99  # share of the budget to which weights are projected
MOST_MOVES = 6
FIRST_RATE = 4.0  # decrease of log(condition number) as the share of the way falls by 1
LEAST_RATE = 1.0  # smallest plausible rate


@dataclass
class DualVariable:
    """The multiplier of the penalty; plain numbers, so that a checkpoint can hold them."""

    per_log: float = 1.0  # nats for each unit of log(condition number) above the aim
    lasting: float = 1.0  # the same without the factor of the last penalty alone, see `AT_ONCE`
    shift: float = math.log(WITHIN)  # from the logarithm of the budget to that of the aim
    share_over: float = 0.0  # share of points above the aim, averaged over the last penalties


class ConditionBudget:
    r"""Keeps the 95 % quantile of the condition number of a flow within a budget.

    Every few steps :math:`\mu\, E\, h(\log \kappa(x) - a)` is added to the loss. The dual variable
    :math:`\mu` rises while the 95 % quantile of the points is above the aim a, and falls while it
    is below (dual ascent). After each measurement on held-out rows the aim is corrected by the
    condition number of the averaged weights.
    """

    def __init__(self, budget: float, flow: Flow, dual: DualVariable, steps: int) -> None:
        self.log_budget, self.flow, self.dual = math.log(budget), flow, dual
        n = math.prod(flow.joint_shape)
        self.every = max(1, min(EVERY, steps // LOOKS))
        self.points = max(16, min(48, VECTORS // n))

    def loss(self, nll: Tensor, batch: Batch, step: int) -> Tensor:
        """Returns the loss of a step, counted from 1; updates the dual variable."""
        # A large dual variable divides the likelihood instead, so that gradients are not clipped.
        if step % self.every == 0:
            penalty = self._penalty(batch)
            nll = nll if penalty is None else nll + self.every * self.dual.per_log * penalty
        return nll * min(1.0, PLAIN_UP_TO / self.dual.per_log)

    def measured(self, p95: float, steps: int) -> None:
        """Corrects the aim by a 95 % quantile on held-out rows; an epoch has `steps` steps."""
        if not math.isfinite(p95):
            return
        missed = self.log_budget + math.log(WITHIN) - math.log(p95)
        gain = min(0.5, steps / CORRECTION * (2 if missed < math.log(WITHIN) else 1))
        if missed > 0 and self.dual.share_over < (1 - LEVEL) / 2:
            missed = math.log(WITHIN) - self.dual.shift  # the penalty is not active
        shift = self.dual.shift + gain * max(-0.5, min(0.5, missed))
        self.dual.shift = max(-0.7, min(0.7, shift))

    def _penalty(self, batch: Batch) -> Tensor | None:
        """Returns the mean excess over the aim at a few points, None if no point is near it."""
        few = batch.at(slice(0, self.points))
        aim = self.log_budget + self.dual.shift
        with evaluation_mode(self.flow):
            with torch.no_grad():
                x = self.flow.standardization(self.flow.augmented(few.x))[0]
                result = stretched(self.flow.core.linearize(x, few.context), x)
            self._follow(result.log_condition_number - aim, few.weights)
            near = result.log_condition_number > aim - REACH * SOFTNESS
            nearest = near.nonzero()[: self.points // 3, 0]
            if not len(nearest):
                return None
            context = None if few.context is None else few.context[nearest]
            linearization = self.flow.core.linearize(x[nearest], context)
            log_condition = log_stretch(linearization, result.most[nearest], result.least[nearest])
        excess = SOFTNESS * softplus((log_condition - aim) / SOFTNESS)
        weights = excess.new_ones(len(near)) if few.weights is None else few.weights.to(excess)
        share = weights[near].sum() / weights.sum()
        return share * (weights[nearest] * excess).sum() / weights[nearest].sum()

    def _follow(self, above: Tensor, weights: Tensor | None = None) -> None:
        """Updates the dual variable by log(condition number) - aim of points, (B,)."""
        finite = torch.isfinite(above)
        above, weights = above[finite], None if weights is None else weights[finite]
        if not len(above):
            return
        dual, off = self.dual, quantile(above, LEVEL, weights)
        dual.share_over += AVERAGED * (mean((above > 0).double(), weights) - dual.share_over)
        moved = dual.lasting * math.exp(RATE * max(-MOST, min(MOST, off / SOFTNESS)))
        dual.lasting = max(FLOOR, moved)
        dual.per_log = dual.lasting * math.exp(AT_ONCE * max(-0.5, min(0.5, off)))


@torch.no_grad()
def project_to_budget(
    flow: Flow, start: State, rows: Batches, budget: float, figures: dict[str, Any]
) -> tuple[dict[str, float], State] | None:
    """Returns figures and state of weights moved towards the start into a budget, or None."""
    # At the start most flows are the identity, so the condition number falls on the way there.
    # The secant method finds how far to go. The flow is unchanged.
    p95 = figures["condition_number_p95"]
    if p95 is None or not budget < p95 < FAR * budget:
        return None
    trained = {name: tensor.detach().clone() for name, tensor in flow.state_dict().items()}
    share, rate, above = 1.0, FIRST_RATE, math.log(p95 / budget)
    try:
        for _ in range(MOST_MOVES):
            share -= (math.log(p95 / budget) - math.log(JUST)) / rate
            state = _between(start, trained, share)
            flow.load_state_dict(state)
            result = budget_figures(flow, rows)
            p95 = result["condition_number_p95"]
            if p95 <= budget:
                measured = conditioning_figures(flow, rows, result)
                return measured | likelihood_figures(flow, rows), state
            rate = max(LEAST_RATE, (above - math.log(p95 / budget)) / (1 - share))
    finally:
        flow.load_state_dict(trained)
    return None


def _between(start: State, end: State, share: float) -> State:
    """Returns a mean of two states with a share of the other; integers are the other's."""
    return {
        name: start[name].lerp(tensor, share) if tensor.is_floating_point() else tensor
        for name, tensor in end.items()
    }


def correlation_note(table: Table, budget: float) -> str | None:
    """Returns a warning if the correlations of the columns alone exceed a budget, else None.

    A linear map that whitens rows whose correlation matrix has condition number k has condition
    number sqrt(k). A context may explain the correlations, so tables with one get no warning.
    """
    if table.context is not None or len(table) < 2 or len(table.columns) < 2:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        covariance = np.cov(table.values, rowvar=False, aweights=table.weights)
        spread = np.sqrt(covariance.diagonal())
        correlations = covariance / spread / spread[:, None]
    if not np.isfinite(correlations).all():
        return None
    values = np.linalg.eigvalsh(correlations)
    needed = math.sqrt(values[-1] / max(values[0], np.finfo(float).eps))
    if needed <= budget:
        return None
    return (
        f"the correlations of the columns alone need a condition number of {needed:.3g}, and the "
        f"budget is {budget:g}: the flow will be less correlated than the data"
    )
