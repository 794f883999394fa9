"""A condition number that is asked for: a penalty on the flow, and what it has to cost."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from kappaflow.conditioning.stretched import log_stretch, stretched
from kappaflow.data import Table
from kappaflow.flows import Flow
from kappaflow.flows.eval_mode import evaluation_mode
from kappaflow.training.rows import Rows

LEVEL = 0.95  # of the quantile that the budget is about
EVERY = 4  # steps from one penalty to the next
LOOKS = 400  # penalties that a training should have: a short one has them more often
VECTORS = 480  # points times dimensions that a penalty looks at
SOFTNESS = 0.1  # of the corner of the penalty, in log(condition number)
REACH = 3.0  # softnesses below the aim, from where on points are pushed at
PLAIN_UP_TO = 2.0  # the price above which the likelihood is divided
RATE = 0.05  # of the logarithm of the price, at each look
MOST = 4.0  # softnesses away from the aim, from where on the price moves no faster
AT_ONCE = 4.0  # powers of what the aim is missed by, that the price has at once
FLOOR = 0.05  # the least price: from here on it rises again
WITHIN = 0.97  # of the budget is aimed at: the rest is for what other rows show
AVERAGED = 0.1  # weight of the latest look in the average of the shares
CORRECTION = 200  # steps, over which what held-out rows missed the aim by is made good


@dataclass
class Price:
    """What the penalty costs now; plain numbers, so that a checkpoint can hold them.

    Attributes:
        per_log: Nats for each unit of log(condition number) above the aim.
        lasting: The same without what the last look alone has added.
        shift: How far the logarithm of the aim is from that of the budget.
        share_over: The share of points above the aim, averaged over the last looks.
    """

    per_log: float = 1.0
    lasting: float = 1.0
    shift: float = math.log(WITHIN)
    share_over: float = 0.0


class ConditionBudget:
    r"""Holds the 95 % quantile of the condition number of a flow down to a budget.

    Every few steps the loss has :math:`\mu\, E\, h(\log \kappa(x) - a)` added, and the price
    :math:`\mu` follows how far the 95 % quantile of the points is from the aim a: it rises while
    that is above and falls while it is below (dual ascent). After each epoch a follows what the
    averaged weights have on held-out rows.

    Args:
        budget: Of the condition number from the standardised columns on.
        flow: The flow in training.
        price: Where the price stands; changed in place.
        steps: How many the whole training has at most.
    """

    def __init__(self, budget: float, flow: Flow, price: Price, steps: int) -> None:
        self.log_budget, self.flow, self.price = math.log(budget), flow, price
        n = math.prod(flow.joint_shape)
        self.every = max(1, min(EVERY, steps // LOOKS))
        self.points = max(16, min(48, VECTORS // n))

    def loss(self, nll: Tensor, batch: Rows, step: int) -> Tensor:
        """Returns what a step, counted from 1, is to descend; moves the price.

        A high price divides the likelihood instead of multiplying the penalty: gradients stay of
        one size, and are not clipped.
        """
        if step % self.every == 0:
            penalty = self._penalty(batch)
            nll = nll if penalty is None else nll + self.every * self.price.per_log * penalty
        return nll * min(1.0, PLAIN_UP_TO / self.price.per_log)

    def measured(self, p95: float, steps: int) -> None:
        """Takes in the 95 % condition number of held-out rows after an epoch of so many steps."""
        if not math.isfinite(p95):
            return
        missed = self.log_budget + math.log(WITHIN) - math.log(p95)
        gain = min(0.5, steps / CORRECTION * (2 if missed < math.log(WITHIN) else 1))
        if missed > 0 and self.price.share_over < (1 - LEVEL) / 2:
            missed = math.log(WITHIN) - self.price.shift  # nothing holds it down
        shift = self.price.shift + gain * max(-0.5, min(0.5, missed))
        self.price.shift = max(-0.7, min(0.7, shift))

    def _penalty(self, batch: Rows) -> Tensor | None:
        """Returns the mean excess over the aim at a few points, or None where there is none."""
        few = batch.at(slice(0, self.points))
        aim = self.log_budget + self.price.shift
        with evaluation_mode(self.flow):
            with torch.no_grad():
                x = self.flow.standardization(self.flow.augmented(few.x))[0]
                found = stretched(self.flow.core.linearize(x, few.context), x)
            self._follow(found.log_condition_number - aim)
            near = found.log_condition_number > aim - REACH * SOFTNESS
            some = near.nonzero()[: self.points // 3, 0]
            if not len(some):
                return None
            context = None if few.context is None else few.context[some]
            here = self.flow.core.linearize(x[some], context)
            apart = log_stretch(here, found.most[some], found.least[some])
        excess = SOFTNESS * softplus((apart - aim) / SOFTNESS)
        return excess.mean() * near.double().mean().to(excess)

    def _follow(self, above: Tensor) -> None:
        """Moves the price with what points have above the aim, (B,), in logarithms."""
        above = above[torch.isfinite(above)]
        if not len(above):
            return
        price, off = self.price, above.quantile(LEVEL).item()
        price.share_over += AVERAGED * ((above > 0).double().mean().item() - price.share_over)
        moved = price.lasting * math.exp(RATE * max(-MOST, min(MOST, off / SOFTNESS)))
        price.lasting = max(FLOOR, moved)
        price.per_log = price.lasting * math.exp(AT_ONCE * max(-0.5, min(0.5, off)))


def correlation_note(table: Table, budget: float) -> str | None:
    """Returns what is to be said where correlations alone ask for more than a budget, or None.

    A linear map that whitens rows whose correlation matrix has condition number k has sqrt(k)
    itself; a context may explain correlations, so that nothing is said of tables with one.
    """
    if table.context is not None or len(table) < 2 or len(table.columns) < 2:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        correlations = np.corrcoef(table.values, rowvar=False)
    if not np.isfinite(correlations).all():
        return None
    values = np.linalg.eigvalsh(correlations)
    needed = math.sqrt(values[-1] / max(values[0], np.finfo(float).eps))
    if needed <= budget:
        return None
    return (
        f"the correlations of the columns alone ask for a condition number of {needed:.3g}, and "
        f"{budget:g} is the budget: the flow will be less correlated than the data"
    )
