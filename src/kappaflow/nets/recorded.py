"""The derivative of any network at points, from one recorded pass whose graph is kept."""

from collections.abc import Callable

import torch
from torch import Tensor

from kappaflow.autograd.checkpoint import memory_modes_bypassed
from kappaflow.linearization import pulled_back, pushed_forward

Network = Callable[[Tensor, Tensor | None], Tensor]


class RecordedNetwork:
    r"""The derivative C of a network by its input, at the points x, as the products C v and C^T u.

    One pass is recorded: the graph of each C^T u, which costs a backward pass and no forward one.
    C v runs the network again, with dual numbers. With gradients enabled the products can be
    differentiated.

    Attributes:
        value: What the network answers, (B, *outputs).

    Args:
        network: Maps (B, *inputs) and a context to (B, *outputs).
        x: Points, (B, *inputs).
        context: (B, C), or None. It is not derived by.

    Example:
        >>> square = RecordedNetwork(lambda x, context: x**2, torch.tensor([[3.0]]))
        >>> [product(torch.ones(1, 1)).item() for product in (square.jv, square.vjp)]
        [6.0, 6.0]
    """

    def __init__(self, network: Network, x: Tensor, context: Tensor | None = None) -> None:
        self._network, self._x, self._context = network, x, context
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad(), memory_modes_bypassed():
            self._leaf = x if differentiable and x.requires_grad else x.detach().requires_grad_()
            self._image = network(self._leaf, context)
        self.value = self._image if differentiable else self._image.detach()

    def jv(self, v: Tensor) -> Tensor:
        """Returns C v, (..., B, *outputs), of vectors (..., B, *inputs)."""
        return pushed_forward(self._map, self._x, self._context, v)

    def vjp(self, u: Tensor) -> Tensor:
        """Returns C^T u, (..., B, *inputs), of vectors (..., B, *outputs)."""
        lead = u.shape[: u.dim() - self._image.dim()]
        if lead.numel() != 1 or not self._image.requires_grad:
            return pulled_back(self._map, self._x, self._context, u, self._image)
        keep = torch.is_grad_enabled()
        cotangent = u.reshape(self._image.shape)
        found = torch.autograd.grad(
            self._image,
            self._leaf,
            cotangent,
            retain_graph=True,
            create_graph=keep,
            allow_unused=True,
        )[0]
        found = torch.zeros_like(self._leaf) if found is None else found
        return found.reshape(*lead, *self._leaf.shape)

    def _map(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        value = self._network(x, context)
        return value, value
