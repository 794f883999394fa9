"""What a flow holds: whether calls change it, values follow it, and its state says all of it."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kappaflow.adapters import Wrapped
from kappaflow.conditioning import layers_of
from kappaflow.diagnosis.measures.paths import differ
from kappaflow.diagnosis.unchanged import another, original_of
from kappaflow.flows import Flow

MOVED = 0.05  # of the size of a parameter, to see whether values follow
Held = dict[str, Tensor]


@dataclass(frozen=True)
class State:
    """What calls and changes do to a flow.

    Attributes:
        first: Parameters and buffers that the first calls changed, and the second did not.
        later: Those that the second calls changed.
        stale: By how much log_prob or a sample misses what it is after parameters have moved, if
            the flow was called before; 0 for nothing, None where it cannot be told.
        stale_layer: The first layer whose values do so.
        reloaded: By how much log_prob changes, in nats, when the state is loaded into a flow that
            was made anew; None where none was.
        refused: Why the state could not be loaded, in a line.
    """

    first: tuple[str, ...]
    later: tuple[str, ...]
    stale: float | None
    stale_layer: str | None
    reloaded: float | None
    refused: str | None


def state_of(
    flow: Flow, x: Tensor, context: Tensor | None, make: Callable[[], object] | None
) -> State:
    """Returns what calls do to a flow; they are the first that it sees.

    Args:
        flow: In evaluation mode; what calls change stays changed.
        x: Points as its bijection takes them, (B, *event).
        context: (B, C) or None.
        make: Makes such a flow anew, to load the state into.

    Returns:
        What was found.
    """
    fresh = another(flow, x, context)
    before = _held(flow)
    _called(flow, x, context)
    once = _held(flow)
    _called(flow, x, context)
    first, later = _changed(before, once), _changed(once, _held(flow))
    stale, layer = None, None
    if fresh is not None and not first and not later:
        stale, layer = _stale(another(flow, x, context), fresh, x, context)
    reloaded, refused = (None, None) if make is None else _reloaded(flow, make, x, context)
    return State(
        tuple(name for name in first if name not in later), later, stale, layer, reloaded, refused
    )


def _held(flow: Flow) -> Held:
    """Returns copies of the tensors of a state, by the names that its owner knows."""
    return {
        name.removeprefix("source."): value.detach().clone()
        for name, value in flow.state_dict().items()
        if isinstance(value, Tensor)
    }


def _changed(before: Held, after: Held) -> tuple[str, ...]:
    return tuple(
        name
        for name, value in after.items()
        if name not in before
        or (before[name].shape, before[name].dtype) != (value.shape, value.dtype)
        or not torch.allclose(before[name], value, rtol=0, atol=0, equal_nan=True)
    )


def _called(flow: Flow, x: Tensor, context: Tensor | None) -> Tensor:
    """Returns log_prob by the layers, after all ways have been taken once."""
    z = flow.bijection(x, context)[0]
    flow.bijection.inverse(z, context)
    if isinstance(flow, Wrapped):
        flow.own_log_prob(x, context)
    return flow.joined_log_prob(x, context)


def _stale(
    called: Flow | None, fresh: Flow, x: Tensor, context: Tensor | None
) -> tuple[float | None, str | None]:
    """Returns what a called flow and a fresh one differ by, both moved alike, and the layer."""
    if called is None or not any(True for _ in called.parameters()):
        return None, None
    for one in (called, fresh):
        _move(one)
    pairs = zip(
        layers_of(called.bijection, context), layers_of(fresh.bijection, context), strict=True
    )
    worst, blamed, state = 0.0, None, x
    for old, new in pairs:
        value, log_det = new.bijection(state, new.context)
        found = [
            (old.bijection(state, old.context), (value, log_det)),
            (old.bijection.inverse(value, old.context), new.bijection.inverse(value, new.context)),
        ]
        for one, other in found:
            for a, b in zip(one, other, strict=True):
                if differ(a, b):
                    worst = max(worst, (a - b).abs().nan_to_num(0, posinf=0).max().item())
                    blamed = blamed or new.name
        state = value
    if isinstance(called, Wrapped) and isinstance(fresh, Wrapped):
        own, right = called.own_log_prob(x, context), fresh.own_log_prob(x, context)
        if own is not None and right is not None and differ(own, right):
            worst = max(worst, (own - right).abs().nan_to_num(0, posinf=0).max().item())
    return worst, blamed


def _move(flow: Flow) -> None:
    """Moves the parameters as a step of training does, within the mode of training."""
    generator = torch.Generator().manual_seed(0)
    flow.train()
    for parameter in flow.parameters():
        if parameter.requires_grad and parameter.is_floating_point():
            size = parameter.detach().square().mean().sqrt().item() + 0.1
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_((MOVED * size * noise).to(parameter))
    flow.eval()


def _reloaded(
    flow: Flow, make: Callable[[], object], x: Tensor, context: Tensor | None
) -> tuple[float | None, str | None]:
    """Returns what the state does in a flow that was made anew, and why it could not be loaded."""
    original = original_of(flow)
    try:
        made = make()
    except Exception:  # it made one before: what it needs may be used up
        return None, None
    if not isinstance(original, nn.Module) or not isinstance(made, nn.Module):
        return None, None
    try:
        made.to(dtype=flow.dtype, device=flow.device)
        made.load_state_dict(copy.deepcopy(original.state_dict()))
    except RuntimeError as error:
        return None, " ".join(str(error).split())
    anew = another(made, x, context)
    if anew is None:
        return None, None
    a, b = flow.joined_log_prob(x, context), _called(anew, x, context)
    return ((a - b).abs().nan_to_num(0, posinf=0).max().item() if differ(a, b) else 0.0), None
