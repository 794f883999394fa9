"""The derivative of an `MLP` at points, from one recorded pass; no graph is kept."""

from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from kappaflow.nets.as_made import is_exactly
from kappaflow.nets.mlp import MLP


class LinearizedMLP:
    r"""The derivative C of an `MLP` by its input, at the points x, as the products C v and C^T u.

    A ReLU network is linear near each point: :math:`C = W_L M_{L-1} W_{L-1} \dots M_1 W_1`, where
    the diagonal 0/1 matrices M say which units are active there. They are what is recorded; a
    product then costs as much as a pass. With gradients enabled the products can be
    differentiated: the masks are constant wherever they have a derivative.

    Attributes:
        value: What the network answers, (B, outputs).

    Args:
        net: A network that `is_plain` accepts.
        x: Points, (B, inputs).
        context: (B, C), beside which x is read. It is not derived by.

    Source:
        Ours; at a unit that is exactly zero the derivative is 0, as in torch.

    Example:
        >>> net = MLP(2, 1, ())
        >>> torch.nn.init.ones_(net.layers[0].weight).shape
        torch.Size([1, 2])
        >>> LinearizedMLP(net, torch.zeros(1, 2)).jv(torch.tensor([[2.0, 3.0]])).detach()
        tensor([[5.]])
    """

    def __init__(self, net: MLP, x: Tensor, context: Tensor | None = None) -> None:
        *hidden, last = _layers_of(net)
        self._inputs, self._fixed = x.shape[1], 0 if context is None else context.shape[1]
        self._last = last.weight
        self._hidden: list[tuple[Tensor, Tensor, bool]] = []
        h = x if context is None else torch.cat((x, context), dim=1)
        for layer in hidden:
            activated = torch.relu(layer(h))
            added = net.residual and h.shape == activated.shape
            self._hidden.append((layer.weight, activated > 0, added))
            h = h + activated if added else activated
        self.value = last(h)

    def jv(self, v: Tensor) -> Tensor:
        """Returns C v, (..., B, outputs), of vectors (..., B, inputs)."""
        with torch.autocast(v.device.type, enabled=False):
            h = pad(v, (0, self._fixed)) if self._fixed else v
            for weight, active, added in self._hidden:
                moved = linear(h, weight) * active
                h = h + moved if added else moved
            return linear(h, self._last)

    def vjp(self, u: Tensor) -> Tensor:
        """Returns C^T u, (..., B, inputs), of vectors (..., B, outputs)."""
        with torch.autocast(u.device.type, enabled=False):
            h = u @ self._last
            for weight, active, added in reversed(self._hidden):
                moved = (h * active) @ weight
                h = h + moved if added else moved
            return h[..., : self._inputs]


def is_plain(net: nn.Module) -> TypeGuard[MLP]:
    """Returns whether a network is an `MLP` that does what its layers say, and nothing else.

    Not so with a subclass, a hook before or after a forward, a parametrization, a layer of another
    kind, another activation than ReLU, a `forward` of its own, or dropout at work: then only
    autograd knows its derivative.
    """
    if not is_exactly(net, MLP) or net.activation != "relu" or (net.training and net.dropout):
        return False
    layers = list(net.layers)
    return all(is_exactly(layer, nn.Linear) for layer in layers) and not any(
        part._forward_hooks or part._forward_pre_hooks for part in (net, *layers)
    )


def _layers_of(net: MLP) -> list[nn.Linear]:
    return [layer for layer in net.layers if isinstance(layer, nn.Linear)]
