"""Glows of the same shape from parts of other libraries, imported only when one is built.

All have the same networks, one for each coupling: convolutions 3x3, 1x1, 3x3 with ReLU between
them. Each squeezes before every level, and factors out half of the channels after all levels but
the last. A coupling before the factored-out half replaces the learned prior, which no library has.
The description of each row lists the differences.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.row import ImageShape, Model, Row


def image_peers() -> list[Row]:
    """Returns a row for each library."""
    return [
        Row(
            "FrEIA Glow",
            "images",
            "FrEIA",
            "`AllInOneBlock(permute_soft=True)`, a coupling of its own clamping, a scale and a "
            "shift that no data start, and a random rotation that is not learned, between "
            "`IRevNetDownsampling` and `Split` in a `GraphINN`; in place of the learned prior one "
            "block more",
            _freia,
            ("speed", "memory"),
        ),
        Row(
            "nflows Glow",
            "images",
            "nflows",
            "`ActNorm`, `OneByOneConvolution` (L U and a fixed permutation, begun at the "
            "identity) and `AffineCouplingTransform` (scale sigmoid(s + 2) + 0.001) behind "
            "`SqueezeTransform`, in a `MultiscaleCompositeTransform`",
            _nflows,
            ("speed", "memory", "digits"),
        ),
        Row(
            "normflows Glow",
            "images",
            "normflows",
            "`GlowBlock(use_lu=True)` (scale sigmoid(s + 2)), its own networks, whose last layers "
            "start at zero as ours do, `Squeeze` and `Merge` in a `MultiscaleFlow`; as learned "
            "prior an `AffineCouplingBlock`",
            _normflows,
            ("speed", "memory", "digits"),
        ),
    ]


def _freia(shape: ImageShape) -> Model:
    import FrEIA.framework as framework  # pyright: ignore[reportMissingImports]
    import FrEIA.modules as modules  # pyright: ignore[reportMissingImports]

    # Its rotations come from the random generators of numpy and scipy.
    np.random.seed(torch.randint(2**31, ()).item())
    nodes: list[Any] = [framework.InputNode(*shape.image)]
    outputs = []
    block = {"subnet_constructor": shape.network, "permute_soft": True}
    for level, (_, _, couplings) in enumerate(shape.scales(), start=1):
        nodes.append(framework.Node(nodes[-1], modules.IRevNetDownsampling, {}))
        for _ in range(couplings):
            nodes.append(framework.Node(nodes[-1], modules.AllInOneBlock, block))
        if level < shape.levels:
            nodes.append(framework.Node(nodes[-1], modules.Split, {}))
            outputs.append(framework.OutputNode(nodes[-1].out1))
    outputs.append(framework.OutputNode(nodes[-1]))
    inn = framework.GraphINN([*nodes, *outputs])

    def log_prob(x: Tensor) -> Tensor:  # the library has no base distribution
        parts, log_det = inn(x)
        flat = torch.cat([part.flatten(1) for part in parts], 1)
        return log_det - 0.5 * flat.square().sum(1) - 0.5 * flat.shape[1] * math.log(2 * math.pi)

    def sample(n: int) -> Tensor:
        return inn([torch.randn(n, *dims) for dims in inn.global_out_shapes], rev=True)[0]

    def decode(z: Any) -> Tensor:  # noqa: ANN401  a list of parts, coarsest last
        return inn(z, rev=True)[0]

    return Model(inn, log_prob, sample, lambda x: inn(x)[0], decode)


def _nflows(shape: ImageShape) -> Model:
    import nflows.transforms as transforms  # pyright: ignore[reportMissingImports]
    from nflows.distributions.normal import StandardNormal  # pyright: ignore[reportMissingImports]
    from nflows.flows.base import Flow  # pyright: ignore[reportMissingImports]

    def network(inputs: int, outputs: int) -> nn.Module:
        return _WithoutContext(shape.network(inputs, outputs))

    whole = transforms.MultiscaleCompositeTransform(shape.levels)
    for channels, sides, couplings in shape.scales():
        # Its first half is factored out, so its second half is the input.
        mask = torch.ones(channels)
        mask[channels - channels // 2 :] = -1
        layers: list[nn.Module] = [transforms.SqueezeTransform()]
        for number in range(couplings):
            if number < shape.steps:
                layers += [transforms.ActNorm(channels), transforms.OneByOneConvolution(channels)]
            layers.append(transforms.AffineCouplingTransform(mask, network))
        whole.add_transform(transforms.CompositeTransform(layers), (channels, *sides))
    flow = Flow(whole, StandardNormal([math.prod(shape.image)]))
    return Model(
        flow,
        flow.log_prob,
        flow.sample,
        lambda x: whole(x)[0],
        lambda z: whole.inverse(z)[0],
    )


class _WithoutContext(nn.Module):
    """Accepts the context that couplings pass, which is None."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.network(x)


def _normflows(shape: ImageShape) -> Model:
    import normflows as nf  # pyright: ignore[reportMissingImports]

    bases: list[nn.Module] = []
    flows: list[list[nn.Module]] = []
    for level, (channels, sides, couplings) in enumerate(shape.scales(), start=1):
        layers: list[nn.Module] = [nf.flows.Squeeze()]
        layers += [nf.flows.GlowBlock(channels, shape.hidden) for _ in range(shape.steps)][::-1]
        if couplings > shape.steps:
            half = channels // 2
            widths = (channels - half, shape.hidden, shape.hidden, 2 * half)
            network = nf.nets.ConvNet2d(widths, (3, 1, 3))
            layers.append(nf.flows.AffineCouplingBlock(network, scale_map="sigmoid"))
        own = channels if level == shape.levels else channels // 2
        flows.append(layers[::-1])  # from latent to data, the order of the library
        bases.append(nf.distributions.DiagGaussian((own, *sides), trainable=False))
    merges = [nf.flows.Merge() for _ in flows[1:]]
    flow: Any = nf.MultiscaleFlow(bases[::-1], flows[::-1], merges, class_cond=False)
    return Model(
        flow,
        lambda x: flow.log_prob(x, None),
        lambda n: flow.sample(n)[0],
        lambda x: flow.inverse_and_log_det(x)[0],
        lambda z: flow.forward_and_log_det(z)[0],
    )
