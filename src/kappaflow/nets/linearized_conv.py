"""The derivative of a `ConvNet` at points, from one recorded pass; no graph is kept."""

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from kappaflow.nets.as_made import is_as_made
from kappaflow.nets.conv import ConvNet
from kappaflow.nets.conv_node import hidden_layers, last_convolution
from kappaflow.nets.layers import fast_layout


class LinearizedConvNet:
    r"""The derivative C of a `ConvNet` by its input, at the points x: products C v and C^T u.

    As for `LinearizedMLP`, :math:`C = W_3 M_2 W_2 M_1 W_1`, here of convolutions without their
    biases: a product costs as much as a pass, where forward-mode differentiation costs two and
    more. With gradients enabled the products can be differentiated.

    Attributes:
        value: What the network answers, (B, outputs, H, W).

    Args:
        net: A network that `is_plain_conv` accepts.
        x: Points, (B, inputs, H, W).
        context: (B, C), or None. It is not derived by.

    Source:
        Ours; at a unit that is exactly zero the derivative is 0, as in torch.
    """

    def __init__(self, net: ConvNet, x: Tensor, context: Tensor | None = None) -> None:
        weights = net.weights()
        self._weights = [fast_layout(weight) for weight in weights[::2]]
        self._transposed = [_transposed(weight) for weight in weights[::2]]
        hidden = hidden_layers(fast_layout(x), net.first.shift(x, context), weights)
        self._active = tuple((layer > 0).to(layer.dtype) for layer in hidden)
        self.value = last_convolution(hidden, weights).contiguous()

    def jv(self, v: Tensor) -> Tensor:
        """Returns C v, (..., B, outputs, H, W), of vectors (..., B, inputs, H, W)."""
        first, middle, last = self._weights
        with torch.autocast(v.device.type, enabled=False):
            h = self._masked(conv2d(_rows(v), first, padding=1), 0)
            h = self._masked(conv2d(h, middle), 1)
            return _shaped(conv2d(h, last, padding=1), v)

    def vjp(self, u: Tensor) -> Tensor:
        """Returns C^T u, (..., B, inputs, H, W), of vectors (..., B, outputs, H, W)."""
        first, middle, last = self._transposed
        with torch.autocast(u.device.type, enabled=False):
            h = self._masked(conv2d(_rows(u), last, padding=1), 1)
            h = self._masked(conv2d(h, middle), 0)
            return _shaped(conv2d(h, first, padding=1), u)

    def _masked(self, h: Tensor, layer: int) -> Tensor:
        """Returns what the active units of a layer pass on, for each vector of each point."""
        active = self._active[layer]
        if len(h) == len(active):
            return h * active
        return (h.unflatten(0, (-1, len(active))) * active).flatten(0, 1)


def is_plain_conv(net: ConvNet, x: Tensor) -> bool:
    """Returns whether a network is no subclass and does what its layers say, and nothing else."""
    return is_as_made(net, ConvNet) and net.is_plain(x)


def _transposed(weight: Tensor) -> Tensor:
    """Returns the weight of the convolution that is the transpose of one, its edges padded."""
    return fast_layout(weight.transpose(0, 1).flip(2, 3))


def _rows(vectors: Tensor) -> Tensor:
    return fast_layout(vectors.reshape(-1, *vectors.shape[-3:]))


def _shaped(rows: Tensor, like: Tensor) -> Tensor:
    return rows.contiguous().reshape(*like.shape[:-3], *rows.shape[1:])
