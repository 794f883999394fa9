"""Networks of FrEIA. They go from data to latent, and have no base: it is a standard normal."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kappaflow.adapters.parts import ForeignLayer, Parts
from kappaflow.flows import StandardNormal

Shapes = Sequence[Sequence[int]]


def parts_of(flow: Any, x: Tensor | None, context: Tensor | None) -> Parts:  # noqa: ANN401, ARG001
    """Returns the modules of a SequenceINN, or a GraphINN as one layer."""
    width = 0 if context is None else context.shape[1]
    if hasattr(flow, "conditions") and hasattr(flow, "shapes"):
        layers = [
            _layer(one, flow.shapes[i : i + 2], flow.conditions[i] is not None, width)
            for i, one in enumerate(flow.module_list)
        ]
        latent = tuple(flow.shapes[-1])
    else:
        layers = [_graph(flow, width)]
        latent = layers[0].latent_event_shape
    return Parts("FrEIA", layers, StandardNormal(latent), flow)


def _layer(module: Any, shapes: Shapes, conditional: bool, width: int) -> ForeignLayer:  # noqa: ANN401
    def called(value: Tensor, given: Tensor | None, rev: bool) -> tuple[Tensor, Any]:
        condition = {"c": [given]} if conditional else {}
        found, log_det = module((value,), rev=rev, jac=True, **condition)
        return found[0], log_det

    return ForeignLayer(
        type(module).__name__,
        lambda value, given: called(value, given, False),
        lambda value, given: called(value, given, True),
        (shapes[0], shapes[1]),
        width if conditional else 0,
    )


def _graph(flow: Any, width: int) -> ForeignLayer:  # noqa: ANN401
    """Returns a graph as a layer; several inputs or outputs are one row of numbers each."""
    sides = [[tuple(one) for one in shapes] for shapes in _sides(flow)]
    shapes = [one[0] if len(one) == 1 else (sum(map(math.prod, one)),) for one in sides]

    def called(value: Tensor, given: Tensor | None, rev: bool) -> tuple[Tensor, Any]:
        condition = None if given is None else [given]
        found, log_det = flow(_split(value, sides[rev]), c=condition, rev=rev, jac=True)
        return _joined(found), log_det

    return ForeignLayer(
        type(flow).__name__,
        lambda value, given: called(value, given, False),
        lambda value, given: called(value, given, True),
        (shapes[0], shapes[1]),
        width,
    )


def _sides(flow: Any) -> tuple[Shapes, Shapes]:  # noqa: ANN401
    return flow.dims_in, flow.global_out_shapes


def _split(value: Tensor, shapes: list[tuple[int, ...]]) -> tuple[Tensor, ...]:
    if len(shapes) == 1:
        return (value,)
    parts = value.split([math.prod(one) for one in shapes], 1)
    return tuple(part.reshape(-1, *one) for part, one in zip(parts, shapes, strict=True))


def _joined(found: Any) -> Tensor:  # noqa: ANN401
    if isinstance(found, Tensor):
        return found
    return found[0] if len(found) == 1 else torch.cat([one.flatten(1) for one in found], 1)
