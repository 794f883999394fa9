"""Distribution functions, quantiles and intervals of flows of one column."""

import math

import torch
from torch import Tensor

from kappaflow.errors import ArgumentError
from kappaflow.flows.base import Base
from kappaflow.flows.eval_mode import evaluation_mode
from kappaflow.flows.flow import Flow
from kappaflow.flows.rows import Data, checked_context, flatten_batch

QUARTILES = 0.25, 0.75  # their values tell whether the map from latent to data rises
MOST_DOUBLINGS = 1_000  # of the interval in which a quantile of a base is searched
HALVINGS = 64  # after as many as there were doublings


@torch.no_grad()
def cdf(flow: Flow, x: Data, context: Data = None) -> Tensor:
    r"""Returns P(X <= x | context) under a flow of one column; exact.

    The flow maps its column to the latent by an increasing or a decreasing function f, which may
    depend on the context. So the distribution function is that of the base at f(x), or one minus
    it. Values carry no gradients. If the flow was trained on a rounded column with noise
    (dequantized), they are those of the column with noise.

    Args:
        flow: A flow of one column that is not circular, without padding or dequantization. Layers
            such as dropout are in evaluation mode.
        x: Values, (*batch, 1), in the units of the data, as for `Flow.log_prob`.
        context: Context, (*batch, C), for a conditional flow, as for `Flow.log_prob`.

    Returns:
        Probabilities, (*batch,), in float64: 0 below the domain of the column and 1 above it.

    Raises:
        ArgumentError: The flow has more than one column, a circular one, an augmentation, or a
            base without `cdf`; or an argument does not fit the flow.

    Example:
        >>> import kappaflow as kf
        >>> flow = kf.Flow(kf.StandardNormal(1), kf.bijections.ElementwiseAffine(1))
        >>> kf.cdf(flow, torch.tensor([[0.0], [1.96]]))
        tensor([0.5000, 0.9750], dtype=torch.float64)
    """
    check_one_column(flow)
    batch_shape, rows, contexts = flatten_batch(flow, x, context)
    low, high = support(flow)
    column = rows[:, 0].double()
    inside = (column > low) & (column < high)
    center = 0.0 if flow.domain is None else flow.domain.inside[0]
    with evaluation_mode(flow):
        quartiles = _values_at(flow, column.new_tensor(QUARTILES), contexts)
        z = flow.bijection(rows.where(inside[:, None], center), contexts)[0]
        below = flow.base.cdf(z.double(), contexts)[:, 0]
    below = torch.where(_rises(quartiles), below, 1 - below)
    below = below.masked_fill(column <= low, 0.0).masked_fill(column >= high, 1.0)
    return below.masked_fill(column.isnan(), math.nan).reshape(batch_shape)


@torch.no_grad()
def quantile(flow: Flow, q: Data, context: Data = None) -> Tensor:
    """Returns the values x with P(X <= x | context) = q under a flow of one column; exact.

    They are the inverse of `cdf`, up to the rounding errors of the flow, and increase with q.
    Values carry no gradients. If the flow was trained on a rounded column with noise
    (dequantized), they are those of the column with noise.

    Args:
        flow: A flow of one column, as for `cdf`.
        q: One level between 0 and 1, or Q levels, for all rows of the context.
        context: Context, (*batch, C), for a conditional flow: a tensor, array or data frame.

    Returns:
        Quantiles in the units of the data and the dtype of the flow: (*batch, Q), or (*batch,) for
        one level. Without a context (Q,) or ().

    Raises:
        ArgumentError: A level is not between 0 and 1, or the flow or the context does not fit, as
            for `cdf`.

    Example:
        >>> import kappaflow as kf
        >>> flow = kf.Flow(kf.StandardNormal(1), kf.bijections.ElementwiseAffine(1))
        >>> kf.quantile(flow, [0.025, 0.5, 0.975]).round(decimals=2).abs()
        tensor([1.9600, 0.0000, 1.9600])
    """
    check_one_column(flow)
    q = checked_levels(q)
    context = checked_context(flow, context)
    rows = None if context is None else context.reshape(-1, context.shape[-1])
    levels = q.reshape(-1).to(flow.device)
    with evaluation_mode(flow):
        both = torch.cat([levels, levels.new_tensor(QUARTILES)])
        values, quartiles = _values_at(flow, both, rows).tensor_split([len(levels)], 1)
        rises = _rises(quartiles)
        if not rises.all():
            values = values.where(rises[:, None], _values_at(flow, 1 - levels, rows))
    batch_shape = () if context is None else context.shape[:-1]
    return values.reshape((*batch_shape, *q.shape))


def interval(flow: Flow, coverage: float, context: Data = None) -> Tensor:
    """Returns the central interval that contains a share of the distribution of a flow's column.

    Its ends are the quantiles of levels (1 - coverage) / 2 and (1 + coverage) / 2. Data has this
    share in it if the flow is right; `kappaflow.conformal` corrects the levels otherwise.

    Args:
        flow: A flow of one column, as for `cdf`.
        coverage: The share, between 0 and 1.
        context: Context, (*batch, C), for a conditional flow: a tensor, array or data frame.

    Returns:
        Lower and upper ends in the units of the data, (*batch, 2).

    Raises:
        ArgumentError: `coverage` is not between 0 and 1, or another argument does not fit, as for
            `quantile`.

    Example:
        >>> import kappaflow as kf
        >>> flow = kf.Flow(kf.StandardNormal(1), kf.bijections.ElementwiseAffine(1))
        >>> kf.interval(flow, 0.95)
        tensor([-1.9600,  1.9600])
    """
    half = checked_coverage(coverage) / 2
    return quantile(flow, [0.5 - half, 0.5 + half], context)


def checked_levels(q: Data) -> Tensor:
    """Returns levels, () or (Q,), in float64, after checking that they are between 0 and 1."""
    try:
        levels = torch.as_tensor(q, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        levels = torch.zeros(1)
    if levels.dim() > 1 or not ((levels > 0) & (levels < 1)).all():
        raise ArgumentError(f"'q' should be one or more numbers between 0 and 1, got {q!r}.")
    return levels


def checked_coverage(coverage: object) -> float:
    """Returns a coverage as a float, after checking that it is between 0 and 1."""
    if isinstance(coverage, bool) or not isinstance(coverage, int | float) or not 0 < coverage < 1:
        raise ArgumentError(f"'coverage' should be a number between 0 and 1, got {coverage!r}.")
    return float(coverage)


def check_one_column(flow: object) -> None:
    """Raises ArgumentError unless a flow has a distribution function: see `no_cdf_because`."""
    problem = no_cdf_because(flow)
    if problem is not None:
        raise ArgumentError(problem)


def no_cdf_because(flow: object) -> str | None:
    """Returns why a flow is not an invertible map of one column to a line, as a sentence."""
    if not isinstance(flow, Flow):
        kind = type(flow).__name__
        return f"'flow' should be a Flow, got {kind}: kappaflow.convert makes one of others."
    if flow.augment is not None:
        kind = type(flow.augment).__name__
        return f"'flow' should have no padding and no dequantization, got one with {kind}."
    if flow.event_shape != (1,):
        return f"'flow' should model one column, got events of shape {tuple(flow.event_shape)}."
    if flow.domain is not None and any(each and each.circular for each in flow.domain.domains):
        return "'flow' should not model a circular column: a circle has no order."
    return None


def support(flow: Flow) -> tuple[float, float]:
    """Returns the ends of the domain of a flow's first column; infinite where there is none."""
    column = None if flow.domain is None else flow.domain.domains[0]
    low = -math.inf if column is None or column.low is None else column.low
    high = math.inf if column is None or column.high is None else column.high
    return low, high


def _values_at(flow: Flow, levels: Tensor, context: Tensor | None) -> Tensor:
    """Returns the values, (B, Q), of the latents with these levels of the base, (Q,)."""
    count = 1 if context is None else len(context)
    contexts = None if context is None else context.repeat_interleave(len(levels), 0)
    if flow.base.context_features:
        z = _latent_quantile(flow.base, levels.repeat(count), contexts)
    else:
        z = _latent_quantile(flow.base, levels).repeat(count, 1)
    return flow.bijection.inverse(z.to(flow.dtype), contexts)[0].reshape(count, len(levels))


def _rises(quartiles: Tensor) -> Tensor:
    """Returns whether the map from latent to data increases, (B,), from values (B, 2)."""
    return quartiles[:, 0] <= quartiles[:, 1]


def _latent_quantile(base: Base, levels: Tensor, context: Tensor | None = None) -> Tensor:
    """Returns the quantiles, (N, 1), of levels (N,), by bisection in float64."""
    q = levels[:, None]
    low, high, doublings = -torch.ones_like(q), torch.ones_like(q), 0
    while doublings < MOST_DOUBLINGS:
        above, below = base.cdf(low, context) > q, base.cdf(high, context) < q
        if not (above | below).any():
            break
        low, high = torch.where(above, 2 * low, low), torch.where(below, 2 * high, high)
        doublings += 1
    for _ in range(doublings + HALVINGS):
        middle = (low + high) / 2
        below = base.cdf(middle, context) < q
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return high
