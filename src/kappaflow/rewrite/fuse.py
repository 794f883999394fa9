"""Runs of linear layers become one."""

import functools
from itertools import groupby

import numpy as np
import torch

from kappaflow.bijection import Bijection
from kappaflow.bijections import Linear, Permutation
from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow
from kappaflow.rewrite.affine import affine_map
from kappaflow.rewrite.items import elementwise_if_any
from kappaflow.rewrite.opened import (
    flow_of,
    is_elementwise,
    is_frozen,
    is_linear,
    is_permutation,
    parts_of,
)
from kappaflow.rewrite.runs import changed_by_run
from kappaflow.rewrite.stacked import stacked


def fuse(flow: Flow) -> Flow:
    """Returns a flow of the same function in which each run of linear layers is one layer.

    Permutations become a permutation, maps of single features such a map, and everything else a
    dense matrix. The standardisation at the data stays what it is, and so does a run whose matrix
    the flow's type cannot tell from a singular one: one by one its layers can still be inverted.
    A run of frozen layers becomes a frozen one; one with a layer that is to be trained is trained.
    Chains inside with a hook stay closed.

    Args:
        flow: Of rows of features, or of images, whose channels are the features.

    Returns:
        A new flow.

    Raises:
        ArgumentError: It is no flow of rows of features, its chain has a hook, or a chain
            inside it has an embedding of its own.

    Example:
        >>> import torch, kappaflow as kf
        >>> layers = [kf.Permutation((1, 0)), kf.ActNorm(2), kf.Permutation((1, 0))]
        >>> flow = kf.Flow(kf.StandardNormal(2), kf.Chain(layers))
        >>> len(kf.fuse(flow).bijection)
        3
    """
    parts = parts_of(flow, stacks=True)
    units = 0
    while units < len(parts) and parts[units].is_standardization:
        units += 1
    change = functools.partial(_fused_run, flow=flow)
    found = changed_by_run(parts[units:], flow.joint_shape, change)
    return flow_of(flow, [part.to(flow.dtype) for part in (*parts[:units], *found)])


def _fused_run(run: list[Bijection], features: int, *, flow: Flow) -> list[Bijection]:
    """Returns layers on so many features, neighbouring linear ones as one."""
    found: list[Bijection] = []
    for linear, group in groupby(run, is_linear):
        layers = list(group)
        found += _fused(layers, features, flow.dtype) if linear and len(layers) > 1 else layers
    return stacked(found, flow)


def _fused(run: list[Bijection], features: int, dtype: torch.dtype) -> list[Bijection]:
    """Returns a run of linear layers as one layer, none where they do nothing, or as it is."""
    made = affine_map(run, features)
    if all(map(is_permutation, run)):
        index = made.matrix.argmax(1).tolist()
        return [] if index == sorted(index) else [Permutation(index)]
    scale = made.matrix.diagonal()
    if all(map(is_elementwise, run)) and (scale > 0).all():
        scale = np.ascontiguousarray(scale)
        return elementwise_if_any(scale, made.shift, frozen=is_frozen(run))
    matrix, shift = (torch.from_numpy(numbers).to(dtype) for numbers in made)
    try:
        return [Linear.of(matrix, shift).requires_grad_(not is_frozen(run))]
    except ArgumentError:  # singular to rounding, or not finite
        return run
