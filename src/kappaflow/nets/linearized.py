"""Linearizations of conditioners: products with the derivative at given inputs."""

from collections.abc import Callable
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear, pad

from kappaflow.autograd.checkpoint import twice_differentiable
from kappaflow.autograd.replay import without_autocast
from kappaflow.linearization import pulled_back, pushed_forward
from kappaflow.nets.conv import ConvNet, hidden_layers, last_convolution
from kappaflow.nets.exact_type import is_exact, is_exactly
from kappaflow.nets.layers import fast_layout
from kappaflow.nets.masked import MaskedLinear, MaskedMLP
from kappaflow.nets.mlp import MLP

Network = Callable[[Tensor, Tensor | None], Tensor]


class RecordedNetwork:
    """The derivative C of a network by its input at points x, as products C v and C^T u."""

    # The graph of one forward pass is kept, so C^T u costs one backward pass; C v runs the network
    # again in forward mode. With gradients enabled, the products are differentiable.

    def __init__(self, network: Network, x: Tensor, context: Tensor | None = None) -> None:
        self._network, self._x, self._context = network, x, context
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad(), twice_differentiable():
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
        gradient = torch.autograd.grad(
            self._image,
            self._leaf,
            cotangent,
            retain_graph=True,
            create_graph=keep,
            allow_unused=True,
        )[0]
        gradient = torch.zeros_like(self._leaf) if gradient is None else gradient
        return gradient.reshape(*lead, *self._leaf.shape)

    def _map(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        value = self._network(x, context)
        return value, value


class LinearizedMLP:
    r"""The derivative C of a plain `MLP` by its input at points x, as products C v and C^T u.

    A ReLU network is linear near each point: :math:`C = W_L M_{L-1} W_{L-1} \dots M_1 W_1`, where
    the diagonal 0/1 matrices M mark the active units. Only these are stored, and a product costs
    as much as a forward pass. At a unit that is exactly zero the derivative is 0, as in torch.
    """

    def __init__(self, net: MLP, x: Tensor, context: Tensor | None = None) -> None:
        *hidden, last = _layers_of(net)
        self._inputs, self._fixed = x.shape[1], 0 if context is None else context.shape[1]
        self._last = _weight_of(last)
        self._hidden: list[tuple[Tensor, Tensor, bool]] = []
        h = x if context is None else torch.cat((x, context), dim=1)
        for number, layer in enumerate(hidden):
            activated = torch.relu(layer(h))
            added = net.skips(number) and h.shape == activated.shape
            self._hidden.append((_weight_of(layer), activated > 0, added))
            h = h + activated if added else activated
        self.value = last(h)

    def jv(self, v: Tensor) -> Tensor:
        """Returns C v, (..., B, outputs), of vectors (..., B, inputs)."""
        with without_autocast(v.device.type):
            h = pad(v, (0, self._fixed)) if self._fixed else v
            for weight, active, added in self._hidden:
                moved = linear(h, weight) * active
                h = h + moved if added else moved
            return linear(h, self._last)

    def vjp(self, u: Tensor) -> Tensor:
        """Returns C^T u, (..., B, inputs), of vectors (..., B, outputs)."""
        with without_autocast(u.device.type):
            h = u @ self._last
            for weight, active, added in reversed(self._hidden):
                moved = (h * active) @ weight
                h = h + moved if added else moved
            return h[..., : self._inputs]


def is_plain(net: nn.Module, kind: type[MLP] = MLP) -> TypeGuard[MLP]:
    """Returns whether a network is a plain ReLU `MLP`, so that its weights give its derivative."""
    if not is_exactly(net, kind) or net.activation != "relu" or (net.training and net.dropout):
        return False
    layers, layer_kind = list(net.layers), MaskedLinear if kind is MaskedMLP else nn.Linear
    return all(is_exactly(layer, layer_kind) for layer in layers) and not any(
        part._forward_hooks or part._forward_pre_hooks for part in (net, *layers)
    )


def _weight_of(layer: nn.Linear) -> Tensor:
    return layer.weight * layer.mask if isinstance(layer, MaskedLinear) else layer.weight


def _layers_of(net: MLP) -> list[nn.Linear]:
    return [layer for layer in net.layers if isinstance(layer, nn.Linear)]


class LinearizedConvNet:
    """The derivative C of a `ConvNet` by its input at points x, as products C v and C^T u."""

    # As for `LinearizedMLP`, C = W_3 M_2 W_2 M_1 W_1, with convolutions W without their biases.

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
        with without_autocast(v.device.type):
            h = self._masked(conv2d(_rows(v), first, padding=1), 0)
            h = self._masked(conv2d(h, middle), 1)
            return _shaped(conv2d(h, last, padding=1), v)

    def vjp(self, u: Tensor) -> Tensor:
        """Returns C^T u, (..., B, inputs, H, W), of vectors (..., B, outputs, H, W)."""
        first, middle, last = self._transposed
        with without_autocast(u.device.type):
            h = self._masked(conv2d(_rows(u), last, padding=1), 1)
            h = self._masked(conv2d(h, middle), 0)
            return _shaped(conv2d(h, first, padding=1), u)

    def _masked(self, h: Tensor, layer: int) -> Tensor:
        """Returns h with the inactive units of a layer set to zero, for each vector and point."""
        active = self._active[layer]
        if len(h) == len(active):
            return h * active
        return (h.unflatten(0, (-1, len(active))) * active).flatten(0, 1)


def is_plain_conv(net: ConvNet, x: Tensor) -> bool:
    """Returns whether a network is exactly a `ConvNet` that computes `three_convolutions`."""
    return is_exact(net, ConvNet) and net.is_plain(x)


def _transposed(weight: Tensor) -> Tensor:
    """Returns the weight of the transpose of a convolution with padded edges."""
    return fast_layout(weight.transpose(0, 1).flip(2, 3))


def _rows(vectors: Tensor) -> Tensor:
    return fast_layout(vectors.reshape(-1, *vectors.shape[-3:]))


def _shaped(rows: Tensor, like: Tensor) -> Tensor:
    return rows.contiguous().reshape(*like.shape[:-3], *rows.shape[1:])
