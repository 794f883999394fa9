"""What stands between the linear layers of a network, by name, since a model file holds names."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from kappaflow._checks import finite_float, one_of

Activation = Callable[[Tensor], Tensor]

# As torch has them by default.
_BY_NAME: dict[str, Activation] = {
    "relu": torch.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "selu": F.selu,
    "gelu": F.gelu,
    "silu": F.silu,
    "softplus": F.softplus,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
ACTIVATIONS = tuple(_BY_NAME)


def activation_of(name: str, slope: float) -> Activation:
    """Returns an activation.

    Args:
        name: One of `ACTIVATIONS`.
        slope: Of "leaky_relu" below zero; the others have none.

    Returns:
        A function of tensors.

    Raises:
        ArgumentError: There is no such activation, or the slope is no finite number.

    Example:
        >>> activation_of("leaky_relu", 0.5)(torch.tensor([-2.0, 2.0]))
        tensor([-1.,  2.])
    """
    found = _BY_NAME[one_of("activation", name, ACTIVATIONS)]
    slope = finite_float("slope", slope)
    return partial(F.leaky_relu, negative_slope=slope) if name == "leaky_relu" else found
