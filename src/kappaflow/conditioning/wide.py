"""Measuring in float64, whatever the type of what is measured."""

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from kappaflow.bijection import Bijection
from kappaflow.flows import Flow

Module = TypeVar("Module", Bijection, Flow)
Found = TypeVar("Found")


def in_float64(
    measure: Callable[[Module, Tensor, Tensor | None], Found],
    module: Module,
    x: Tensor,
    context: Tensor | None,
    *,
    wide: Module | None = None,
) -> Found:
    """Returns what is measured of a copy in float64: the same weights, the same points.

    The copy follows the map that the weights define; in a narrower type each layer is met at a
    point that rounding has moved, and layers of a condition number near 1 / eps are lost.

    Args:
        measure: Takes module, points and contexts.
        module: What is measured; it is left as it is.
        x: (B, *event).
        context: (B, C) or None.
        wide: The copy, where `copy.deepcopy` makes none.

    Returns:
        What was measured; of the module itself where it forbids copies or holds to its own type.
    """
    if x.dtype == torch.float64:
        return measure(module, x, context)
    try:
        wide = copy.deepcopy(module).double() if wide is None else wide
        return measure(wide, x.double(), None if context is None else context.double())
    except Exception:  # functions of a library in float32; a fault of the module's own shows again
        return measure(module, x, context)
