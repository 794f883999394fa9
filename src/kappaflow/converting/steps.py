"""What a network of another library consists of, step by step."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kappaflow.converting.plan import Refused
from kappaflow.nets.mlp import activation_of

# By class: the name that networks of ours have for it.
ACTIVATIONS = {
    nn.ReLU: "relu",
    nn.LeakyReLU: "leaky_relu",
    nn.ELU: "elu",
    nn.SELU: "selu",
    nn.GELU: "gelu",
    nn.SiLU: "silu",
    nn.Softplus: "softplus",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
}
FUNCTIONS = {
    torch.relu: "relu",
    nn.functional.relu: "relu",
    nn.functional.elu: "elu",
    nn.functional.selu: "selu",
    nn.functional.gelu: "gelu",
    nn.functional.silu: "silu",
    nn.functional.softplus: "softplus",
    nn.functional.leaky_relu: "leaky_relu",
    torch.tanh: "tanh",
    nn.functional.tanh: "tanh",
    torch.sigmoid: "sigmoid",
    nn.functional.sigmoid: "sigmoid",
}
LINEAR = {"torch.nn.modules.linear.Linear", "zuko.nn.Linear"}


@dataclass(frozen=True)
class Layer:
    """A linear layer, or a convolution that keeps all places."""

    weight: Tensor
    bias: Tensor

    def after(self, before: "Layer | Norm") -> "Layer":
        """Returns this layer and one before it, or a norm of what it reads, as one."""
        if self.weight.dim() == 4:
            what = "a norm behind an activation" if isinstance(before, Norm) else "convolutions"
            raise Refused(f"its network for images has {what} with no activation between")
        if isinstance(before, Norm):
            return Layer(self.weight * before.factor, self.bias + self.weight @ before.shift)
        bias = self.weight @ before.bias + self.bias
        return Layer(self.weight @ before.weight, bias)

    def normed(self, norm: "Norm") -> "Layer":
        """Returns this layer and a norm behind it as one."""
        factor = norm.factor.reshape(-1, *(1,) * (self.weight.dim() - 1))
        return Layer(factor * self.weight, norm.factor * self.bias + norm.shift)


@dataclass(frozen=True)
class Norm:
    """A batch norm in evaluation mode: a factor and a shift for each feature."""

    factor: Tensor
    shift: Tensor


@dataclass(frozen=True)
class Activation:
    """An activation by its name here, with the slope of a leaky ReLU."""

    name: str
    slope: float = 0.01


Step = Layer | Norm | Activation


def full_names(module: object) -> list[str]:
    """Returns where the classes of an object were defined, its own first."""
    return [f"{kind.__module__}.{kind.__qualname__}" for kind in type(module).__mro__]


def steps_of(net: Any) -> Iterator[Step]:  # noqa: ANN401
    """Yields linear layers, norms and activations in their order; refuses all else."""
    names, kind = full_names(net), type(net)
    if names[0] in LINEAR or kind is nn.Conv2d:
        yield layer_of(net)
    elif kind in ACTIVATIONS:
        yield _activation(net)
    elif kind in {nn.Identity, nn.Dropout, nn.AlphaDropout}:
        return
    elif kind in {nn.BatchNorm1d, nn.BatchNorm2d}:
        yield _norm(net)
    elif kind is nn.Sequential or names[0] == "zuko.nn.MLP":
        for part in net:
            yield from steps_of(part)
    elif "nflows.nn.nets.mlp.MLP" in names:
        yield from _nflows_mlp(net)
    elif names[0] in {"normflows.nets.mlp.MLP", "normflows.nets.cnn.ConvNet2d"}:
        yield from steps_of(net.net)
    elif names[0] == "zuko.nn.MaskedLinear":
        yield Layer(net.weight * net.mask, _bias(net))
    elif names[0] == "zuko.nn.MaskedMLP":
        for part in net:
            yield from steps_of(part)
    else:
        raise Refused(f"its network has a {kind.__name__}, which networks of ours have not")


def _nflows_mlp(net: Any) -> Iterator[Step]:  # noqa: ANN401
    activation = function_of(net._activation)
    for layer in (net._input_layer, *net._hidden_layers):
        yield from steps_of(layer)
        yield activation
    yield from steps_of(net._output_layer)
    if net._activate_output:
        yield activation


def layer_of(layer: Any) -> Layer:  # noqa: ANN401
    """Returns a linear layer, or a convolution that keeps all places; a copy."""
    if isinstance(layer, nn.Conv2d):
        same = tuple(size // 2 for size in layer.kernel_size)
        plain = layer.stride == layer.dilation == (1, 1) and layer.groups == 1
        if not plain or layer.padding != same or layer.padding_mode != "zeros":
            raise Refused("its network has a convolution with strides, groups or other paddings")
    elif full_names(layer)[0] not in LINEAR:
        raise Refused(f"its network has a {type(layer).__name__}, which networks of ours have not")
    if layer.weight.dim() == 3:
        raise Refused("its network has a stack of linear layers")
    return Layer(layer.weight.detach().clone(), _bias(layer))


def _bias(layer: Any) -> Tensor:  # noqa: ANN401
    weight = layer.weight.detach()
    return weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach().clone()


def _norm(norm: Any) -> Norm:  # noqa: ANN401
    if norm.running_mean is None:
        raise Refused("its network has a batch norm that keeps no statistics")
    factor = (norm.running_var + norm.eps).rsqrt()
    if norm.affine:
        factor = factor * norm.weight
    shift = -norm.running_mean * factor
    return Norm(factor.clone(), shift + norm.bias if norm.affine else shift)


def _activation(layer: nn.Module) -> Activation:
    """Returns the name of an activation and its slope; that of a leaky ReLU of slope 0 is ReLU."""
    name = ACTIVATIONS[type(layer)]
    if isinstance(layer, nn.LeakyReLU):
        slope = float(layer.negative_slope)
        return Activation("leaky_relu", slope) if slope else Activation("relu")
    raw = torch.linspace(-32, 32, 257, dtype=torch.float64)
    ours = activation_of(name, 0.0)(raw)
    if not torch.equal(layer(raw), ours):  # of other parameters than torch has by default
        raise Refused(f"its network has the activation {layer}, which networks of ours have not")
    return Activation(name)


def function_of(function: Any) -> Activation:  # noqa: ANN401
    """Returns an activation that was given as a function, or as a module."""
    if isinstance(function, nn.Module) and type(function) in ACTIVATIONS:
        return _activation(function)
    if function in FUNCTIONS:
        return Activation(FUNCTIONS[function])
    raise Refused(
        f"its network has the activation {getattr(function, '__name__', function)}, which "
        "networks of ours have not"
    )
