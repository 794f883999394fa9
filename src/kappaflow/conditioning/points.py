"""What every measurement asks of its points and contexts, and the modes that it runs in."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from kappaflow._checks import batch
from kappaflow.bijection import Bijection
from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow
from kappaflow.flows.eval_mode import evaluation_mode


@contextmanager
def measuring(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients, yet with derivatives, also within inference mode."""
    with torch.inference_mode(False), torch.no_grad(), evaluation_mode(module):
        yield


def checked_flow(flow: object) -> Flow:
    """Returns the flow, or says that it is none."""
    if not isinstance(flow, Flow):
        raise ArgumentError(
            f"'flow' should be a Flow, got {type(flow).__name__}: kappaflow.wrap makes one of a "
            "flow of another library."
        )
    return flow


def checked_points(
    module: Flow | Bijection, x: Tensor, context: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Returns points and contexts that a flow or a bijection can be measured at.

    Args:
        module: What is to be measured. A flow knows the shape and the type of its points; of a
            bijection the first parameter or buffer tells the type, and if it reads no context it
            may be given one, as the layers of a conditional chain are.
        x: Points, (B, *event).
        context: (B, C), or None.

    Returns:
        Both, cut off from any graph and free of inference mode. For a flow with an augmentation
        the points come joined with a draw of it, the same one each time.

    Raises:
        ArgumentError: A shape, a type, a device or a number of rows does not fit, a value is not
            finite, or a context is missing or not wanted.
    """
    _check_state(module)
    batch("x", x, module.event_shape if isinstance(module, Flow) else None)
    if not len(x):
        raise ArgumentError("'x' should hold at least one point, got none.")
    _check_place("x", x, module)
    x = _values("x", x)
    context = checked_context(module, context, like=x)
    if context is not None and len(context) != len(x):
        raise ArgumentError(
            f"'context' should have a row for each of the {len(x)} points, got {len(context)}."
        )
    if not isinstance(module, Flow):
        return x, context
    joined = joined_points(module, x)
    _check_domain(module, joined)
    return joined, context


def _check_domain(flow: Flow, joined: Tensor) -> None:
    """Refuses points outside of the domain of a flow, which have no latent."""
    if flow.domain is None:
        return
    outside = flow.domain.outside(joined).nonzero().flatten()
    if len(outside):
        domains = flow.domain.domains
        said = ", ".join(f"x[{i}] {one.in_words}" for i, one in enumerate(domains) if one)
        raise ArgumentError(
            f"'x' should lie in the domain of the flow, {said}: row {int(outside[0])} does not"
            f"{f', and {len(outside) - 1:,} more' if len(outside) > 1 else ''}."
        )


@torch.no_grad()
def joined_points(flow: Flow, x: Tensor) -> Tensor:
    """Returns points as the bijection of a flow takes them, the same ones each time."""
    return flow.augmented(x, generator=torch.Generator().manual_seed(0))


def checked_context(
    module: Flow | Bijection, context: Tensor | None, *, like: Tensor | None = None
) -> Tensor | None:
    """Returns a context as `checked_points` does, for points `like` these or for the flow's own.

    Args:
        module: As for `checked_points`.
        context: (B, C), or None.
        like: Points whose type and device the context should have too.

    Returns:
        The context, cut off from any graph and free of inference mode.

    Raises:
        ArgumentError: As for `checked_points`.
    """
    _check_state(module)
    width = module.context_features
    if context is None:
        if not width:
            return None
        raise ArgumentError(
            f"'context' should be given, with {width} columns: this {_noun(module)} is "
            "conditional."
        )
    if isinstance(module, Flow) and not width:
        raise ArgumentError("'context' should be left out: this flow is not conditional.")
    batch("context", context, (width,) if width else None)
    if not len(context):
        raise ArgumentError("'context' should hold at least one row, got none.")
    _check_place("context", context, module)
    if like is not None and (context.dtype, context.device) != (like.dtype, like.device):
        raise ArgumentError(
            f"'context' should be as 'x' is, {like.dtype} on {like.device}, got {context.dtype} "
            f"on {context.device}."
        )
    return _values("context", context)


def _check_state(module: nn.Module) -> None:
    """Says so if the numbers of a module have no derivatives."""
    if any(tensor.is_inference() for tensor in (*module.parameters(), *module.buffers())):
        raise ArgumentError(
            f"'{_noun(module)}' should be made or loaded outside torch.inference_mode(), "
            "got one whose parameters were made inside, so that nothing can be derived from them."
        )


def _check_place(name: str, value: Tensor, module: Flow | Bijection) -> None:
    """Says so if a tensor is of another type or on another device than the module's numbers."""
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
    """Returns the values as an ordinary tensor without a graph, or names the first bad row."""
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
