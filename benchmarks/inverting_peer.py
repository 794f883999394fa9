"""The same flow with the memory saving of another library, MemCNN, which inverts without checks.

MemCNN has no flows, but its wrapper accepts any invertible module, here one that also passes the
log_det. It is not part of the `bench` extra, because it would install torchvision.
"""

import importlib.util
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from benchmarks.row import Shape, conditioner

NAME = "MemCNN"
DESCRIPTION = (
    "`memcnn.InvertibleModuleWrapper` around each coupling, a module that carries the log_det "
    "along: the same flow, each input read back from the output"
)
INSTALL = "pip install --no-deps memcnn"


def installed() -> bool:
    """Returns whether MemCNN is installed."""
    return importlib.util.find_spec("memcnn") is not None


class PassingCoupling(nn.Module):
    """An affine coupling of points (B, D) that exchanges its halves at the end.

    Args:
        network: Network from the first half to raw log-scales and shifts of the second.
        bound: Bound on the log-scales.
    """

    def __init__(self, network: nn.Module, bound: float) -> None:
        super().__init__()
        self.network = network
        self.bound = bound

    def forward(self, x: Tensor, log_det: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the points, the changed half first, and the sum of the log_dets so far."""
        kept, changed = x.chunk(2, dim=1)
        log_scale, shift = self._log_scale_and_shift(kept)
        return torch.cat((changed * log_scale.exp() + shift, kept), 1), log_det + log_scale.sum(1)

    def inverse(self, z: Tensor, log_det: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the inputs of `forward`."""
        changed, kept = z.chunk(2, dim=1)
        log_scale, shift = self._log_scale_and_shift(kept)
        restored = (changed - shift) * (-log_scale).exp()
        return torch.cat((kept, restored), 1), log_det - log_scale.sum(1)

    def _log_scale_and_shift(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = self.network(kept).chunk(2, dim=1)
        return self.bound * torch.tanh(raw / self.bound), shift


def gradient_error(state: Mapping[str, Tensor], scale_bound: float, shape: Shape) -> float:
    """Returns the relative error of the float32 gradient of the mean log_prob with MemCNN.

    Args:
        state: State of one of our flows, whose weights are used.
        scale_bound: Scale bound of that flow.
        shape: Shape of that flow.

    Returns:
        The error of all gradients as one vector, against plain autograd in float64.
    """
    from memcnn import InvertibleModuleWrapper  # pyright: ignore[reportMissingImports]

    found = _gradient(_couplings(state, scale_bound, shape), shape, InvertibleModuleWrapper)
    exact = _gradient(_couplings(state, scale_bound, shape).double(), shape, lambda layer: layer)
    return ((found - exact).norm() / exact.norm()).item()


def _gradient(
    couplings: nn.ModuleList, shape: Shape, wrap: Callable[[nn.Module], nn.Module]
) -> Tensor:
    dtype = next(couplings.parameters()).dtype
    x, log_det = shape.data(dtype), torch.zeros(shape.batch, dtype=dtype)
    for coupling in couplings:
        x, log_det = wrap(coupling)(x, log_det)
    (log_det - 0.5 * x.square().sum(1)).mean().backward()  # log_prob up to a constant
    gradients = [parameter.grad for parameter in couplings.parameters()]
    return torch.cat([tensor.double().flatten() for tensor in gradients if tensor is not None])


def _couplings(state: Mapping[str, Tensor], scale_bound: float, shape: Shape) -> nn.ModuleList:
    """Returns the couplings of one of our flows, with copies of its weights."""
    networks = [_network(state, layer, shape) for layer in range(shape.depth)]
    return nn.ModuleList(PassingCoupling(net, scale_bound / shape.depth) for net in networks)


def _network(state: Mapping[str, Tensor], layer: int, shape: Shape) -> nn.Module:
    start = f"bijection.bijections.1.bijections.{layer}.conditioner.layers"
    linear = range(len(shape.hidden) + 1)
    names = [f"{start}.{i}.{kind}" for i in linear for kind in ("weight", "bias")]
    network = conditioner(shape.widths, nn.ReLU)
    with torch.no_grad():
        for name, parameter in zip(names, network.parameters(), strict=True):
            parameter.copy_(state[name])
    return network
