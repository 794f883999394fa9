"""Conditioner networks of other libraries, read layer by layer and checked by their outputs."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from kappaflow.interop.blueprint import NetworkWeights, Unsupported
from kappaflow.interop.layers import full_names, is_modified
from kappaflow.nets.activations import FUNCTIONS, MODULES, has_default_arguments

NO_EQUIVALENT = "which kappaflow's networks do not have"
LINEAR = {"torch.nn.modules.linear.Linear", "zuko.nn.Linear"}
ROWS = 32  # random inputs on which a network is compared with its layers
RESIDUAL = {"nflows.nn.nets.resnet.ResidualNet", "normflows.nets.resnet.ResidualNet"}


@dataclass(frozen=True)
class LinearLayer:
    """A linear layer."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class ActivationLayer:
    """An activation by its name in kappaflow, with the slope of a leaky ReLU."""

    name: str
    slope: float = 0.01


NetworkLayer = LinearLayer | ActivationLayer


def read_steps(net: Any) -> Iterator[NetworkLayer]:
    """Yields linear layers and activations in order."""
    names, kind = full_names(net), type(net)
    if names[0] in LINEAR:
        yield read_layer(net)
    elif kind in MODULES:
        yield _activation(net)
    elif kind in {nn.Identity, nn.Dropout, nn.AlphaDropout}:
        return
    elif kind is nn.Sequential or names[0] == "zuko.nn.MLP":
        for part in net:
            yield from read_steps(part)
    elif "nflows.nn.nets.mlp.MLP" in names:
        yield from _nflows_mlp(net)
    elif names[0] == "normflows.nets.mlp.MLP":
        yield from read_steps(net.net)
    else:
        raise Unsupported(f"its network has a {kind.__name__}, {NO_EQUIVALENT}")


def _nflows_mlp(net: Any) -> Iterator[NetworkLayer]:
    activation = read_function(net._activation)
    for layer in (net._input_layer, *net._hidden_layers):
        yield from read_steps(layer)
        yield activation
    yield from read_steps(net._output_layer)
    if net._activate_output:
        yield activation


def read_layer(layer: Any) -> LinearLayer:
    """Returns a copy of a linear layer."""
    if full_names(layer)[0] not in LINEAR:
        raise Unsupported(f"its network has a {type(layer).__name__}, {NO_EQUIVALENT}")
    weight = layer.weight.detach().clone()
    if weight.dim() != 2:
        raise Unsupported("its network has a stack of linear layers")
    bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach().clone()
    return LinearLayer(weight, bias)


def _activation(layer: nn.Module) -> ActivationLayer:
    """Returns an activation by name and slope; a leaky ReLU of slope 0 is ReLU."""
    name = MODULES[type(layer)]
    if isinstance(layer, nn.LeakyReLU):
        slope = float(layer.negative_slope)
        return ActivationLayer("leaky_relu", slope) if slope else ActivationLayer("relu")
    if not has_default_arguments(layer):
        raise Unsupported(f"its network has the activation {layer}, {NO_EQUIVALENT}")
    return ActivationLayer(name)


def read_function(function: Any) -> ActivationLayer:
    """Returns an activation given as a function or as a module."""
    if isinstance(function, nn.Module) and type(function) in MODULES:
        return _activation(function)
    if function in FUNCTIONS:
        return ActivationLayer(FUNCTIONS[function])
    raise Unsupported(
        f"its network has the activation {getattr(function, '__name__', function)}, which "
        "kappaflow's networks do not have"
    )


def read_network(
    net: Any, inputs: int, *, context: int = 0, separate_context: bool = False
) -> NetworkWeights:
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


def check_outputs(network: NetworkWeights, expected: int) -> NetworkWeights:
    """Returns the network if it has as many outputs as its layer needs."""
    if network.outputs != expected:
        raise Unsupported(
            f"its network has {network.outputs} outputs, but the layer needs {expected}"
        )
    return network


def concatenated(network: NetworkWeights, other: NetworkWeights) -> NetworkWeights:
    """Returns the network with the outputs of two networks of the same input, concatenated."""
    if network.blocks or other.blocks:
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


def _read(net: Any, inputs: int) -> NetworkWeights:
    if RESIDUAL.intersection(full_names(net)):
        return _residual(net, inputs)
    return _network(list(read_steps(net)), inputs)


def _network(steps: list[NetworkLayer], inputs: int) -> NetworkWeights:
    """Returns linear layers with one activation between them."""
    layers = [step for step in steps[::2] if isinstance(step, LinearLayer)]
    activations = [step for step in steps[1::2] if isinstance(step, ActivationLayer)]
    if len(layers) != len(activations) + 1 or len(steps) != len(layers) + len(activations):
        raise Unsupported("its network does not alternate linear layers and activations")
    between = _same(activations)
    weights = tuple(layer.weight for layer in layers)
    biases = tuple(layer.bias for layer in layers)
    return NetworkWeights(weights, biases, inputs, between.name, between.slope)


def _same(activations: list[ActivationLayer]) -> ActivationLayer:
    """Returns the activation, which must be the same between all layers."""
    if len(set(activations)) > 1:
        raise Unsupported("its network has different activations")
    return next(iter(activations), ActivationLayer("relu"))


def _residual(net: Any, inputs: int) -> NetworkWeights:
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
    return NetworkWeights(
        tuple(layer.weight for layer in layers),
        tuple(layer.bias for layer in layers),
        inputs,
        between.name,
        between.slope,
        blocks=True,
        gates=tuple(gates),
    )


def _compare(net: nn.Module, network: NetworkWeights, *, separate_context: bool) -> None:
    """Raises `Unsupported` if the layers do not compute the network's outputs."""
    weight = network.weights[0]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, weight.shape[1], generator=generator).to(weight)
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
