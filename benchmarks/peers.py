"""The rows of other libraries, with flows built as in their documentation.

A library is imported only by the function that builds its flow, since some patch torch on import.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.row import TIMED, Model, Row, Shape, conditioner


def peer_rows() -> list[Row]:
    """Returns a row for each library, and a row of zuko with another activation."""
    return [
        Row(
            "zuko",
            "zuko",
            "zuko",
            "`zuko.flows.RealNVP(64, transforms=depth, hidden_features=(128, 128))`: "
            "even and odd features take turns",
            partial(_zuko, activation=nn.ReLU),
        ),
        Row(
            "zuko, SiLU",
            "zuko with SiLU",
            "zuko",
            "the same with `activation=torch.nn.SiLU`, for comparison with any module",
            partial(_zuko, activation=nn.SiLU),
            TIMED,
            activation=nn.SiLU,
        ),
        Row(
            "normflows",
            "normflows",
            "normflows",
            "`normflows.flows.AffineCouplingBlock(MLP([32, 128, 128, 64], init_zeros=True))`, "
            "`split_mode` 'channel' and 'channel_inv' taking turns in place of permutations",
            _normflows,
        ),
        Row(
            "nflows",
            "nflows",
            "nflows",
            "`nflows.transforms.AffineCouplingTransform` with `nflows.nn.nets.MLP`, even and odd "
            "features taking turns as in `SimpleRealNVP`, whose own networks are residual",
            _nflows,
        ),
        Row(
            "FrEIA",
            "FrEIA",
            "FrEIA",
            "`FrEIA.modules.GLOWCouplingBlock` in a `SequenceINN`: two couplings a block, halves "
            "taking turns, one network a coupling; depth / 2 blocks, default clamping",
            _freia,
        ),
    ]


def _zuko(shape: Shape, *, activation: type[nn.Module]) -> Model:
    import zuko  # pyright: ignore[reportMissingImports]

    flow = zuko.flows.RealNVP(
        shape.features,
        transforms=shape.depth,
        hidden_features=shape.hidden,
        activation=activation,
    )
    return of_zuko(flow)


def of_zuko(flow: Any) -> Model:  # noqa: ANN401
    """Returns the model of a flow of zuko without a context."""
    return Model(
        flow,
        lambda x: flow().log_prob(x),
        lambda n: flow().sample((n,)),
        lambda x: flow().transform(x),
        lambda z: flow().transform.inv(z),
    )


def _normflows(shape: Shape) -> Model:
    import normflows  # pyright: ignore[reportMissingImports]

    couplings = []
    for layer in range(shape.depth):
        changed = (shape.features + layer % 2) // 2
        widths = [shape.features - changed, *shape.hidden, 2 * changed]
        couplings.append(
            normflows.flows.AffineCouplingBlock(
                normflows.nets.MLP(widths, init_zeros=True),
                split_mode=("channel", "channel_inv")[layer % 2],
            )
        )
    base = normflows.distributions.DiagGaussian(shape.features, trainable=False)
    flow = normflows.NormalizingFlow(base, couplings)
    return Model(flow, flow.log_prob, lambda n: flow.sample(n)[0], flow.inverse, flow.forward)


def _nflows(shape: Shape) -> Model:
    from nflows.transforms import (  # pyright: ignore[reportMissingImports]
        AffineCouplingTransform,
    )

    return nflows_couplings(shape, AffineCouplingTransform)


def nflows_couplings(shape: Shape, coupling: Callable[..., nn.Module]) -> Model:
    """Returns a flow of nflows whose even and odd features take turns."""
    from nflows.distributions.normal import StandardNormal  # pyright: ignore[reportMissingImports]
    from nflows.flows.base import Flow  # pyright: ignore[reportMissingImports]
    from nflows.nn.nets import MLP  # pyright: ignore[reportMissingImports]
    from nflows.transforms import CompositeTransform  # pyright: ignore[reportMissingImports]

    class Network(MLP):
        """Accepts the context that couplings pass, which is None."""

        def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
            return super().forward(inputs)

    def network(inputs: int, outputs: int) -> nn.Module:
        return Network([inputs], [outputs], list(shape.hidden))

    mask = torch.ones(shape.features)
    mask[::2] = -1
    couplings = [coupling(-mask if layer % 2 else mask, network) for layer in range(shape.depth)]
    flow = Flow(CompositeTransform(couplings), StandardNormal([shape.features]))
    transform: Any = flow._transform
    return Model(
        flow,
        flow.log_prob,
        flow.sample,
        lambda x: transform(x)[0],
        lambda z: transform.inverse(z)[0],
    )


def _freia(shape: Shape) -> Model:
    from FrEIA.framework import SequenceINN  # pyright: ignore[reportMissingImports]
    from FrEIA.modules import GLOWCouplingBlock  # pyright: ignore[reportMissingImports]

    def network(inputs: int, outputs: int) -> nn.Module:
        return conditioner((inputs, *shape.hidden, outputs), nn.ReLU)

    inn = SequenceINN(shape.features)
    for _ in range(shape.depth // 2):
        inn.append(GLOWCouplingBlock, subnet_constructor=network)

    def log_prob(x: Tensor) -> Tensor:  # the library has no base distribution
        z, log_det = inn(x)
        normal = -0.5 * z.square().sum(1) - 0.5 * shape.features * math.log(2 * math.pi)
        return normal + log_det

    def decode(z: Tensor) -> Tensor:
        return inn(z, rev=True)[0]

    return Model(
        inn,
        log_prob,
        lambda n: decode(torch.randn(n, shape.features)),
        lambda x: inn(x)[0],
        decode,
    )
