"""Records a map at one input, to compute its gradients in a backward pass.

A backward pass makes a `Trace`, and pulls the cotangents of (value, log_det) back to the input and
the parameters. By default a trace is the autograd graph of the whole map. A layer with a known
derivative can trace only the unknown part from its output, such as the network of a coupling, and
compute the rest in closed form.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

Map = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]


class Trace:
    """Traces a map at one input by plain autograd; the reference for all other traces."""

    leaf: Tensor  # start of the graph: x, or the part of x that the traced network reads
    outputs: Sequence[Tensor]  # value and log_det, unless a subclass traces a part

    def __init__(self, run: Map, x: Tensor, context: Tensor | None) -> None:
        self.leaf = x.detach().requires_grad_(x.is_floating_point())
        with torch.enable_grad():
            self.outputs = run(self.leaf, context)

    @property
    def x(self) -> Tensor:
        """The input of the map, detached."""
        return self.leaf.detach()

    def seeds(self, cotangent: Tensor, log_det_cotangent: Tensor) -> Sequence[Tensor]:
        """Returns the cotangents of `outputs`, computed from those of value and log_det."""
        return cotangent, log_det_cotangent.to(self.outputs[1].dtype)

    def cotangent(self, gradient: Tensor | None) -> Tensor:
        """Returns the cotangent of x from that of the leaf (None for zero), after `seeds`."""
        return torch.zeros_like(self.leaf) if gradient is None else gradient


def gradients(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    cotangents: Sequence[Tensor],
    *,
    differentiable: bool = False,
) -> list[Tensor | None]:
    """Returns the gradient of each input; None if it needs none or no output depends on it."""
    pairs = [pair for pair in zip(outputs, cotangents, strict=True) if pair[0].requires_grad]
    required = [x for x in inputs if x.requires_grad]
    if not pairs or not required:
        return [None] * len(inputs)
    computed = iter(
        torch.autograd.grad(
            [output for output, _ in pairs],
            required,
            [cotangent for _, cotangent in pairs],
            create_graph=differentiable,
            allow_unused=True,
        )
    )
    return [next(computed) if x.requires_grad else None for x in inputs]


def differentiable_gradients(
    function: Callable[..., Sequence[Tensor]],
    inputs: Sequence[Tensor | None],
    cotangents: Sequence[Tensor],
) -> list[Tensor | None]:
    """Returns the gradient of each input with a graph, by plain autograd through `function`."""
    views = [None if tensor is None else tensor.view_as(tensor) for tensor in inputs]
    present = [view for view in views if view is not None]
    computed = iter(gradients(function(*views), present, cotangents, differentiable=True))
    return [None if view is None else next(computed) for view in views]


def reads_others(outputs: Iterable[Tensor], known: Iterable[Tensor]) -> bool:
    """Returns whether outputs depend on a leaf that is not among `known`."""
    leaves, seen = set(), set()
    for tensor in known:
        leaves.add(id(tensor))
        seen.add(tensor.grad_fn)
    pending = [output.grad_fn for output in outputs]
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        following = node.next_functions
        variable = None if following else getattr(node, "variable", None)
        if variable is not None and id(variable) not in leaves:
            return True
        pending += [node for node, _ in following]
    return False


@contextmanager
def hooks_set_aside(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Disables tensor hooks, so that only the outer graph calls them, with the full gradient."""
    hooks = [t._backward_hooks for t in tensors if t._backward_hooks and t.is_leaf]
    copies = [dict(each) for each in hooks]
    for each in hooks:
        each.clear()
    try:
        yield
    finally:
        for each, copy in zip(hooks, copies, strict=True):
            each.update(copy)
