"""The inputs of every measurement: checked points, the layers of a flow, float64 copies."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from kappaflow._checks import batch
from kappaflow.bijection import Bijection, Chain
from kappaflow.bijections.image import MultiScale
from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow
from kappaflow.flows.eval_mode import evaluation_mode
from kappaflow.flows.rows import Data, tensors_for
from kappaflow.flows.rows import checked_context as context_of_flow
from kappaflow.linearization import Linearization
from kappaflow.stack import CouplingStack

Module = TypeVar("Module", Bijection, Flow)
Result = TypeVar("Result")


@contextmanager
def measuring(module: nn.Module) -> Iterator[None]:
    """Context manager: evaluation mode without gradients, but outside inference mode."""
    with torch.inference_mode(False), torch.no_grad(), evaluation_mode(module):
        yield


def checked_flow(flow: object) -> Flow:
    """Returns the flow; raises ArgumentError if the object is not a flow."""
    if not isinstance(flow, Flow):
        raise ArgumentError(
            f"'flow' should be a Flow, got {type(flow).__name__}: use kappaflow.wrap "
            "for flows of other libraries."
        )
    return flow


def checked_points(
    module: Flow | Bijection, x: Data, context: Data
) -> tuple[Tensor, Tensor | None]:
    """Returns points, with an augmentation, and contexts to measure at, without a graph."""
    # A bijection without context accepts one, like the layers of a conditional chain.
    _check_state(module)
    if isinstance(module, Flow):
        x, context = tensors_for(module, x, context)
    batch("x", x, module.event_shape if isinstance(module, Flow) else None)
    if not len(x):
        raise ArgumentError("'x' should hold at least one row, got none.")
    _check_place("x", x, module)
    x = _values("x", x)
    context = checked_context(module, context, like=x)
    if context is not None and len(context) != len(x):
        raise ArgumentError(
            f"'context' should have a row for each of the {len(x)} rows of 'x', "
            f"got {len(context)}."
        )
    if not isinstance(module, Flow):
        return x, context
    joined = joined_points(module, x)
    _check_domain(module, joined)
    return joined, context


def _check_domain(flow: Flow, joined: Tensor) -> None:
    if flow.domain is None:
        return
    outside = flow.domain.outside(joined).nonzero().flatten()
    if len(outside):
        domains = flow.domain.domains
        names = flow.columns or tuple(f"x[{i}]" for i in range(len(domains)))
        described = ", ".join(
            f"{name} {domain.description}"
            for name, domain in zip(names, domains, strict=False)
            if domain
        )
        raise ArgumentError(
            f"'x' should lie in the domain of the flow, {described}: row {int(outside[0])} does "
            "not"
            f"{f', and {len(outside) - 1:,} more' if len(outside) > 1 else ''}."
        )


@torch.no_grad()
def joined_points(flow: Flow, x: Tensor) -> Tensor:
    """Returns points with their augmentation, which is the same in each call."""
    return flow.augmented(x, generator=torch.Generator().manual_seed(0))


def checked_context(
    module: Flow | Bijection, context: Data, *, like: Tensor | None = None
) -> Tensor | None:
    """Returns a checked context; `like` has the dtype and device that it must have."""
    _check_state(module)
    width = module.context_features
    if isinstance(module, Flow):
        context = context_of_flow(module, context)
    elif context is None and width:
        raise ArgumentError(
            f"'context' should be given, with {width} columns: this bijection is conditional."
        )
    if context is None:
        return None
    batch("context", context, (width,) if width else None)
    if not len(context):
        raise ArgumentError("'context' should hold at least one row, got none.")
    _check_place("context", context, module)
    if like is not None and (context.dtype, context.device) != (like.dtype, like.device):
        raise ArgumentError(
            f"'context' should have the type and device of 'x', {like.dtype} on {like.device}, "
            f"got {context.dtype} on {context.device}."
        )
    return _values("context", context)


def _check_state(module: nn.Module) -> None:
    """Raises ArgumentError for a module made in inference mode, which has no derivatives."""
    if any(tensor.is_inference() for tensor in (*module.parameters(), *module.buffers())):
        raise ArgumentError(
            f"'{_noun(module)}' should be made or loaded outside torch.inference_mode(), "
            "got one whose parameters were created inside and have no derivatives."
        )


def _check_place(name: str, value: Tensor, module: Flow | Bijection) -> None:
    noun = _noun(module)
    if isinstance(module, Flow):
        dtype, device = module.dtype, module.device
    else:
        state = (*module.parameters(), *module.buffers())
        own = next((tensor for tensor in state if tensor.is_floating_point()), None)
        if own is None:
            return
        dtype, device = own.dtype, own.device
    if value.dtype != dtype:
        raise ArgumentError(
            f"'{name}' should be of the {noun}'s type {dtype}, got {value.dtype}: convert it with "
            f"{name}.to({dtype}), or the {noun} with {noun}.to({name}.dtype)."
        )
    if value.device != device:
        raise ArgumentError(
            f"'{name}' should be on the {noun}'s device {device}, got {value.device}: move it "
            f"with {name}.to('{device}')."
        )


def _values(name: str, value: Tensor) -> Tensor:
    """Returns an ordinary tensor without a graph; raises ArgumentError if a row is not finite."""
    with torch.inference_mode(False), torch.no_grad():
        value = value.clone() if value.is_inference() else value.detach()
        rows = value.flatten(1)
        bad = (~torch.isfinite(rows)).any(dim=1).nonzero().flatten()
        if len(bad):
            row = rows[bad[0]]
            got = row[~torch.isfinite(row)][0].item()
            among = f", the first of {len(bad)} such rows" if len(bad) > 1 else ""
            raise ArgumentError(
                f"'{name}' should hold finite numbers only, got {got} in row {int(bad[0])}, "
                f"counted from 0{among}."
            )
    return value


def _noun(module: nn.Module) -> str:
    return "flow" if isinstance(module, Flow) else "bijection"


@dataclass(frozen=True)
class Layer:
    """One bijection of a flow, with the context that reaches it, (B, C), or None.

    The name is its position, counted from 1 at the data, and its class: "3 AffineCoupling".
    """

    name: str
    bijection: Bijection
    context: Tensor | None

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.bijection(x, self.context)

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.bijection.inverse(z, self.context)

    def linearize(self, x: Tensor) -> Linearization:
        return self.bijection.linearize(x, self.context)


def layers_of(bijection: Bijection, context: Tensor | None = None) -> tuple[Layer, ...]:
    """Returns the layers of a bijection in order; nested chains and stacks are expanded.

    The layers of a stack are its plain couplings, the same function up to rounding. The layers of
    a multi-scale map act on one flat state; their names contain the number of their scale.
    """
    walked = _walk(bijection, context)
    return tuple(
        Layer(f"{i} {part.layer_name()}", part, part_context)
        for i, (part, part_context) in enumerate(walked, start=1)
    )


def _walk(
    bijection: Bijection, context: Tensor | None
) -> Iterator[tuple[Bijection, Tensor | None]]:
    if isinstance(bijection, CouplingStack | MultiScale):
        bijection = bijection.plain()
    if not isinstance(bijection, Chain):
        yield bijection, context
        return
    context = bijection.embed(context)
    for part in bijection:
        yield from _walk(part, context)


def in_float64(
    measure: Callable[[Module, Tensor, Tensor | None], Result],
    module: Module,
    x: Tensor,
    context: Tensor | None,
    *,
    module64: Module | None = None,
) -> Result:
    """Returns the result of a measurement on a float64 copy with the same weights and points."""
    # In a narrower type, rounding moves the points that reach each layer. `module64` is a float64
    # copy of a module that `copy.deepcopy` cannot copy. A module without a float64 copy is
    # measured itself.
    if x.dtype == torch.float64:
        return measure(module, x, context)
    try:
        module64 = copy.deepcopy(module).double() if module64 is None else module64
        return measure(module64, x.double(), None if context is None else context.double())
    except Exception:  # a library that needs float32; any other error is raised again here
        return measure(module, x, context)
