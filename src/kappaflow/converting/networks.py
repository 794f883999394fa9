"""Conditioner networks of other libraries, read layer by layer, and asked whether that is all."""

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from kappaflow.converting.layers import is_changed
from kappaflow.converting.plan import Network, Refused
from kappaflow.converting.steps import (
    Activation,
    Layer,
    Norm,
    Step,
    full_names,
    function_of,
    layer_of,
    steps_of,
)

POINTS = 32
RESIDUAL = {"nflows.nn.nets.resnet.ResidualNet", "normflows.nets.resnet.ResidualNet"}


def read(net: Any, inputs: int, *, context: int = 0, apart: bool = False) -> Network:  # noqa: ANN401
    """Returns a network as its layers say, once its answers have shown that they say all.

    Args:
        net: Of another library, or of its user.
        inputs: How many numbers it reads beside the context.
        context: Width of the context, which comes behind them.
        apart: Whether the network takes the context as a second argument.

    Returns:
        The network; its tensors are copies.

    Raises:
        Refused: A layer of it has no equal, or its answers are not those of its layers.
    """
    if not isinstance(net, nn.Module):
        raise Refused(f"its network is a {type(net).__name__}, no module that could be read")
    if any(map(is_changed, net.modules())):
        raise Refused("its network has hooks or methods of its own, which may change its answers")
    net = copy.deepcopy(net).eval()
    with torch.no_grad():
        found = _read(net, inputs)
        if not all(tensor.isfinite().all() for tensor in found.tensors()):
            raise Refused("its network has weights that are not finite")
        width = found.weights[0].shape[1]
        if width != inputs + context:
            raise Refused(
                f"its network reads {width} numbers, where there are {inputs} and {context} of "
                "the context"
            )
        _compare(net, found, apart=apart)
    return found


def outputs_of(network: Network, wanted: int) -> Network:
    """Returns a network that answers as many numbers as a layer needs."""
    if network.outputs != wanted:
        raise Refused(f"its network answers {network.outputs} numbers, where {wanted} are needed")
    return network


def beside(one: Network, other: Network) -> Network:
    """Returns the network that answers what two networks answer of the same input, one behind."""
    if one.convolves or one.blocks or other.blocks:
        raise Refused("it has two networks, which are no plain fully connected ones")
    settings = [(n.activation, n.slope, len(n.weights), n.inputs) for n in (one, other)]
    if settings[0] != settings[1]:
        raise Refused("it has two networks, and they differ in depth or activation")
    twins = all(a.shape == b.shape for a, b in zip(one.weights, other.weights, strict=True))
    if not twins or len(one.weights) == 1:
        raise Refused("it has two networks, and they differ in width or have no hidden layer")
    first, *rest = zip(one.weights, other.weights, strict=True)
    weights = (torch.cat(first), *(torch.block_diag(*pair) for pair in rest))
    pairs = zip(one.biases, other.biases, strict=True)
    biases = tuple(torch.cat(pair) for pair in pairs)
    return replace(one, weights=weights, biases=biases, twins=True)


def constant(biases: Tensor, inputs: int) -> Network:
    """Returns the network that answers the same for whatever it reads."""
    return Network((biases.new_zeros(len(biases), inputs),), (biases.clone(),), inputs)


def identity(like: Tensor, width: int) -> Network:
    """Returns the network that answers what it reads."""
    return Network((torch.eye(width).to(like),), (like.new_zeros(width),), width)


def _read(net: Any, inputs: int) -> Network:  # noqa: ANN401
    if RESIDUAL.intersection(full_names(net)):
        return _residual(net, inputs)
    return _network(list(steps_of(net)), inputs)


def _network(steps: list[Step], inputs: int) -> Network:
    """Returns linear layers and one activation between them, norms taken into their neighbours."""
    layers: list[Layer] = []
    activations: list[Activation] = []
    waiting: Norm | None = None  # a norm whose linear layer is still to come
    for step in steps:
        open_ended = len(layers) > len(activations)  # a linear layer came last
        if isinstance(step, Activation):
            if not open_ended or waiting is not None:
                raise Refused("its network has no linear layer in front of each activation")
            activations.append(step)
        elif isinstance(step, Norm):
            if open_ended:
                layers[-1] = layers[-1].normed(step)
            elif waiting is None:
                waiting = step
            else:
                raise Refused("its network has two norms in a row")
        else:
            step, waiting = step if waiting is None else step.after(waiting), None
            layers.append(step.after(layers.pop()) if open_ended else step)
    if not layers or len(activations) != len(layers) - 1 or waiting is not None:
        raise Refused("its network does not end with a linear layer")
    between = _same(activations)
    weights = tuple(layer.weight for layer in layers)
    if weights[0].dim() == 4:
        _check_three_convolutions(weights, between.name)
    biases = tuple(layer.bias for layer in layers)
    return Network(weights, biases, inputs, between.name, between.slope)


def _same(activations: list[Activation]) -> Activation:
    """Returns the activation that stands between all layers."""
    if len(set(activations)) > 1:
        raise Refused("its network has different activations")
    return next(iter(activations), Activation("relu"))


def _check_three_convolutions(weights: tuple[Tensor, ...], activation: str) -> None:
    """Refuses convolutions that are not those of `ConvNet`."""
    sizes = [tuple(weight.shape[2:]) for weight in weights]
    if sizes != [(3, 3), (1, 1), (3, 3)] or weights[1].shape[0] != weights[1].shape[1]:
        raise Refused(
            "its network is not of convolutions 3x3, 1x1, 3x3 with as many channels in both "
            "hidden layers, as ours are"
        )
    if activation != "relu":
        raise Refused(f"its convolutions have {activation} between them, where ours have ReLU")


def _residual(net: Any, inputs: int) -> Network:  # noqa: ANN401
    """Returns a residual network of nflows, or of normflows, which has it from there."""
    if getattr(net, "preprocessing", None) is not None:
        raise Refused("its network has a preprocessing of what it reads")
    layers, gates, activations = [layer_of(net.initial_layer)], [], []
    for block in net.blocks:
        if block.use_batch_norm:
            raise Refused("its network has batch norm inside of residual blocks")
        activations.append(function_of(block.activation))
        layers += [layer_of(layer) for layer in block.linear_layers]
        if net.context_features is not None:
            gate = layer_of(block.context_layer)
            gates.append((gate.weight, gate.bias))
    layers.append(layer_of(net.final_layer))
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


def _compare(net: nn.Module, found: Network, *, apart: bool) -> None:
    """Refuses a network whose answers are not those of its layers."""
    weight = found.weights[0]
    generator = torch.Generator().manual_seed(0)
    places = (4, 4) if found.convolves else ()
    x = torch.randn(POINTS, weight.shape[1], *places, generator=generator).to(weight)
    inputs = x.split((found.inputs, found.context_features), 1)
    try:
        if not apart:
            theirs = net(x)
        else:
            theirs = net(inputs[0], inputs[1] if found.context_features else None)
    except Exception as error:
        raise Refused(f"its network could not be called ({type(error).__name__})") from error
    ours = found.answer(x)
    allowed = 1e3 * torch.finfo(ours.dtype).eps * (1 + ours.abs().max())
    if theirs.shape != ours.shape or not ((theirs - ours).abs() <= allowed).all():
        raise Refused("its network does more than its layers say")
