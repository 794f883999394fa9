"""The autograd node of a block of couplings."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kappaflow.bijection import Chain, Inverse
from kappaflow.errors import ArgumentError, NumericalWarning
from kappaflow.fingerprints import LARGEST_ERROR, error_text, relative_error
from kappaflow.stack.block import Block
from kappaflow.stack.execution import Manner, Pass

Gradients = tuple[Tensor, Tensor, list[Tensor]]


def run_block(block: Block, x: Tensor, context: Tensor, manner: Manner) -> tuple[Tensor, Tensor]:
    """Returns the value and the log_det (B,) of x (B, features) behind a block.

    Args:
        block: The couplings.
        x: Points.
        context: (B, C), of no columns where there is none.
        manner: How.

    Returns:
        Both, with their graph where gradients are recorded.
    """
    tensors = block.tensors()
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, context, *tensors)):
        if manner.memory == "invert" and block.recomputing:
            manner = replace(manner, memory="recompute")
        return _Node.apply(block, manner, x, context, *tensors)  # pyright: ignore[reportReturnType]
    return block.start(replace(manner, memory="score"), x).there(x, context, tensors)


class _Node(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        block: Block,
        manner: Manner,
        x: Tensor,
        context: Tensor,
        *tensors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.block, ctx.manner = block, manner
        ctx.run = block.start(manner, x)
        z, log_det = ctx.run.there(x, context, tensors)
        ctx.save_for_backward(x, context, z if manner.memory == "invert" else None, *tensors)
        return z, log_det

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:  # noqa: ANN401
        x, context, z, *tensors = ctx.saved_tensors
        wanted = ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():
            return None, None, *_plainly(ctx, x, context, tensors, gradients, wanted)
        of_z, of_log_det = gradients
        found = None
        if ctx.manner.memory == "invert" and not ctx.block.recomputing and len(x):
            found = _from_output(ctx.block, ctx.run, x, z, context, tensors, (of_z, of_log_det))
        if found is None:
            found = _from_states(ctx.run, x, context, tensors, (of_z, of_log_det))
        of_x, of_context, of_tensors = found
        return (
            None,
            None,
            *(
                g if w else None
                for g, w in zip((of_x, of_context, *of_tensors), wanted, strict=True)
            ),
        )


def _from_states(
    run: Pass,
    x: Tensor,
    context: Tensor,
    tensors: Sequence[Tensor],
    gradients: tuple[Tensor, Tensor],
) -> Gradients:
    """Returns exact gradients, from what was kept, or from x where nothing is kept (any more)."""
    if run.keep == "nothing" or not run.ready:
        run = run.again("states")
        run.there(x, context, tensors)
    return run.back(gradients, context, tensors)


def _from_output(
    block: Block,
    run: Pass,
    x: Tensor,
    z: Tensor,
    context: Tensor,
    tensors: Sequence[Tensor],
    gradients: tuple[Tensor, Tensor],
) -> Gradients | None:
    """Returns gradients from states that are found by inversion; None if they are not exact."""
    back = x.new_empty(x.shape)
    found = run.back(gradients, context, tensors, (z, back))
    errors = run.errors()
    last = next(reversed(errors))
    error = float(relative_error(back, x))
    if not error <= errors[last]:  # a nan is larger than all
        errors[last] = error
    for layer, error in errors.items():
        if not error <= LARGEST_ERROR:  # a nan is too large
            if not torch.isfinite(z).all():
                return None  # says nothing of the block: there is nothing to go back from
            block.recomputing = True
            warnings.warn(
                _too_large(block, layer, error, run.direction), NumericalWarning, stacklevel=2
            )
            return None
    return found


def _too_large(block: Block, layer: int, error: float, direction: int) -> str:
    names = block.layer_names()
    first = block.first + 1
    return error_text(names[layer], error, first, block.first + len(names), inverse=direction < 0)


def _plainly(
    ctx: Any,  # noqa: ANN401
    x: Tensor,
    context: Tensor,
    tensors: Sequence[Tensor],
    gradients: Sequence[Tensor],
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """Returns gradients that can be differentiated again, by the readable definition."""
    if ctx.run.drops:
        raise ArgumentError(
            "a second derivative was asked for of couplings whose conditioners have dropout in "
            "training mode: put the flow in evaluation mode, or build it with dropout=0."
        )
    inputs = [x, context, *tensors]
    asked = [t for t, w in zip(inputs, wanted, strict=True) if w]
    plain = Chain(ctx.block.plain(tensors)).eval()  # as it was: no units were left out
    values = (plain if ctx.manner.direction > 0 else Inverse(plain))(x, context)
    pairs = [(v, g) for v, g in zip(values, gradients, strict=True) if v.requires_grad]
    made, theirs = zip(*pairs, strict=True)  # the log_det of additive couplings is a constant
    found = iter(torch.autograd.grad(made, asked, theirs, create_graph=True, allow_unused=True))
    return [next(found) if w else None for w in wanted]
