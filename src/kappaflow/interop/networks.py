"""Conditioner networks of other libraries, read layer by layer and checked by their outputs."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from kappaflow.interop.blueprint import CouplingPart, Network, Part, Unsupported, inverse_of
from kappaflow.interop.layers import full_names, is_modified
from kappaflow.nets.activations import FUNCTIONS, MODULES, has_default_arguments
from kappaflow.partition import Partition

NO_EQUIVALENT = "which kappaflow's networks do not have"
LINEAR = {"torch.nn.modules.linear.Linear", "zuko.nn.Linear"}
ROWS = 32  # random inputs on which a network is compared with its layers
RESIDUAL = {"nflows.nn.nets.resnet.ResidualNet", "normflows.nets.resnet.ResidualNet"}


@dataclass(frozen=True)
class LinearLayer:
    """A linear layer, or a convolution that keeps the image size."""

    weight: Tensor
    bias: Tensor

    def after(self, before: "LinearLayer | Norm") -> "LinearLayer":
        """Returns this layer after a linear layer or a norm as one layer."""
        if self.weight.dim() == 4:
            what = "a norm and a convolution" if isinstance(before, Norm) else "two convolutions"
            raise Unsupported(f"its network for images has {what} without an activation between")
        if isinstance(before, Norm):
            return LinearLayer(self.weight * before.factor, self.bias + self.weight @ before.shift)
        bias = self.weight @ before.bias + self.bias
        return LinearLayer(self.weight @ before.weight, bias)

    def before(self, norm: "Norm") -> "LinearLayer":
        """Returns this layer before a norm as one layer."""
        factor = norm.factor.reshape(-1, *(1,) * (self.weight.dim() - 1))
        return LinearLayer(factor * self.weight, norm.factor * self.bias + norm.shift)


@dataclass(frozen=True)
class Norm:
    """A batch norm in evaluation mode: a factor and a shift for each feature."""

    factor: Tensor
    shift: Tensor


@dataclass(frozen=True)
class Activation:
    """An activation by its name in kappaflow, with the slope of a leaky ReLU."""

    name: str
    slope: float = 0.01


NetworkLayer = LinearLayer | Norm | Activation


def read_steps(net: Any) -> Iterator[NetworkLayer]:  # noqa: ANN401
    """Yields linear layers, norms and activations in order."""
    names, kind = full_names(net), type(net)
    if names[0] in LINEAR or kind is nn.Conv2d:
        yield read_layer(net)
    elif kind in MODULES:
        yield _activation(net)
    elif kind in {nn.Identity, nn.Dropout, nn.AlphaDropout}:
        return
    elif kind in {nn.BatchNorm1d, nn.BatchNorm2d}:
        yield _norm(net)
    elif kind is nn.Sequential or names[0] == "zuko.nn.MLP":
        for part in net:
            yield from read_steps(part)
    elif "nflows.nn.nets.mlp.MLP" in names:
        yield from _nflows_mlp(net)
    elif names[0] in {"normflows.nets.mlp.MLP", "normflows.nets.cnn.ConvNet2d"}:
        yield from read_steps(net.net)
    elif names[0] == "zuko.nn.MaskedLinear":
        yield LinearLayer(net.weight * net.mask, _bias(net))
    elif names[0] == "zuko.nn.MaskedMLP":
        for part in net:
            yield from read_steps(part)
    else:
        raise Unsupported(f"its network has a {kind.__name__}, {NO_EQUIVALENT}")


def _nflows_mlp(net: Any) -> Iterator[NetworkLayer]:  # noqa: ANN401
    activation = read_function(net._activation)
    for layer in (net._input_layer, *net._hidden_layers):
        yield from read_steps(layer)
        yield activation
    yield from read_steps(net._output_layer)
    if net._activate_output:
        yield activation


def read_layer(layer: Any) -> LinearLayer:  # noqa: ANN401
    """Returns a copy of a linear layer, or of a convolution that keeps the image size."""
    if isinstance(layer, nn.Conv2d):
        same = tuple(size // 2 for size in layer.kernel_size)
        plain = layer.stride == layer.dilation == (1, 1) and layer.groups == 1
        if not plain or layer.padding != same or layer.padding_mode != "zeros":
            raise Unsupported(
                "its network has a convolution with strides, groups or another padding"
            )
    elif full_names(layer)[0] not in LINEAR:
        raise Unsupported(f"its network has a {type(layer).__name__}, {NO_EQUIVALENT}")
    if layer.weight.dim() == 3:
        raise Unsupported("its network has a stack of linear layers")
    return LinearLayer(layer.weight.detach().clone(), _bias(layer))


def _bias(layer: Any) -> Tensor:  # noqa: ANN401
    weight = layer.weight.detach()
    return weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach().clone()


def _norm(norm: Any) -> Norm:  # noqa: ANN401
    if norm.running_mean is None:
        raise Unsupported("its network has a batch norm without running statistics")
    factor = (norm.running_var + norm.eps).rsqrt()
    if norm.affine:
        factor = factor * norm.weight
    shift = -norm.running_mean * factor
    return Norm(factor.clone(), shift + norm.bias if norm.affine else shift)


def _activation(layer: nn.Module) -> Activation:
    """Returns an activation by name and slope; a leaky ReLU of slope 0 is ReLU."""
    name = MODULES[type(layer)]
    if isinstance(layer, nn.LeakyReLU):
        slope = float(layer.negative_slope)
        return Activation("leaky_relu", slope) if slope else Activation("relu")
    if not has_default_arguments(layer):
        raise Unsupported(f"its network has the activation {layer}, {NO_EQUIVALENT}")
    return Activation(name)


def read_function(function: Any) -> Activation:  # noqa: ANN401
    """Returns an activation given as a function or as a module."""
    if isinstance(function, nn.Module) and type(function) in MODULES:
        return _activation(function)
    if function in FUNCTIONS:
        return Activation(FUNCTIONS[function])
    raise Unsupported(
        f"its network has the activation {getattr(function, '__name__', function)}, which "
        "kappaflow's networks do not have"
    )


def read_network(
    net: Any,  # noqa: ANN401
    inputs: int,
    *,
    context: int = 0,
    separate_context: bool = False,
) -> Network:
    """Returns the layers of a network, after checking that they compute its outputs."""
    if not isinstance(net, nn.Module):
        raise Unsupported(f"its network is a {type(net).__name__}, which is not a module")
    if any(map(is_modified, net.modules())):
        raise Unsupported(
            "its network has hooks or replaced methods, which may change its outputs"
        )
    net = copy.deepcopy(net).eval()
    with torch.no_grad():
        network = _read(net, inputs)
        if not all(tensor.isfinite().all() for tensor in network.tensors()):
            raise Unsupported("its network has weights that are not finite")
        width = network.weights[0].shape[1]
        if width != inputs + context:
            raise Unsupported(
                f"its network has {width} inputs, but the layer has {inputs} features and "
                f"{context} context features"
            )
        _compare(net, network, separate_context=separate_context)
    return network


def check_outputs(network: Network, expected: int) -> Network:
    """Returns the network if it has as many outputs as its layer needs."""
    if network.outputs != expected:
        raise Unsupported(
            f"its network has {network.outputs} outputs, but the layer needs {expected}"
        )
    return network


def conditional_normal(network: Network, width: int) -> list[Part]:
    """Returns a normal base whose network outputs means and then log-deviations, as a coupling."""
    network = check_outputs(network, 2 * width)
    network = network.select_outputs([*range(width, 2 * width), *range(width)])
    return inverse_of([CouplingPart(Partition(width, ()), network, "exp")])


def concatenated(network: Network, other: Network) -> Network:
    """Returns the network with the outputs of two networks of the same input, concatenated."""
    if network.convolves or network.blocks or other.blocks:
        raise Unsupported("it has two networks, which are not plain fully connected")
    settings = [(n.activation, n.slope, len(n.weights), n.inputs) for n in (network, other)]
    if settings[0] != settings[1]:
        raise Unsupported("it has two networks of different depth or activation")
    paired = all(a.shape == b.shape for a, b in zip(network.weights, other.weights, strict=True))
    if not paired or len(network.weights) == 1:
        raise Unsupported("it has two networks of different width or without a hidden layer")
    first, *rest = zip(network.weights, other.weights, strict=True)
    weights = (torch.cat(first), *(torch.block_diag(*pair) for pair in rest))
    pairs = zip(network.biases, other.biases, strict=True)
    biases = tuple(torch.cat(pair) for pair in pairs)
    return replace(network, weights=weights, biases=biases, paired=True)


def constant(biases: Tensor, inputs: int) -> Network:
    """Returns the network with these outputs for any input."""
    return Network((biases.new_zeros(len(biases), inputs),), (biases.clone(),), inputs)


def identity(like: Tensor, width: int) -> Network:
    """Returns the network that outputs its input."""
    return Network((torch.eye(width).to(like),), (like.new_zeros(width),), width)


def _read(net: Any, inputs: int) -> Network:  # noqa: ANN401
    if RESIDUAL.intersection(full_names(net)):
        return _residual(net, inputs)
    return _network(list(read_steps(net)), inputs)


def _network(steps: list[NetworkLayer], inputs: int) -> Network:
    """Returns linear layers with one activation between them; norms go into linear layers."""
    layers: list[LinearLayer] = []
    activations: list[Activation] = []
    waiting: Norm | None = None  # a norm before its linear layer
    for step in steps:
        after_linear = len(layers) > len(activations)
        if isinstance(step, Activation):
            if not after_linear or waiting is not None:
                raise Unsupported("its network has an activation without a linear layer before it")
            activations.append(step)
        elif isinstance(step, Norm):
            if after_linear:
                layers[-1] = layers[-1].before(step)
            elif waiting is None:
                waiting = step
            else:
                raise Unsupported("its network has two norms in a row")
        else:
            step, waiting = step if waiting is None else step.after(waiting), None
            layers.append(step.after(layers.pop()) if after_linear else step)
    if not layers or len(activations) != len(layers) - 1 or waiting is not None:
        raise Unsupported("its network does not end with a linear layer")
    between = _same(activations)
    weights = tuple(layer.weight for layer in layers)
    if weights[0].dim() == 4:
        _check_three_convolutions(weights, between.name)
    biases = tuple(layer.bias for layer in layers)
    return Network(weights, biases, inputs, between.name, between.slope)


def _same(activations: list[Activation]) -> Activation:
    """Returns the activation, which must be the same between all layers."""
    if len(set(activations)) > 1:
        raise Unsupported("its network has different activations")
    return next(iter(activations), Activation("relu"))


def _check_three_convolutions(weights: tuple[Tensor, ...], activation: str) -> None:
    """Raises `Unsupported` unless the convolutions are those of `ConvNet`."""
    sizes = [tuple(weight.shape[2:]) for weight in weights]
    if sizes != [(3, 3), (1, 1), (3, 3)] or weights[1].shape[0] != weights[1].shape[1]:
        raise Unsupported(
            "its network does not consist of convolutions 3x3, 1x1, 3x3 with the same number of "
            "channels in both hidden layers"
        )
    if activation != "relu":
        raise Unsupported(f"its convolutions have {activation} between them instead of ReLU")


def _residual(net: Any, inputs: int) -> Network:  # noqa: ANN401
    """Returns a residual network of nflows, or the copy of it in normflows."""
    if getattr(net, "preprocessing", None) is not None:
        raise Unsupported("its network preprocesses its input")
    layers, gates, activations = [read_layer(net.initial_layer)], [], []
    for block in net.blocks:
        if block.use_batch_norm:
            raise Unsupported("its network has batch norm in its residual blocks")
        activations.append(read_function(block.activation))
        layers += [read_layer(layer) for layer in block.linear_layers]
        if net.context_features is not None:
            gate = read_layer(block.context_layer)
            gates.append((gate.weight, gate.bias))
    layers.append(read_layer(net.final_layer))
    between = _same(activations)
    return Network(
        tuple(layer.weight for layer in layers),
        tuple(layer.bias for layer in layers),
        inputs,
        between.name,
        between.slope,
        blocks=True,
        gates=tuple(gates),
    )


def _compare(net: nn.Module, network: Network, *, separate_context: bool) -> None:
    """Raises `Unsupported` if the layers do not compute the network's outputs."""
    weight = network.weights[0]
    generator = torch.Generator().manual_seed(0)
    image = (4, 4) if network.convolves else ()
    x = torch.randn(ROWS, weight.shape[1], *image, generator=generator).to(weight)
    inputs = x.split((network.inputs, network.context_features), 1)
    try:
        if not separate_context:
            theirs = net(x)
        else:
            theirs = net(inputs[0], inputs[1] if network.context_features else None)
    except Exception as error:
        raise Unsupported(f"calling its network failed ({type(error).__name__})") from error
    ours = network.evaluate(x)
    allowed = 1e3 * torch.finfo(ours.dtype).eps * (1 + ours.abs().max())
    if theirs.shape != ours.shape or not ((theirs - ours).abs() <= allowed).all():
        raise Unsupported("its network computes something else than its layers")
