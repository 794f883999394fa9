"""Flows of other libraries, built as in their documentation, with random weights."""

import numpy as np
import pytest
import torch

FEATURES, CONTEXT = 4, 3


def perturbed(module, seed=0, scale=0.1):
    """Returns a module with perturbed parameters, in float64."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double()
    with torch.no_grad():
        for parameter in (p for p in module.parameters() if p.requires_grad):
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.add_(scale * noise)
    return module.eval()


def zuko_flow(name, context=0):
    """Returns a flow of zuko."""
    zuko = pytest.importorskip("zuko")
    kind = getattr(zuko.flows, name)
    return perturbed(kind(FEATURES, context, transforms=3, hidden_features=(16,)))


def nflows_flow(name, context=0):
    """Returns a flow of nflows: RealNVP, MAF, or with splines."""
    pytest.importorskip("nflows")
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.nn.nets import ResidualNet
    from nflows.transforms import (
        AffineCouplingTransform,
        CompositeTransform,
        LULinear,
        MaskedAffineAutoregressiveTransform,
        PiecewiseRationalQuadraticCouplingTransform,
        ReversePermutation,
    )

    width = context or None

    def net(inputs, outputs):
        return ResidualNet(inputs, outputs, hidden_features=16, context_features=width)

    parts = []
    for i in range(2):
        mask = torch.tensor([1, -1, 1, -1]) * (-1) ** i
        if name == "RealNVP":
            parts.append(AffineCouplingTransform(mask, net))
        elif name == "MAF":
            parts.append(MaskedAffineAutoregressiveTransform(FEATURES, 16, width))
        else:
            parts.append(
                PiecewiseRationalQuadraticCouplingTransform(
                    mask, net, tails="linear", tail_bound=5.0
                )
            )
        parts += [LULinear(FEATURES), ReversePermutation(FEATURES)]
    embedding = torch.nn.Linear(context, context) if context else None
    return perturbed(Flow(CompositeTransform(parts), StandardNormal([FEATURES]), embedding))


def normflows_flow(name):
    """Returns a flow of normflows on vectors: RealNVP, or with splines."""
    nf = pytest.importorskip("normflows")
    flows = []
    for _ in range(3):
        if name == "RealNVP":
            net = nf.nets.MLP([2, 16, 4], init_zeros=True)
            flows += [nf.flows.AffineCouplingBlock(net), nf.flows.Permute(FEATURES, mode="swap")]
        else:
            flows += [
                nf.flows.AutoregressiveRationalQuadraticSpline(FEATURES, 1, 16),
                nf.flows.LULinearPermute(FEATURES),
            ]
    base = nf.distributions.DiagGaussian(FEATURES)
    return perturbed(nf.NormalizingFlow(base, flows), scale=0.05)


def normflows_conditional():
    """Returns a conditional flow of normflows."""
    nf = pytest.importorskip("normflows")
    flows = [
        nf.flows.MaskedAffineAutoregressive(FEATURES, 16, context_features=CONTEXT)
        for _ in range(2)
    ]
    net = torch.nn.Linear(CONTEXT, 2 * FEATURES)
    base = nf.distributions.base.ConditionalDiagGaussian(FEATURES, net)
    return perturbed(nf.ConditionalNormalizingFlow(base, flows))


def normflows_glow(classes=0):
    """Returns a Glow of normflows with two scales, on images 2 x 4 x 4, with initialized norms."""
    nf = pytest.importorskip("normflows")
    bases, flows, merges = [], [], []
    for level in range(2):
        channels = 8 * 2 ** (1 - level) if level == 0 else 8
        blocks = [nf.flows.GlowBlock(channels, 8, split_mode="channel") for _ in range(2)]
        flows.append([*blocks, nf.flows.Squeeze()])
        if level:
            merges.append(nf.flows.Merge())
        shape = (16, 1, 1) if level == 0 else (4, 2, 2)
        bases.append(
            nf.distributions.ClassCondDiagGaussian(shape, classes)
            if classes
            else nf.distributions.DiagGaussian(shape)
        )
    flow = nf.MultiscaleFlow(bases, flows, merges, class_cond=bool(classes)).double()
    x = torch.randn(32, 2, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        flow.inverse_and_log_det(x)
    return perturbed(flow, scale=0.02)


def freia_flow(name, context=0):
    """Returns a network of FrEIA: a sequence of AllInOneBlocks, or a graph of Glow blocks."""
    pytest.importorskip("FrEIA")
    from FrEIA.framework import GraphINN, InputNode, Node, OutputNode, SequenceINN
    from FrEIA.modules import AllInOneBlock, GLOWCouplingBlock

    def net(inputs, outputs):
        return torch.nn.Sequential(
            torch.nn.Linear(inputs, 16), torch.nn.ReLU(), torch.nn.Linear(16, outputs)
        )

    if name == "AllInOne":
        condition = {"cond": 0, "cond_shape": (context,)} if context else {}
        inn = SequenceINN(FEATURES)
        np.random.seed(0)  # it permutes by numpy; some permutations never change a feature
        for _ in range(3):
            inn.append(AllInOneBlock, subnet_constructor=net, **condition)
        return perturbed(inn)
    nodes = [InputNode(FEATURES, name="in")]
    for _ in range(2):
        nodes.append(Node(nodes[-1], GLOWCouplingBlock, {"subnet_constructor": net}))
    return perturbed(GraphINN([*nodes, OutputNode(nodes[-1], name="out")], verbose=False))


def torchflows_flow():
    """Returns the RealNVP of torchflows."""
    pytest.importorskip("torchflows")
    from torchflows.bijections.finite.autoregressive.architectures import RealNVP
    from torchflows.flows import Flow

    torch.manual_seed(0)
    return perturbed(Flow(RealNVP((FEATURES,), n_layers=2)))


def torch_distribution():
    """Returns a distribution of torch with elementwise and linear transforms."""
    from torch.distributions import Normal, TransformedDistribution
    from torch.distributions.transforms import AffineTransform, ExpTransform

    base = Normal(torch.zeros(FEATURES).double(), torch.ones(FEATURES).double())
    scale = torch.linspace(0.5, 2, FEATURES).double()
    parts = [AffineTransform(0.3, scale, event_dim=1), ExpTransform()]
    return TransformedDistribution(torch.distributions.Independent(base, 1), parts)


def pyro_flow(conditional=False):
    """Returns spline couplings of Pyro, or conditional affine autoregressive ones."""
    pytest.importorskip("pyro")
    import pyro.distributions as dist
    import pyro.distributions.transforms as T

    torch.manual_seed(0)
    base = dist.Normal(torch.zeros(FEATURES).double(), torch.ones(FEATURES).double()).to_event(1)
    if not conditional:
        parts = [perturbed(T.spline_coupling(FEATURES, hidden_dims=[16])) for _ in range(2)]
        parts.insert(1, T.Permute(torch.tensor([1, 3, 0, 2])))
        return dist.TransformedDistribution(base, parts)
    part = T.conditional_affine_autoregressive(FEATURES, CONTEXT, hidden_dims=[16])
    return dist.ConditionalTransformedDistribution(base, [perturbed(part)])


VECTORS = {
    "zuko RealNVP": lambda: zuko_flow("RealNVP"),
    "zuko MAF": lambda: zuko_flow("MAF"),
    "zuko NSF": lambda: zuko_flow("NSF"),
    "nflows RealNVP": lambda: nflows_flow("RealNVP"),
    "nflows MAF": lambda: nflows_flow("MAF"),
    "nflows NSF": lambda: nflows_flow("NSF"),
    "normflows RealNVP": lambda: normflows_flow("RealNVP"),
    "normflows NSF": lambda: normflows_flow("NSF"),
    "FrEIA AllInOne": lambda: freia_flow("AllInOne"),
    "FrEIA Glow": lambda: freia_flow("Glow"),
    "torchflows RealNVP": torchflows_flow,
    "torch": torch_distribution,
    "Pyro spline coupling": pyro_flow,
}
