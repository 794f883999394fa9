"""Any flow of couplings as one whose couplings all have one partition."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from kappaflow._checks import batch, natural_int
from kappaflow.bijection import Bijection
from kappaflow.errors import ArgumentError
from kappaflow.factor import Factorization, factor_linear
from kappaflow.factor.problem import two_parts
from kappaflow.flows import Flow
from kappaflow.partition import Partition
from kappaflow.rewrite.certificate import Certificate, Replaced, difference
from kappaflow.rewrite.items import Item, LinearMap, partition_of
from kappaflow.rewrite.merge import merged
from kappaflow.rewrite.opened import flow_of, is_coupling, is_elementwise, is_linear, parts_of
from kappaflow.rewrite.plan import Plan
from kappaflow.rewrite.stacked import stacked

POINTS = 256


def rewrite_fixed_partition(
    flow: Flow,
    x: Tensor | None = None,
    *,
    context: Tensor | None = None,
    partition: str | int | Partition = "half",
    couplings: int | None = 6,
    seed: int = 0,
) -> tuple[Flow, Certificate]:
    """Returns a flow of the same function whose couplings all keep or change one half.

    Permutations, other partitions and linear layers become linear couplings, of which those that
    change the same half as a nonlinear neighbour become one coupling with it: a linear map between
    two couplings costs four more, since both ends join.

    Args:
        flow: Of affine and additive couplings, with any linear layers between them.
        x: Points (B, features) on which the two flows are compared; samples of the flow if left
            out.
        context: (B, C) for these points, for a conditional flow.
        partition: "half", "alternating", the size of the first part, or a partition.
        couplings: How many one linear map may take.
        seed: For searches, and for the samples.

    Returns:
        The new flow, which trains, saves and samples like any other, and what was done.

    Raises:
        ArgumentError: It is no flow of one row of features, no coupling of it fits the partition,
            a context is missing, or the points are not finite points of the flow.

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
    if len(flow.event_shape) != 1:
        raise ArgumentError(
            f"'flow' should be one of rows of features, got one of shape {flow.event_shape}."
        )
    plan = Plan(two_parts(partition, *flow.event_shape))
    for part in parts:
        plan.add(part)
    plan.finish()
    found = [
        _factored(plan.items, i, plan.partition, couplings, seed) for i in range(len(plan.items))
    ]
    loose = [layer for layers, _ in found for layer in layers]
    joined = merged([layer.double() for layer in loose])
    exact = flow_of(flow, stacked(joined))
    made = copy.deepcopy(exact).to(flow.dtype)
    return made, Certificate(
        couplings_before=sum(map(is_coupling, parts)),
        mixing_before=sum(is_linear(part) and not is_elementwise(part) for part in parts),
        couplings_after=sum(partition_of(layer) is not None for layer in joined),
        joined=sum(partition_of(layer) is not None for layer in loose)
        - sum(partition_of(layer) is not None for layer in joined),
        replaced=tuple(one for _, one in found if one is not None),
        left=tuple(plan.left),
        points=len(x),
        differences={
            "float64": difference(flow, exact, x, context, torch.float64),
            "float32": difference(flow, made, x, context, torch.float32),
        },
    )


def _factored(
    items: Sequence[Item], place: int, partition: Partition, couplings: int | None, seed: int
) -> tuple[list[Bijection], Replaced | None]:
    """Returns an item as layers, and what became of it if it was a linear map."""
    item = items[place]
    if not isinstance(item, LinearMap):
        return [item], None
    before = _nearest(items[:place][::-1])
    after = _nearest(items[place + 1 :])
    # The first factor of the product comes last, and changes what the partition changes.
    ends = before.swapped() if before is not None else after
    found: Factorization = factor_linear(
        item.matrix, couplings=couplings, partition=partition if ends is None else ends, seed=seed
    )
    layers: list[Bijection] = [*reversed(found.couplings)]
    numbers = found.condition_numbers[::-1]
    return layers, Replaced(
        item.name,
        len(layers),
        found.method,
        found.residual,
        numbers,
        found.flipped is not None,
    )


def _nearest(items: Sequence[Item]) -> Partition | None:
    """Returns the partition of the first coupling, if only elementwise maps come before it."""
    for item in items:
        if (found := partition_of(item)) is not None:
            return found
        if isinstance(item, LinearMap) or not is_elementwise(item):
            return None
    return None


def _points(
    flow: Flow, x: Tensor | None, context: Tensor | None, seed: int
) -> tuple[Tensor, Tensor | None]:
    """Returns points to compare on: those given, if they will do, or samples."""
    if x is not None:
        if not len(batch("x", x, flow.event_shape)) or not x.isfinite().all():
            raise ArgumentError("'x' should hold one finite point or more.")
        with torch.no_grad():
            flow.log_prob(x, context)
        return x, context if context is None else context.expand(len(x), -1)
    if flow.context_features or context is not None:
        raise ArgumentError(
            "'x' and 'context' should be given together, for a conditional flow: its samples need "
            "a context."
        )
    generator = torch.Generator(flow.device).manual_seed(seed)
    training = flow.training
    drawn = flow.eval().sample(POINTS, generator=generator)
    flow.train(training)
    return drawn, None
