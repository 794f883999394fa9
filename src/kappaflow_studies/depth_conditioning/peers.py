"""Flows of other libraries, built as in their documentation, as chains of bijections.

A library is imported only by the function that builds its flow, since some patch torch on import.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from kappaflow.bijection import Bijection, Chain
from kappaflow.flows import Flow, StandardNormal, real_nvp

OURS = "kappaflow"


class ZukoLayer(Bijection):
    """One transform of zuko."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.layer(None).call_and_ladj(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.layer(None).inv.call_and_ladj(z)


class NormflowsLayer(Bijection):
    """One flow of normflows; its `forward` goes from latent to data."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer: Any = layer

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.layer.inverse(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.layer.forward(z)


class NflowsLayer(Bijection):
    """One transform of nflows."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer: Any = layer

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.layer(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.layer.inverse(z)


class FreiaLayer(Bijection):
    """One block of FrEIA, which contains two couplings."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        (z,), log_det = self.layer([x])
        return z, log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        (x,), log_det = self.layer([z], rev=True)
        return x, log_det


def flow_of(library: str, features: int, depth: int, hidden: Sequence[int]) -> Flow:
    """Returns a new RealNVP of a library, with the library's default initialization.

    Args:
        library: A name of `LIBRARIES`.
        features: Number of features, D.
        depth: Number of couplings, even.
        hidden: Widths of the networks' hidden layers.

    Returns:
        A kappaflow flow with a bijection for each layer of the library.
    """
    layers = _MAKERS[library](features, depth, tuple(hidden))
    return Flow(StandardNormal(features), Chain(layers))


def installed(library: str) -> bool:
    """Returns whether a library can be imported."""
    return library == OURS or find_spec(library) is not None


def _ours(features: int, depth: int, hidden: tuple[int, ...]) -> Sequence[Bijection]:
    return list(real_nvp(features, depth=depth, hidden=hidden, memory="store").core)


def _zuko(features: int, depth: int, hidden: tuple[int, ...]) -> Sequence[Bijection]:
    import zuko  # pyright: ignore[reportMissingImports]

    flow: Any = zuko.flows.RealNVP(features, transforms=depth, hidden_features=hidden)
    return [ZukoLayer(layer) for layer in flow.transform.transforms]


def _normflows(features: int, depth: int, hidden: tuple[int, ...]) -> Sequence[Bijection]:
    import normflows  # pyright: ignore[reportMissingImports]

    half = features // 2
    modes = ("channel", "channel_inv")
    widths = [[half, *hidden, 2 * (features - half)], [features - half, *hidden, 2 * half]]
    return [
        NormflowsLayer(
            normflows.flows.AffineCouplingBlock(
                normflows.nets.MLP(widths[number % 2], init_zeros=True),
                split_mode=modes[number % 2],
            )
        )
        for number in range(depth)
    ]


def _nflows(features: int, depth: int, hidden: tuple[int, ...]) -> Sequence[Bijection]:
    from nflows.nn.nets import MLP  # pyright: ignore[reportMissingImports]
    from nflows.transforms import (  # pyright: ignore[reportMissingImports]
        AffineCouplingTransform,
    )

    class Network(MLP):
        """Accepts the context that couplings pass, which is None."""

        def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
            return super().forward(inputs)

    mask = torch.ones(features)
    mask[::2] = -1
    return [
        NflowsLayer(
            AffineCouplingTransform(
                mask if number % 2 == 0 else -mask,
                lambda inputs, outputs: Network([inputs], [outputs], list(hidden)),
            )
        )
        for number in range(depth)
    ]


def _freia(features: int, depth: int, hidden: tuple[int, ...]) -> Sequence[Bijection]:
    from FrEIA.modules import GLOWCouplingBlock  # pyright: ignore[reportMissingImports]

    def network(inputs: int, outputs: int) -> nn.Module:
        widths = (inputs, *hidden, outputs)
        parts: list[nn.Module] = []
        for a, b in zip(widths, widths[1:], strict=False):
            parts += [nn.Linear(a, b), nn.ReLU()]
        return nn.Sequential(*parts[:-1])

    return [
        FreiaLayer(GLOWCouplingBlock([(features,)], subnet_constructor=network))
        for _ in range(depth // 2)
    ]


_MAKERS: dict[str, Callable[[int, int, tuple[int, ...]], Sequence[Bijection]]] = {
    OURS: _ours,
    "zuko": _zuko,
    "nflows": _nflows,
    "normflows": _normflows,
    "FrEIA": _freia,
}
LIBRARIES = tuple(_MAKERS)
