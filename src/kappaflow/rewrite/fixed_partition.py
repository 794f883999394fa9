"""Rewrites any flow of couplings to use a single fixed partition."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from kappaflow._checks import batch, natural_int
from kappaflow.bijection import Bijection
from kappaflow.conditioning.points import checked_points
from kappaflow.errors import ArgumentError, NumericalError
from kappaflow.factor import factor_linear
from kappaflow.factor.problem import resolve_partition
from kappaflow.factor.strategies import Count
from kappaflow.flows import Flow
from kappaflow.flows.eval_mode import evaluation_mode
from kappaflow.partition import Partition
from kappaflow.rewrite.certificate import Certificate, Replaced, difference
from kappaflow.rewrite.layers import (
    Item,
    MixingMap,
    changed_by_run,
    flow_of,
    is_any_coupling,
    is_elementwise,
    is_frozen,
    is_linear,
    partition_of,
    parts_of,
    stacked,
)
from kappaflow.rewrite.merge import merged
from kappaflow.rewrite.plan import Plan

POINTS = 256


def rewrite_fixed_partition(
    flow: Flow,
    x: Tensor | None = None,
    *,
    context: Tensor | None = None,
    partition: str | int | Partition = "half",
    couplings: Count = "auto",
    seed: int = 0,
) -> tuple[Flow, Certificate]:
    """Returns a flow with the same function and a single partition for all couplings.

    Permutations, other partitions and linear layers become linear couplings. A linear coupling
    merges with a neighboring nonlinear one that changes the same half. So a linear map between
    two couplings costs four more couplings, since both ends merge.

    Couplings made from frozen layers stay frozen. A linear coupling made from a frozen and a
    trainable layer is trainable. A completely frozen flow stays frozen. Inner chains with a hook
    stay unchanged. A forward hook on a linear layer is evaluated, and its effect becomes part of
    the new weights.

    Args:
        flow: A flow of affine and additive couplings, with any linear layers between them. For
            images, linear layers act on channels, such as 1x1 convolutions, and each scale has its
            own partition. Couplings that split pixels (a checkerboard) are kept.
        x: Rows (B, features) for comparing the two flows; samples of the flow by default.
        context: Contexts of these rows, (B, C), or (1, C) for all, for a conditional flow.
        partition: "half", "alternating", the size of the first part, or a partition.
        couplings: Largest number of couplings for one linear map, None for the fewest, or "auto",
            as for `factor_linear`.
        seed: Seed for searches and for the samples.

    Returns:
        The new flow, which trains, saves and samples like any other, and a certificate.

    Raises:
        ArgumentError: The input is not a flow; its chain has a hook; none of its couplings fits
            the partition; one of its linear maps is singular or needs more couplings; a context is
            missing; or the rows and contexts do not fit the flow or are not finite.
        NumericalError: The search for the factors of a linear map failed.

    Source:
        Ours; the count of couplings goes back to Koehler, Mehta, Risteski 2021.

    Example:
        >>> import kappaflow as kf
        >>> flow = kf.real_nvp(6, depth=4, hidden=(8,), partition="random")
        >>> plain, certificate = kf.rewrite_fixed_partition(flow)
        >>> certificate.couplings_before, certificate.differences["float64"].log_prob < 1e-10
        (4, True)
    """
    natural_int("seed", seed)
    parts = parts_of(flow)
    x, context = _points(flow, x, context, seed)
    rewriter = _Rewriter(flow, partition, couplings, seed)
    layers = changed_by_run(parts, flow.joint_shape, rewriter)
    if not rewriter.runs:
        raise ArgumentError(
            "'flow' should have layers on two features or more: a coupling changes one by another."
        )
    exact = flow_of(flow, layers)
    if is_frozen([flow]):  # including permutations, which have no parameters
        exact.requires_grad_(False)
    rewritten = copy.deepcopy(exact).to(flow.dtype)
    return rewritten, Certificate(
        couplings_before=rewriter.couplings_before,
        mixing_before=rewriter.mixing_before,
        couplings_after=rewriter.couplings_after,
        joined=rewriter.joined,
        replaced=tuple(rewriter.replaced),
        left=tuple(rewriter.left),
        points=len(x),
        differences={
            "float64": difference(flow, exact, x, context, torch.float64),
            "float32": difference(flow, rewritten, x, context, torch.float32),
        },
    )


class _Rewriter:
    """Rewrites each sequence of layers to one partition, and counts the changes."""

    def __init__(
        self, flow: Flow, partition: str | int | Partition, couplings: Count, seed: int
    ) -> None:
        self._flow = flow
        self._partition, self._seed = partition, seed
        self._couplings: Count = couplings
        self.runs = self.couplings_before = self.mixing_before = 0
        self.couplings_after = self.joined = 0
        self.replaced: list[Replaced] = []
        self.left: list[str] = []

    def __call__(self, run: list[Bijection], features: int) -> list[Bijection]:
        """Returns layers with the same function, in float64, on one partition of the features."""
        known = [part for part in run if is_any_coupling(part) and not is_linear(part)]
        self.couplings_before += len(known)
        self.mixing_before += sum(is_linear(part) and not is_elementwise(part) for part in run)
        if features < 2:  # one channel: couplings split only pixels there
            self.couplings_after += len(known)
            self.left += [type(part).__name__ for part in known]
            return [part.double() for part in run]
        self.runs += 1
        plan = Plan(resolve_partition(self._partition, features))
        plan.add_all(run)
        layers: list[Bijection] = []
        for i in range(len(plan.items)):
            factors, replaced = _factored(
                plan.items, i, plan.partition, self._couplings, self._seed
            )
            layers += factors
            self.replaced += [] if replaced is None else [replaced]
        fewer = merged([layer.double() for layer in layers])
        before, after = (sum(map(is_any_coupling, each)) for each in (layers, fewer))
        self.couplings_after += after
        self.joined += before - after
        self.left += plan.left
        return stacked(fewer, self._flow)


def _factored(
    items: Sequence[Item], number: int, partition: Partition, couplings: Count, seed: int
) -> tuple[list[Bijection], Replaced | None]:
    """Returns an item as layers, and a record if it was a linear map."""
    item = items[number]
    if not isinstance(item, MixingMap):
        return [item], None
    before = _nearest(items[:number][::-1], partition)
    after = _nearest(items[number + 1 :], partition)
    # The first factor of the product acts last, and changes what the partition changes.
    ends = before.swapped() if before is not None else after
    ends = partition if ends is None else ends
    try:
        result = factor_linear(item.matrix, couplings=couplings, partition=ends, seed=seed)
    except (ArgumentError, NumericalError) as error:
        raise type(error)(f"the linear map of the flow's {item.name}: {error}") from None
    layers: list[Bijection] = [
        coupling.requires_grad_(not item.frozen) for coupling in reversed(result.couplings)
    ]
    return layers, Replaced(
        item.name,
        couplings=len(layers),
        method=result.method,
        residual=result.residual,
        condition_numbers=result.condition_numbers[::-1],
        flipped=result.flipped is not None,
    )


def _nearest(items: Sequence[Item], partition: Partition) -> Partition | None:
    """Returns the partition of the nearest coupling if a factor can merge with it; else None."""
    for item in items:
        if (own := partition_of(item)) is not None:
            return own if own in (partition, partition.swapped()) else None
        if isinstance(item, MixingMap) or not is_elementwise(item):
            return None
    return None


def _points(
    flow: Flow, x: Tensor | None, context: Tensor | None, seed: int
) -> tuple[Tensor, Tensor | None]:
    """Returns the augmented rows to compare on: the given ones, or samples."""
    if x is not None:
        if isinstance(context, Tensor) and context.dim() == 2 and len(context) == 1:
            context = context.expand(len(batch("x", x, flow.event_shape)), -1)
        return checked_points(flow, x, context)
    if flow.context_features or context is not None:
        raise ArgumentError(
            "'x' and 'context' should be given together for a conditional flow, whose samples "
            "need a context."
        )
    generator = torch.Generator(flow.device).manual_seed(seed)
    with evaluation_mode(flow), torch.no_grad():
        z = flow.base.sample(POINTS, dtype=flow.dtype, device=flow.device, generator=generator)
        return flow.bijection.inverse(z)[0], None
