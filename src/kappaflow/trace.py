"""One layer at one point, ready for cotangents to be pulled back through it.

A backward pass that has kept a layer's input, or its output, makes a `Trace` and pulls the
cotangents of (value, log_det) to the input and to the parameters. The trace of any layer is a
graph of the whole of it, by plain autograd. A layer that knows its own derivative hands out a
graph of the unknown part alone, such as the network of a coupling, and does the rest itself.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

Map = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]


class Trace:
    """A map at a point, by plain autograd: the reference for every other.

    Args:
        run: x, context to value, log_det.
        x: (B, *event); no path leads back to it.
        context: (B, C), where there is one.

    Attributes:
        leaf: What the graph begins at: x, or what is read of it.
        outputs: What the graph ends at.
    """

    leaf: Tensor
    outputs: Sequence[Tensor]

    def __init__(self, run: Map, x: Tensor, context: Tensor | None) -> None:
        self.leaf = x.detach().requires_grad_(x.is_floating_point())
        with torch.enable_grad():
            self.outputs = run(self.leaf, context)

    @property
    def x(self) -> Tensor:
        """The point."""
        return self.leaf.detach()

    def answer(self) -> tuple[Tensor, Tensor]:
        """Returns the map's value (B, *event) and log_det (B,), without a graph."""
        value, log_det = self.outputs
        return value.detach(), log_det.detach()

    def seeds(self, cotangent: Tensor, log_det_cotangent: Tensor) -> Sequence[Tensor]:
        """Returns the cotangents of `outputs`, from those of value and log_det."""
        return cotangent, log_det_cotangent.to(self.outputs[1].dtype)

    def cotangent(self, found: Tensor | None) -> Tensor:
        """Returns the cotangent of x, after `seeds`, from that of the leaf, None for zero."""
        return torch.zeros_like(self.leaf) if found is None else found


def gradients(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    cotangents: Sequence[Tensor],
    *,
    differentiable: bool = False,
) -> list[Tensor | None]:
    """Returns a gradient for each input, None where there is no path or no wish."""
    pairs = [pair for pair in zip(outputs, cotangents, strict=True) if pair[0].requires_grad]
    wanted = [x for x in inputs if x.requires_grad]
    if not pairs or not wanted:
        return [None] * len(inputs)
    found = iter(
        torch.autograd.grad(
            [output for output, _ in pairs],
            wanted,
            [cotangent for _, cotangent in pairs],
            create_graph=differentiable,
            allow_unused=True,
        )
    )
    return [next(found) if x.requires_grad else None for x in inputs]


def reads_others(outputs: Iterable[Tensor], known: Iterable[Tensor]) -> bool:
    """Returns whether outputs depend on a leaf that is not known."""
    leaves, seen = set(), set()
    for tensor in known:
        leaves.add(id(tensor))
        seen.add(tensor.grad_fn)
    waiting = [output.grad_fn for output in outputs]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        following = node.next_functions
        variable = None if following else getattr(node, "variable", None)
        if variable is not None and id(variable) not in leaves:
            return True
        waiting += [node for node, _ in following]
    return False


@contextmanager
def hooks_set_aside(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Leaves hooks of tensors to the graph outside, where each gradient passes once, and whole."""
    hooks = [t._backward_hooks for t in tensors if t._backward_hooks and t.is_leaf]
    copies = [dict(each) for each in hooks]
    for each in hooks:
        each.clear()
    try:
        yield
    finally:
        for each, copy in zip(hooks, copies, strict=True):
            each.update(copy)
