"""The effect of memory layout, products and in-place ReLU on convolutional networks."""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

import kappaflow as kf
from benchmarks.turns import in_turn, timed

CHANNELS_LAST = torch.channels_last


def convolutions(
    *,
    channels: Sequence[int] = (6, 12, 24),
    sides: Sequence[int] = (16, 8, 4),
    batch: int = 16,
    hidden: int = 128,
    repetitions: int = 61,
) -> None:
    """Print the time of convolutional networks in several forms, interleaved, on one thread.

    The reference is the unmodified network, on images in channels-first layout (NCHW). For each
    other form, the command prints the median ratio of times in the same round and the largest
    difference from the reference. Outputs have twice as many channels as images.

    Parameters
    ----------
    channels
        Numbers of channels of the images.
    sides
        Height and width of the images, one for each of `channels`.
    batch
        Number of images.
    hidden
        Channels of the hidden layers; residual networks have half of them.
    repetitions
        Number of repetitions.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for inputs, side in zip(channels, sides, strict=True):
        x = torch.randn(batch, inputs, side, side)
        three = kf.nets.ConvNet(inputs, 2 * inputs, hidden)
        residual = kf.nets.ResidualConvNet(inputs, 2 * inputs, (hidden + 1) // 2)
        for net, forms_of in ((three, _forms_of_three), (residual, _forms_of_residual)):
            layers = [part for part in net.modules() if isinstance(part, nn.Conv2d)]
            for layer in layers:  # replaces the zero start
                nn.init.normal_(layer.weight, std=0.05)
            print(f"{type(net).__name__}, {batch} x {inputs} x {side} x {side}")
            _compare({**forms_of(layers), "kappaflow": net}, x, repetitions)


class Form(nn.Module):
    """The convolutions of a network, with a choice of how to call them."""

    def __init__(
        self, layers: list[nn.Conv2d], call: Callable[[list[nn.Conv2d], Tensor], Tensor]
    ) -> None:
        super().__init__()
        self._called = layers
        self.layers, self._call = nn.ModuleList(layers), call

    def forward(self, x: Tensor) -> Tensor:
        return self._call(self._called, x)


def _turned(layers: list[nn.Conv2d]) -> list[nn.Conv2d]:
    """Returns copies with weights in channels-last layout."""
    copies = copy.deepcopy(layers)
    for layer in copies:
        layer.weight.data = layer.weight.data.contiguous(memory_format=CHANNELS_LAST)
    return copies


def _forms_of_three(layers: list[nn.Conv2d]) -> dict[str, nn.Module]:
    forms, turned = {}, _turned(layers)
    for name, relu in {"": torch.relu, ", ReLU in place": torch.relu_}.items():
        last = partial(_three, relu=relu, layout=CHANNELS_LAST)
        product = partial(last, middle=_product)
        forms |= {
            f"NCHW{name}": Form(layers, partial(_three, relu=relu)),
            f"channels last{name}": Form(layers, last),
            f"and weights{name}": Form(turned, last),
            f"and 1x1 as a product{name}": Form(turned, product),
        }
    return forms


def _three(
    layers: list[nn.Conv2d],
    x: Tensor,
    *,
    relu: Callable[[Tensor], Tensor],
    layout: torch.memory_format = torch.contiguous_format,
    middle: Callable[[nn.Conv2d, Tensor], Tensor] = nn.Conv2d.__call__,
) -> Tensor:
    h = relu(layers[0](x.contiguous(memory_format=layout)))
    return layers[2](relu(middle(layers[1], h)))


def _product(convolution: nn.Conv2d, h: Tensor) -> Tensor:
    """Returns a 1x1 convolution of channels-last images, computed as a product."""
    rows = linear(h.permute(0, 2, 3, 1), convolution.weight.flatten(1), convolution.bias)
    return rows.permute(0, 3, 1, 2)


def _forms_of_residual(layers: list[nn.Conv2d]) -> dict[str, nn.Module]:
    last = partial(_residual, layout=CHANNELS_LAST)
    return {
        "NCHW": Form(layers, _residual),
        "channels last": Form(layers, last),
        "and weights": Form(_turned(layers), last),
    }


def _residual(
    layers: list[nn.Conv2d], x: Tensor, *, layout: torch.memory_format = torch.contiguous_format
) -> Tensor:
    first, *blocks, last = layers
    h = first(x.contiguous(memory_format=layout))
    for one, two in zip(blocks[::2], blocks[1::2], strict=True):
        h = h + two(torch.relu(one(torch.relu(h))))
    return last(torch.relu(h))


def _compare(forms: Mapping[str, nn.Module], x: Tensor, repetitions: int) -> None:
    wanted = forms["NCHW"](x).detach()
    point, cotangent = x.clone().requires_grad_(), torch.randn_like(wanted)

    def back(form: nn.Module) -> None:
        torch.autograd.grad(form(point), [point, *form.parameters()], cotangent)

    both = _times({name: partial(back, form) for name, form in forms.items()}, repetitions)
    with torch.no_grad():
        forward = _times({name: partial(form, x) for name, form in forms.items()}, repetitions)
        errors = {name: (form(x) - wanted).abs().max() for name, form in forms.items()}
    print(f"  {'':<36}{'forward':>12}{'and back':>12}{'error':>10}")
    for name, error in errors.items():
        relative = (error / wanted.abs().max()).item()
        print(f"  {name:<36}{forward[name]:>12}{both[name]:>12}{relative:>10.0e}")


def _times(calls: Mapping[str, Callable[[], object]], repetitions: int) -> dict[str, str]:
    """Returns the milliseconds of the reference, and the ratios of the others to it."""
    taken = in_turn({name: partial(timed, call) for name, call in calls.items()}, repetitions)
    reference = taken["NCHW"]
    ratios = {
        name: f"{median(a / b for a, b in zip(times, reference, strict=True)):.2f}"
        for name, times in taken.items()
    }
    return ratios | {"NCHW": f"{median(reference) * 1e3:.2f} ms"}
