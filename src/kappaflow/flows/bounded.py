"""Bounds given to a flow that a recipe made, before it is fitted."""

from collections.abc import Sequence

import torch

from kappaflow.bijection import Chain
from kappaflow.domains import Bound, intervals
from kappaflow.errors import ArgumentError
from kappaflow.flows.flow import Flow
from kappaflow.registry import build, describe, take_description


def set_bounds(flow: Flow, bounds: Sequence[Bound], *, seed: int = 0) -> None:
    """Makes a flow, in place, what its recipe makes with these bounds, freshly initialised.

    A flow that has them already is unchanged. An embedding is the module that was given, with
    its weights.

    Args:
        flow: As a recipe of tables made it, not fitted.
        bounds: The domain of each feature, as `kappaflow.Domain` takes them.
        seed: Decides the initial weights.

    Raises:
        ArgumentError: It has other bounds, it is fitted already, or it is put together by hand.

    Example:
        >>> import kappaflow as kf
        >>> flow = kf.real_nvp(2, depth=2, hidden=(8,))
        >>> set_bounds(flow, ["positive", None])
        >>> flow.domain.domains[0].in_words
        'above 0'
    """
    expected = intervals(bounds, flow.event_shape[0])
    if flow.domain is not None:
        if flow.domain.domains[: len(expected)] != expected:
            raise ArgumentError("'bounds' should be left out: the flow has other ones already.")
        return
    described = describe(flow)
    if "bounds" not in described["arguments"]:
        raise ArgumentError(
            f"'bounds' should be left out for a flow made by {described['name']!r}: put a "
            "kappaflow.Domain before its chain."
        )
    if any(bool(getattr(part, "fitted", False)) for part in flow.standardization):
        raise ArgumentError("'bounds' should be given before a flow is fitted; this one is.")
    texts = [None if domain is None else domain.text for domain in expected]
    arguments = {**described["arguments"], "bounds": texts}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = build({**described, "arguments": arguments})
    made.to(flow.device, flow.dtype).train(flow.training)
    _keep_embedding(flow.bijection, made.bijection)
    flow.base, flow.bijection, flow.augment = made.base, made.bijection, made.augment
    take_description(flow, made)


def _keep_embedding(of: object, made: object) -> None:
    """Lets a new chain read its context by what another one reads it by."""
    if isinstance(of, Chain) and isinstance(made, Chain):
        made.embedding = of.embedding
