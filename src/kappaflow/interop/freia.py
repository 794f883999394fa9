"""Networks of FrEIA for `wrap`, from data to latent, with a standard normal base."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kappaflow.flows import StandardNormal
from kappaflow.foreign.layers import ForeignLayer, Parts

Shapes = Sequence[Sequence[int]]


def parts_of(flow: Any, x: Tensor | None, context: Tensor | None) -> Parts:
    """Returns the modules of a SequenceINN, or a GraphINN as one layer."""
    width = 0 if context is None else context.shape[1]
    if hasattr(flow, "conditions") and hasattr(flow, "shapes"):
        layers = [
            _layer(module, flow.shapes[i : i + 2], flow.conditions[i] is not None, width)
            for i, module in enumerate(flow.module_list)
        ]
        latent = tuple(flow.shapes[-1])
    else:
        layers = [_graph_layer(flow, width)]
        latent = layers[0].latent_event_shape
    return Parts("FrEIA", layers, StandardNormal(latent), flow)


def _layer(module: Any, shapes: Shapes, conditional: bool, width: int) -> ForeignLayer:
    def call(value: Tensor, context: Tensor | None, rev: bool) -> tuple[Tensor, Any]:
        condition = {"c": [context]} if conditional else {}
        output, log_det = module((value,), rev=rev, jac=True, **condition)
        return output[0], log_det

    return ForeignLayer(
        type(module).__name__,
        lambda value, context: call(value, context, False),
        lambda value, context: call(value, context, True),
        (shapes[0], shapes[1]),
        width if conditional else 0,
    )


def _graph_layer(flow: Any, width: int) -> ForeignLayer:
    """Returns a graph as one layer; several inputs or outputs are joined into one row."""
    both = flow.dims_in, flow.global_out_shapes
    sides = [[tuple(shape) for shape in shapes] for shapes in both]
    shapes = [side[0] if len(side) == 1 else (sum(map(math.prod, side)),) for side in sides]

    def call(value: Tensor, context: Tensor | None, rev: bool) -> tuple[Tensor, Any]:
        condition = None if context is None else [context]
        output, log_det = flow(_split(value, sides[rev]), c=condition, rev=rev, jac=True)
        return _joined(output), log_det

    return ForeignLayer(
        type(flow).__name__,
        lambda value, context: call(value, context, False),
        lambda value, context: call(value, context, True),
        (shapes[0], shapes[1]),
        width,
    )


def _split(value: Tensor, shapes: list[tuple[int, ...]]) -> tuple[Tensor, ...]:
    if len(shapes) == 1:
        return (value,)
    parts = value.split([math.prod(shape) for shape in shapes], 1)
    return tuple(part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True))


def _joined(outputs: Any) -> Tensor:
    if isinstance(outputs, Tensor):
        return outputs
    if len(outputs) == 1:
        return outputs[0]
    return torch.cat([output.flatten(1) for output in outputs], 1)
