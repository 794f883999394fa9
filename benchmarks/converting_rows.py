"""Flows of other libraries that are converted, built as in their documentation."""

import importlib.util
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.row import Model, Row, Shape, conditioner

ORIGINAL, CONVERTED = "original", "converted"
MOVED = 0.01  # standard deviation of the noise on the weights, so that no coupling is the identity


def present() -> dict[str, str]:
    """Returns the rows of installed libraries, each with a description of the flow."""
    return {
        name: text
        for name, (package, text, _) in _ROWS.items()
        if importlib.util.find_spec(package) is not None
    }


def row_of(name: str, kind: str) -> Row:
    """Returns the original or the converted flow of a row."""
    package, text, build = _ROWS[name]
    make = partial(original, build) if kind == ORIGINAL else partial(converted, build)
    return Row(f"{name}, {kind}", package, package, text, make)


def original(build: Callable[[Shape], Model], shape: Shape) -> Model:
    """Returns the flow of the other library, with noise on its weights."""
    torch.manual_seed(0)
    np.random.seed(0)  # for FrEIA's permutations
    model = build(shape)
    with torch.no_grad():
        for parameter in (p for p in model.module.parameters() if p.requires_grad):
            parameter.add_(MOVED * torch.randn_like(parameter))
    return model


def converted(build: Callable[[Shape], Model], shape: Shape) -> Model:
    """Returns the converted flow."""
    import kappaflow as kf

    flow = kf.convert(original(build, shape).module)
    encode = flow.bijection
    return Model(
        flow, flow.log_prob, flow.sample, lambda x: encode(x)[0], lambda z: encode.inverse(z)[0]
    )


def _zuko(shape: Shape) -> Model:
    return peers._zuko(shape, activation=nn.ReLU)


def _nflows(shape: Shape) -> Model:
    """Returns a flow with residual networks, norms in evaluation mode, and reversals."""
    from nflows.distributions.normal import StandardNormal  # pyright: ignore[reportMissingImports]
    from nflows.flows.base import Flow  # pyright: ignore[reportMissingImports]
    from nflows.nn.nets import ResidualNet  # pyright: ignore[reportMissingImports]
    from nflows.transforms import (  # pyright: ignore[reportMissingImports]
        ActNorm,
        AffineCouplingTransform,
        CompositeTransform,
        ReversePermutation,
    )

    mask = torch.ones(shape.features)
    mask[::2] = -1

    def network(inputs: int, outputs: int) -> nn.Module:
        return ResidualNet(inputs, outputs, shape.hidden[0], num_blocks=2)

    parts: list[nn.Module] = []
    for _ in range(shape.depth):
        norm: Any = ActNorm(shape.features)
        norm.initialized.fill_(True)
        parts += [AffineCouplingTransform(mask, network), norm, ReversePermutation(shape.features)]
    flow = Flow(CompositeTransform(parts), StandardNormal([shape.features]))
    return _model(flow, flow.log_prob, lambda x: flow.transform_to_noise(x))


def _normflows(shape: Shape) -> Model:
    """Returns a flow of masked couplings, with two networks in each."""
    import normflows  # pyright: ignore[reportMissingImports]

    mask = torch.ones(shape.features)
    mask[::2] = 0
    widths = [shape.features, *shape.hidden, shape.features]
    flows = [
        normflows.flows.MaskedAffineFlow(
            mask if layer % 2 else 1 - mask, normflows.nets.MLP(widths), normflows.nets.MLP(widths)
        )
        for layer in range(shape.depth)
    ]
    base = normflows.distributions.DiagGaussian(shape.features, trainable=False)
    flow = normflows.NormalizingFlow(base, flows)
    for parameter in flow.parameters():
        parameter.data.mul_(0.3)  # its log-scales are not bounded
    return _model(flow, flow.log_prob, flow.inverse)


def _freia(shape: Shape) -> Model:
    from FrEIA.framework import SequenceINN  # pyright: ignore[reportMissingImports]
    from FrEIA.modules import AllInOneBlock  # pyright: ignore[reportMissingImports]

    inn = SequenceINN(shape.features)
    for _ in range(shape.depth):
        inn.append(
            AllInOneBlock,
            subnet_constructor=lambda a, b: conditioner((a, *shape.hidden, b), nn.ReLU),
        )

    def log_prob(x: Tensor) -> Tensor:  # the library has no base distribution
        z, log_det = inn(x)
        return log_det - 0.5 * z.square().sum(1) - 0.5 * shape.features * math.log(2 * math.pi)

    return _model(inn, log_prob, lambda x: inn(x)[0])


def _model(
    module: nn.Module, log_prob: Callable[[Tensor], Tensor], encode: Callable[[Tensor], Tensor]
) -> Model:
    """Returns a model for which only training steps are measured."""

    def nothing(_: object) -> Tensor:
        raise NotImplementedError

    return Model(module, log_prob, nothing, encode, nothing)


_ROWS: dict[str, tuple[str, str, Callable[[Shape], Model]]] = {
    "zuko RealNVP": (
        "zuko",
        "`zuko.flows.RealNVP(features, transforms=depth, hidden_features=(128, 128))`",
        _zuko,
    ),
    "nflows RealNVP": (
        "nflows",
        "`AffineCouplingTransform` with `ResidualNet(hidden_features=128, num_blocks=2)`, "
        "`ActNorm`, `ReversePermutation`, depth times",
        _nflows,
    ),
    "normflows RealNVP": (
        "normflows",
        "`MaskedAffineFlow` with `MLP([features, 128, 128, features])` for scales and for shifts",
        _normflows,
    ),
    "normflows coupling blocks": (
        "normflows",
        "`AffineCouplingBlock(MLP([features / 2, 128, 128, features]))`, `split_mode` 'channel' "
        "and 'channel_inv' taking turns",
        peers._normflows,
    ),
    "FrEIA AllInOneBlock": (
        "FrEIA",
        "`AllInOneBlock` with Linear-ReLU-Linear-ReLU-Linear of 128, depth times",
        _freia,
    ),
    "FrEIA GLOWCouplingBlock": (
        "FrEIA",
        "`GLOWCouplingBlock` with the same networks, depth / 2 times: two couplings a block",
        peers._freia,
    ),
}
