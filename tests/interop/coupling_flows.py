"""Coupling flows of other libraries with all layers that `convert` supports, by name."""

import pytest
import torch
from torch import nn

from interop import foreign

FEATURES, CONTEXT = 5, 3


def perturbed(module, seed=0):
    """Returns a module with perturbed parameters and norms, in float64 and evaluation mode."""
    module = foreign.perturbed(module, seed, scale=0.15)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for norm in module.modules():
            if hasattr(norm, "running_var"):
                shape = norm.running_var.shape
                norm.running_var.copy_(0.5 + torch.rand(shape, generator=generator))
                norm.running_mean.copy_(torch.randn(shape, generator=generator))
            _in_full_precision(norm)
    return module


def _in_full_precision(module):
    """Recomputes in float64 what FrEIA computes in float32 when it builds a layer."""
    if getattr(module, "w_perm_inv", None) is not None:
        shape = module.w_perm.shape
        matrix = torch.linalg.qr(module.w_perm.reshape(shape[:2]).T)[0].T
        if not ((module.w_perm == 0) | (module.w_perm == 1)).all():
            module.w_perm.copy_(matrix.reshape(shape))
            module.w_perm_inv.copy_(matrix.T.reshape(shape))
    if hasattr(module, "logDetM"):
        matrix = module.M.flatten(1)
        module.M_inv.copy_(torch.linalg.inv(matrix).reshape(module.M.shape))
        module.logDetM.copy_(torch.linalg.slogdet(matrix)[1])


def zuko_flow(name, context=0, features=FEATURES, **settings):
    """Returns a flow of zuko."""
    zuko = pytest.importorskip("zuko")
    settings = {"transforms": 4, "hidden_features": (16, 16), **settings}
    return getattr(zuko.flows, name)(features, context, **settings)


def zuko_mixed():
    """Returns a flow of zuko with linear maps, an inverse, and a base with another mean."""
    zuko = pytest.importorskip("zuko")
    from zuko.lazy import UnconditionalDistribution, UnconditionalTransform
    from zuko.transforms import (
        AdditiveTransform,
        LULinearTransform,
        MonotonicAffineTransform,
        PermutationTransform,
        RotationTransform,
    )

    coupling, n = zuko.flows.coupling.GeneralCouplingTransform, FEATURES
    parts = [
        coupling(n, hidden_features=(8,)),
        UnconditionalTransform(PermutationTransform, torch.randperm(n), buffer=True),
        coupling(n, univariate=AdditiveTransform, shapes=((),), activation=nn.SiLU),
        UnconditionalTransform(RotationTransform, torch.randn(n, n)),
        UnconditionalTransform(LULinearTransform, torch.eye(n)),
        coupling(n, hidden_features=(8,), mask=[0, 0, 1, 1, 0]).inv,
        zuko.flows.gaussianization.ElementWiseTransform(n, univariate=MonotonicAffineTransform),
    ]
    base = UnconditionalDistribution(
        zuko.distributions.DiagNormal, torch.arange(n) / n, torch.ones(n) * 1.5, buffer=True
    )
    return zuko.flows.Flow(parts, base)


def nflows_net(inputs, outputs, context=None, blocks=2):
    """Returns a residual network."""
    from nflows.nn.nets import ResidualNet

    return ResidualNet(
        inputs, outputs, hidden_features=8, context_features=context, num_blocks=blocks
    )


def nflows_mlp(inputs, outputs):
    """Returns a fully connected network that accepts the context of couplings."""
    from nflows.nn.nets import MLP

    class Network(MLP):
        def forward(self, inputs, context=None):
            return super().forward(inputs)

    return Network([inputs], [outputs], [8, 8])


def nflows_flow(kind="residual", context=0):
    """Returns a flow of nflows."""
    pytest.importorskip("nflows")
    from nflows import transforms as T
    from nflows.distributions.normal import DiagonalNormal, StandardNormal
    from nflows.flows.base import Flow

    n, parts = FEATURES, []
    shift, scale = torch.linspace(-1, 1, n), torch.linspace(0.5, 2, n)
    if kind == "linear maps":
        parts.append(T.PointwiseAffineTransform(shift, scale))
    mask = torch.tensor([1, -1, 1, -1, 1])
    for i in range(4):
        net = nflows_mlp if kind == "mlp" else lambda a, b: nflows_net(a, b, context or None)
        layer = T.AdditiveCouplingTransform if kind == "additive" else T.AffineCouplingTransform
        parts.append(layer(mask * (-1) ** i, net))
        if kind == "norms":
            parts += [T.BatchNorm(n), T.ActNorm(n)]
            parts[-1].initialized.fill_(True)
        if kind in {"norms", "linear maps"}:
            parts.append([T.ReversePermutation(n), T.RandomPermutation(n)][i % 2])
        if kind == "linear maps":
            parts += [
                [T.LULinear(n), T.QRLinear(n, 4)],
                [T.SVDLinear(n, 4), T.HouseholderSequence(n, 4)],
                [T.NaiveLinear(n), T.InverseTransform(T.LULinear(n))],
                [T.QRLinear(n, 3), T.HouseholderSequence(n, 3)],
            ][i]
    base, embedding = StandardNormal([n]), None
    if kind == "norms":
        base = DiagonalNormal([n])
    if kind == "conditional":
        embedding = nn.Sequential(nn.Linear(CONTEXT, 6), nn.ReLU(), nn.Linear(6, context))
    return Flow(T.CompositeTransform(parts), base, embedding)


def normflows_flow(kind="exp"):
    """Returns a flow of normflows."""
    nf = pytest.importorskip("normflows")
    n, flows = FEATURES + 1, []
    for i in range(4):
        if kind == "masked":
            b = torch.tensor([1.0, 0, 1, 0, 0, 1]) if i % 2 else torch.tensor([0.0, 1, 0, 1, 1, 0])
            s = nf.nets.MLP([n, 8, 8, n]) if i < 3 else None
            flows.append(nf.flows.MaskedAffineFlow(b, nf.nets.MLP([n, 8, 8, n]), s))
            continue
        mode = ("channel", "channel_inv", "checkerboard", "checkerboard_inv")[i]
        net = nf.nets.MLP([3, 8, 8, 6], leaky=0.2 if kind == "exp" else 0.0)
        scale_map = kind if kind.startswith("sigmoid") else "exp"
        flows.append(nf.flows.AffineCouplingBlock(net, scale_map=scale_map, split_mode=mode))
        if kind == "exp":
            flows += [nf.flows.Permute(n, mode="swap"), nf.flows.ActNorm(n)]
            flows[-1].data_dep_init_done.fill_(1.0)
        if kind == "sigmoid":
            flows += [nf.flows.Permute(n), nf.flows.LULinearPermute(n)]
        if kind == "sigmoid_inv":
            flows += [nf.flows.InvertibleAffine(n, use_lu=i % 2 == 0), nf.flows.AffineConstFlow(n)]
    return nf.NormalizingFlow(nf.distributions.DiagGaussian(n), flows)


def freia_net(inputs, outputs):
    """Returns a network like those in the documentation of FrEIA."""
    return nn.Sequential(
        nn.Linear(inputs, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, outputs)
    )


def freia_flow(kind="AllInOneBlock", context=0, **settings):
    """Returns a sequence of FrEIA."""
    pytest.importorskip("FrEIA")
    from FrEIA import modules as M
    from FrEIA.framework import SequenceINN

    n = FEATURES
    inn = SequenceINN(n)
    condition = {"cond": 0, "cond_shape": (context,)} if context else {}
    for i in range(3):
        if kind == "linear maps":
            matrix = torch.eye(n) + 0.1 * torch.randn(n, n)
            inn.append(M.FixedLinearTransform, M=matrix, b=torch.randn(n))
            inn.append(M.PermuteRandom, seed=i)
            inn.append(M.ActNorm)
            inn[len(inn) - 1].init_on_next_batch = False
            inn.append(M.GLOWCouplingBlock, subnet_constructor=freia_net)
        else:
            inn.append(getattr(M, kind), subnet_constructor=freia_net, **condition, **settings)
    return inn


def freia_graph():
    """Returns a graph of FrEIA without branches."""
    pytest.importorskip("FrEIA")
    from FrEIA.framework import GraphINN, InputNode, Node, OutputNode
    from FrEIA.modules import GLOWCouplingBlock, PermuteRandom

    nodes = [InputNode(FEATURES, name="in")]
    for i in range(2):
        nodes.append(Node(nodes[-1], GLOWCouplingBlock, {"subnet_constructor": freia_net}))
        nodes.append(Node(nodes[-1], PermuteRandom, {"seed": i}))
    return GraphINN([*nodes, OutputNode(nodes[-1], name="out")], verbose=False)


FLOWS = {
    "zuko RealNVP": lambda: zuko_flow("RealNVP"),
    "zuko RealNVP, random masks, tanh": lambda: zuko_flow(
        "RealNVP", randmask=True, activation=nn.Tanh
    ),
    "zuko NICE, other slope": lambda: zuko_flow("NICE", hidden_features=(8,)),
    "zuko mixed": zuko_mixed,
    "nflows residual": nflows_flow,
    "nflows MLP": lambda: nflows_flow("mlp"),
    "nflows additive": lambda: nflows_flow("additive"),
    "nflows norms": lambda: nflows_flow("norms"),
    "nflows linear maps": lambda: nflows_flow("linear maps"),
    "normflows exp": normflows_flow,
    "normflows masked": lambda: normflows_flow("masked"),
    "normflows sigmoid": lambda: normflows_flow("sigmoid"),
    "normflows sigmoid_inv": lambda: normflows_flow("sigmoid_inv"),
    "FrEIA AllInOne": freia_flow,
    "FrEIA AllInOne, soft, reversed": lambda: freia_flow(
        permute_soft=True, reverse_permutation=True, global_affine_type="EXP"
    ),
    "FrEIA AllInOne, Householder": lambda: freia_flow(
        learned_householder_permutation=2, global_affine_type="SIGMOID", affine_clamping=1.2
    ),
    "FrEIA GLOW": lambda: freia_flow("GLOWCouplingBlock"),
    "FrEIA GLOW, sigmoid": lambda: freia_flow("GLOWCouplingBlock", clamp_activation="SIGMOID"),
    "FrEIA RNVP": lambda: freia_flow("RNVPCouplingBlock", clamp_activation="TANH"),
    "FrEIA NICE": lambda: freia_flow("NICECouplingBlock"),
    "FrEIA one-sided": lambda: freia_flow("AffineCouplingOneSided", split_len=2),
    "FrEIA linear maps": lambda: freia_flow("linear maps"),
    "FrEIA graph": freia_graph,
}
CONDITIONAL = {
    "zuko RealNVP": lambda: zuko_flow("RealNVP", CONTEXT),
    "zuko elementwise": lambda: zuko_flow("RealNVP", CONTEXT, features=1),
    "nflows": lambda: nflows_flow("conditional", 4),
    "FrEIA AllInOne": lambda: freia_flow(context=CONTEXT),
    "FrEIA RNVP": lambda: freia_flow("RNVPCouplingBlock", CONTEXT),
    "FrEIA conditional affine": lambda: freia_flow("ConditionalAffineTransform", CONTEXT),
}
