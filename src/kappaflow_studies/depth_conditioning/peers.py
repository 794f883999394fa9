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


Map = Callable[[Any, Tensor], tuple[Tensor, Tensor]]


class PeerLayer(Bijection):
    """A layer of another library: its module, and how that maps data to latent and back."""

    def __init__(self, layer: nn.Module, encode: Map, decode: Map) -> None:
        super().__init__()
        self.layer = layer
        self.encode, self.decode = encode, decode

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.encode(self.layer, x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.decode(self.layer, z)


def _freia_map(layer: Any, x: Tensor, **direction: bool) -> tuple[Tensor, Tensor]:
    (z,), log_det = layer([x], **direction)
    return z, log_det


MAPS: dict[str, tuple[Map, Map]] = {
    "zuko": (
        lambda layer, x: layer(None).call_and_ladj(x),
        lambda layer, z: layer(None).inv.call_and_ladj(z),
    ),
    "nflows": (lambda layer, x: layer(x), lambda layer, z: layer.inverse(z)),
    "normflows": (lambda layer, x: layer.inverse(x), lambda layer, z: layer.forward(z)),
    "FrEIA": (_freia_map, lambda layer, z: _freia_map(layer, z, rev=True)),
}


def flow_of(library: str, features: int, depth: int, hidden: Sequence[int]) -> Flow:
    """Returns a new RealNVP of a library, of even depth, with the library's initialization."""
    layers = _MAKERS[library](features, depth, tuple(hidden))
    if library != OURS:
        layers = [PeerLayer(layer, *MAPS[library]) for layer in layers]
    return Flow(StandardNormal(features), Chain(layers))


def installed(library: str) -> bool:
    """Returns whether a library can be imported."""
    return library == OURS or find_spec(library) is not None


def _ours(features: int, depth: int, hidden: tuple[int, ...]) -> Sequence[Any]:
    return list(real_nvp(features, depth=depth, hidden=hidden, couplings={"memory": "store"}).core)


def _zuko(features: int, depth: int, hidden: tuple[int, ...]) -> Sequence[Any]:
    import zuko  # pyright: ignore[reportMissingImports]

    flow: Any = zuko.flows.RealNVP(features, transforms=depth, hidden_features=hidden)
    return flow.transform.transforms


def _normflows(features: int, depth: int, hidden: tuple[int, ...]) -> Sequence[Any]:
    import normflows  # pyright: ignore[reportMissingImports]

    half = features // 2
    modes = ("channel", "channel_inv")
    widths = [[half, *hidden, 2 * (features - half)], [features - half, *hidden, 2 * half]]
    return [
        normflows.flows.AffineCouplingBlock(
            normflows.nets.MLP(widths[number % 2], init_zeros=True), split_mode=modes[number % 2]
        )
        for number in range(depth)
    ]


def _nflows(features: int, depth: int, hidden: tuple[int, ...]) -> Sequence[Any]:
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
        AffineCouplingTransform(
            mask if number % 2 == 0 else -mask,
            lambda inputs, outputs: Network([inputs], [outputs], list(hidden)),
        )
        for number in range(depth)
    ]


def _freia(features: int, depth: int, hidden: tuple[int, ...]) -> Sequence[Any]:
    from FrEIA.modules import GLOWCouplingBlock  # pyright: ignore[reportMissingImports]

    def network(inputs: int, outputs: int) -> nn.Module:
        widths = (inputs, *hidden, outputs)
        parts: list[nn.Module] = []
        for a, b in zip(widths, widths[1:], strict=False):
            parts += [nn.Linear(a, b), nn.ReLU()]
        return nn.Sequential(*parts[:-1])

    return [
        GLOWCouplingBlock([(features,)], subnet_constructor=network) for _ in range(depth // 2)
    ]


_MAKERS: dict[str, Callable[[int, int, tuple[int, ...]], Sequence[Any]]] = {
    OURS: _ours, "zuko": _zuko, "nflows": _nflows, "normflows": _normflows, "FrEIA": _freia,
}  # fmt: skip
LIBRARIES = tuple(_MAKERS)
