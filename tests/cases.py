"""The cases that every law is tested on: each exported bijection, recipe and augmentation.

Corners are included.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any

import torch
from torch import Tensor, nn

import kappaflow as kf
from kappaflow import images
from kappaflow.bijections.log_scales import SCALES
from kappaflow.flows.base import StandardNormal
from kappaflow.testing.contract import jittered

POINTS = 4
autoregressive = partial(kf.bijections.AutoregressiveSpline, hidden=(8,))


@dataclass(frozen=True)
class Case:
    """How to make a bijection or a flow, and what its points look like.

    Attributes:
        make: Constructor.
        event: Shape of one point.
        context: Width of the context, 0 for none.
        interval: Where the points lie; None for N(0, I).
    """

    make: Callable[[], nn.Module]
    event: tuple[int, ...]
    context: int = 0
    interval: tuple[float, float] | None = None

    def build(self, dtype: torch.dtype) -> tuple[nn.Module, Tensor, Tensor | None]:
        """Returns the module, off its start, with points and contexts, all of this type."""
        torch.manual_seed(7)
        module = jittered(self.make(), seed=1)
        module = module.to(dtype).eval()
        x = torch.randn(POINTS, *self.event, dtype=torch.float64)
        if self.interval is not None:
            low, high = self.interval
            x = low + (high - low) * (0.05 + 0.9 * torch.rand_like(x))
        context = torch.randn(POINTS, self.context, dtype=dtype) if self.context else None
        return module, x.to(dtype), context


def alternating(names: Iterable[str], *values: Any) -> list[tuple[str, Any]]:  # noqa: ANN401
    """Returns each name with one of the values, which take turns.

    For grids in which each value reaches the same lines for all names.
    """
    return list(zip(names, cycle(values), strict=False))


def bent_rows(rows: int, seed: int = 0) -> Tensor:
    """Returns rows of three columns, each a nonlinear function of the one before, with noise."""
    x = torch.randn(rows, 3, generator=torch.Generator().manual_seed(seed))
    x[:, 1] += x[:, 0] ** 2
    x[:, 2] += torch.sin(2 * x[:, 1])
    return x


def affine(
    partition: kf.Partition, hidden=(8,), context=0, residual=False, **settings
) -> kf.AffineCoupling:
    """Returns an affine coupling with a fully connected conditioner."""
    kept, changed = len(partition.kept), len(partition.changed)
    net = kf.nets.MLP(kept, 2 * changed, hidden, context_features=context, residual=residual)
    return kf.AffineCoupling(partition, net, context_features=context, **settings)


def affine_on(net: nn.Module, **settings) -> kf.AffineCoupling:
    """Returns an affine coupling of four features with this conditioner."""
    return kf.AffineCoupling(half(4), net, **settings)


def additive(
    partition: kf.Partition, hidden=(8,), context=0, **settings
) -> kf.bijections.AdditiveCoupling:
    """Returns an additive coupling with a fully connected conditioner."""
    kept, changed = len(partition.kept), len(partition.changed)
    net = kf.nets.MLP(kept, changed, hidden, context_features=context)
    return kf.bijections.AdditiveCoupling(partition, net, context_features=context, **settings)


def splines(
    partition: kf.Partition, hidden=(8,), context=0, **shape
) -> kf.bijections.SplineCoupling:
    """Returns a coupling by splines with a fully connected conditioner."""
    numbers = (3 * shape.get("bins", 8) - 1) * len(partition.changed)
    net = kf.nets.MLP(len(partition.kept), numbers, hidden, context_features=context)
    return kf.bijections.SplineCoupling(partition, net, context_features=context, **shape)


def bent_splines(size: float, **shape) -> kf.bijections.SplineCoupling:
    """Returns a coupling by splines of four features whose numbers are so large."""
    coupling = splines(half(4), **shape)
    with torch.no_grad():
        torch.nn.init.normal_(coupling.conditioner.layers[-1].bias, std=size)
    return coupling


def linear(partition: kf.Partition) -> kf.factor.LinearCoupling:
    """Returns a linear coupling with a negative number in its diagonal."""
    weight = torch.randn(len(partition.changed), len(partition.kept))
    return kf.factor.LinearCoupling(
        partition, weight, torch.linspace(-0.5, 2, len(partition.changed))
    )


def mixed(
    middle: kf.Bijection, *, before: bool = False, after: bool = False
) -> kf.rewrite.SandwichCoupling:
    """Returns a coupling with linear couplings of its partition at its ends."""
    ends = [linear(middle.partition) if is_present else None for is_present in (before, after)]
    return kf.rewrite.SandwichCoupling(middle, *ends)


def turns(partition: kf.Partition, depth: int) -> list[kf.Partition]:
    """Returns a partition and its swapped one, taking turns."""
    return [partition if i % 2 == 0 else partition.swapped() for i in range(depth)]


def stack(partitions: list[kf.Partition], hidden=(8,), context=0, **settings) -> kf.CouplingStack:
    """Returns a stack of couplings."""
    return kf.CouplingStack(partitions, hidden, context_features=context, **settings)


def started(features: int) -> kf.bijections.ActNorm:
    """Returns an ActNorm that has seen its first batch."""
    norm = kf.bijections.ActNorm(features)
    norm(3 + 2 * torch.randn(32, features))
    return norm


def turning(partition: kf.Partition, context: int = 0) -> kf.bijections.RotationCoupling:
    """Returns a coupling that turns angles, of which it reads cosines and sines."""
    kept, changed = len(partition.kept), len(partition.changed)
    network = kf.nets.MLP(2 * kept, 2 * changed, (8,), context_features=context)
    net = kf.nets.SinCosEmbedding(network, range(kept), half_period=5.0) if kept else network
    return kf.bijections.RotationCoupling(
        partition, net, half_period=5.0, context_features=context
    )


def gaussianized(features: int, **settings) -> kf.bijections.Gaussianize:
    """Returns a Gaussianize that was fitted to heavy-tailed rows."""
    curves = kf.bijections.Gaussianize(features, **settings)
    normal = torch.randn(2000, features, generator=torch.Generator().manual_seed(0))
    curves.fit(normal.sinh())
    return curves


def fitted_domain(bounds: list) -> kf.bijections.Domain:
    """Returns a Domain with curves that are far from the plain maps."""
    domain = kf.bijections.Domain(bounds)
    x = torch.rand(2000, len(bounds), generator=torch.Generator().manual_seed(0))
    domain.fit(4 * x.square())
    return domain


def fitted(features: int, **settings) -> kf.bijections.Standardize:
    """Returns a Standardize that has seen its rows."""
    units = kf.bijections.Standardize(features, **settings)
    scale = torch.linspace(0.5, 4, features)
    units.fit(2 + scale * torch.randn(64, features))
    return units


def fitted_flow(flow: kf.Flow) -> kf.Flow:
    """Returns the flow with its units and the units of its contexts fitted."""
    flow.standardization.bijections[0].fit(1 + 3 * torch.randn(64, *flow.event_shape))
    if flow.context_features:
        flow.bijection.embedding.fit(5 + 2 * torch.randn(64, flow.context_features))
    return flow


def embedded() -> kf.Chain:
    """Returns a chain whose parts see the context through a network."""
    coupling = affine(kf.Partition.half(3), context=2)
    parts = [coupling, kf.bijections.Permutation((2, 0, 1))]
    return kf.Chain(parts, embedding=kf.nets.MLP(5, 2, (6,)), context_features=5)


def image_coupling(partition, *, kind=kf.AffineCoupling):
    """Returns a coupling of images whose conditioner is a convolution and a ReLU."""
    return kind(
        partition,
        Convolved(len(partition.kept), kind.parameters_per_feature * len(partition.changed)),
    )


def read_by_convolutions():
    """Returns a coupling of two channels, its network a `ConvNet`."""
    return kf.AffineCoupling(half(2), kf.nets.ConvNet(1, 2, 3))


class Convolved(nn.Module):
    """A small convolutional conditioner."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.first = nn.Conv2d(inputs, 4, 3, padding=1)
        self.last = nn.Conv2d(4, outputs, 3, padding=1)

    def forward(self, x):
        """Returns images of the same size."""
        return self.last(torch.relu(self.first(x)))


def bent(planar: kf.bijections.Planar, product: float) -> kf.bijections.Planar:
    """Returns a planar map with so large a product w.u, and an offset."""
    with torch.no_grad():
        planar.u.copy_(product * planar.w)
        planar.b.fill_(0.3)
    return planar


def drawn_in(radial: kf.bijections.Radial, raw_ratio: float) -> kf.bijections.Radial:
    """Returns a radial map whose strength is made from this number."""
    with torch.no_grad():
        radial.raw_ratio.fill_(raw_ratio)
    return radial


def still(planar: kf.bijections.Planar) -> kf.bijections.Planar:
    """Returns a planar map that looks in no direction: w is zero."""
    with torch.no_grad():
        planar.w.zero_()
    return planar


half = kf.Partition.half

BIJECTIONS = {
    "ActNorm, fresh": Case(lambda: kf.bijections.ActNorm(3), (3,)),
    "ActNorm, started": Case(lambda: started(3), (3,)),
    "ActNorm, images": Case(lambda: kf.bijections.ActNorm(3), (3, 2, 1)),
    "AdditiveCoupling": Case(lambda: additive(half(4)), (4,)),
    "AdditiveCoupling, context": Case(lambda: additive(half(3), context=2), (3,), 2),
    "AffineCoupling": Case(lambda: affine(half(4)), (4,)),
    "AffineCoupling, odd width": Case(lambda: affine(half(5)), (5,)),
    "AffineCoupling, alternating": Case(lambda: affine(kf.Partition.alternating(5)), (5,)),
    "AffineCoupling, uneven": Case(lambda: affine(kf.Partition(6, (4,))), (6,)),
    "AffineCoupling, scattered": Case(lambda: affine(kf.Partition(6, (5, 0, 2))), (6,)),
    "AffineCoupling, residual": Case(lambda: affine(half(4), (8, 8), residual=True), (4,)),
    "AffineCoupling, no hidden layer": Case(lambda: affine(half(4), ()), (4,)),
    "AffineCoupling, wide scales": Case(lambda: affine(half(4), scale_bound=5.0), (4,)),
    "AffineCoupling, context": Case(lambda: affine(half(4), context=3), (4,), 3),
    "AffineCoupling, context only": Case(lambda: affine(kf.Partition(3, ()), context=2), (3,), 2),
    "AffineCoupling, one feature, context": Case(lambda: affine(half(1), context=2), (1,), 2),
    **{
        f"AffineCoupling, {scale}": Case(partial(affine, half(4), scale=scale), (4,))
        for scale in SCALES
        if scale != "tanh"
    },
    "AffineCoupling, SiLU": Case(
        lambda: affine_on(kf.nets.MLP(2, 4, (8,), activation="silu")), (4,)
    ),
    "AffineCoupling, residual blocks": Case(
        lambda: affine_on(kf.nets.ResidualMLP(2, 4, 5, activation="leaky_relu")), (4,)
    ),
    "AffineCoupling, twins": Case(
        lambda: affine_on(kf.nets.PairedMLP(2, 4, (6, 4), activation="elu")), (4,)
    ),
    "AffineCoupling, residual blocks, gated": Case(
        lambda: affine_on(
            kf.nets.ResidualMLP(2, 4, 5, context_features=3, gated=True), context_features=3
        ),
        (4,),
        3,
    ),
    "AdditiveCoupling, rows of images": Case(
        lambda: image_coupling(
            kf.SpatialPartition(2, "rows"), kind=kf.bijections.AdditiveCoupling
        ),
        (2, 3, 2),
    ),
    "AffineCoupling, channels of images": Case(lambda: image_coupling(half(3)), (3, 2, 3)),
    "AffineCoupling, checkerboard": Case(
        lambda: image_coupling(kf.SpatialPartition(1)), (1, 3, 4)
    ),
    "AffineCoupling, checkerboard, odd places": Case(
        lambda: image_coupling(kf.SpatialPartition(2, "checkerboard", odd=True)), (2, 2, 2)
    ),
    "Chain of nothing": Case(lambda: kf.Chain([]), (3,)),
    "Chain, nested": Case(
        lambda: kf.Chain([
            kf.Chain([affine(half(3)), started(3)]),
            kf.Chain([]),
            affine(half(3).swapped()),
        ]),
        (3,),
    ),
    "Chain, embedding": Case(embedded, (3,), 5),
    "CouplingStack": Case(lambda: stack(turns(half(4), 4)), (4,)),
    "CouplingStack, additive, context, residual": Case(
        lambda: stack(turns(half(5), 3), (8, 8), kind="additive", context=2, residual=True),
        (5,),
        2,
    ),
    "CouplingStack, permuted, uneven, invert": Case(
        lambda: stack(
            [kf.Partition(5, (0, 3, 4)), kf.Partition(5, (2,)), half(5)],
            permutations=[None, (4, 2, 0, 3, 1), (1, 0, 2, 3, 4)],
            memory="invert",
        ),
        (5,),
    ),
    **{
        f"CouplingStack, {scale}": Case(partial(stack, turns(half(4), 3), scale=scale), (4,))
        for scale in SCALES
        if scale != "tanh"
    },
    "CouplingStack, residual blocks": Case(
        lambda: stack(turns(half(5), 3), (4, 4, 4), 2, wiring="blocks"), (5,), 2
    ),
    "CouplingStack, twins": Case(
        lambda: stack(turns(half(5), 3), (4, 6), 2, wiring="paired", scale="exp"), (5,), 2
    ),
    "CouplingStack, two blocks, store": Case(
        lambda: stack(turns(kf.Partition.alternating(3), 34), (5,), scale_bound=0.2),
        (3,),
    ),
    "CouplingStack, context only, no hidden layer": Case(
        lambda: stack([kf.Partition(2, ())] * 2, (), context=3), (2,), 3
    ),
    "ElementwiseAffine": Case(
        lambda: kf.bijections.ElementwiseAffine(
            3, log_scale=[2.0, -1.0, 0.0], shift=[1.0, 0.0, -3.0]
        ),
        (3,),
    ),
    "ElementwiseAffine, images": Case(lambda: kf.bijections.ElementwiseAffine(2), (2, 2, 3)),
    "Flatten": Case(lambda: kf.bijections.Flatten((2, 1, 3)), (2, 1, 3)),
    "ImageChain": Case(
        lambda: kf.bijections.ImageChain([
            kf.bijections.ActNorm(2),
            kf.bijections.InvertibleConv1x1(2),
            read_by_convolutions(),
        ]),
        (2, 2, 3),
    ),
    "InvertibleConv1x1, lu": Case(lambda: kf.bijections.InvertibleConv1x1(3), (3, 2, 2)),
    "InvertibleConv1x1, plain": Case(
        lambda: kf.bijections.InvertibleConv1x1(2, form="plain"), (2, 1, 3)
    ),
    "CircleToLine": Case(
        lambda: kf.bijections.CircleToLine(3, [0, 2], half_period=5.0), (3,), interval=(-5.0, 5.0)
    ),
    "OnFeatures": Case(
        lambda: kf.bijections.OnFeatures(
            3, [2, 0], kf.real_nvp(2, depth=2, hidden=(8,), context_features=2).bijection
        ),
        (3,),
        2,
    ),
    "Domain": Case(
        lambda: kf.bijections.Domain([None, "positive", (0, 1), ",2", "-1,"]),
        (5,),
        interval=(0.0, 1.0),
    ),
    "Domain, fitted": Case(
        lambda: fitted_domain(["positive", (0, 4), ",4"]), (3,), interval=(0.1, 3.9)
    ),
    "Domain, circles stay circles": Case(
        lambda: kf.bijections.Domain(["circular:0,360", "positive"], circle=5.0),
        (2,),
        interval=(0.0, 360.0),
    ),
    "InvertibleConv1x1, qr": Case(
        lambda: kf.bijections.InvertibleConv1x1(3, form="qr"), (3, 2, 1)
    ),
    "InvertibleConv1x1, svd": Case(
        lambda: kf.bijections.InvertibleConv1x1(4, form="svd", condition_bound=3.0), (4, 1, 2)
    ),
    "InvertibleConv1x1, orthogonal": Case(
        lambda: kf.bijections.InvertibleConv1x1(3, form="orthogonal"), (3, 2, 1)
    ),
    "Inverse of a coupling": Case(lambda: kf.Inverse(affine(half(3), context=2)), (3,), 2),
    "LeakyReLU": Case(kf.bijections.LeakyReLU, (4,)),
    "LeakyReLU, one feature, steeper below zero": Case(
        lambda: kf.bijections.LeakyReLU(3.0), (1,), interval=(-1.0, 1.0)
    ),
    "LeakyReLU, smooth": Case(lambda: kf.bijections.LeakyReLU(0.1, smoothing=0.5), (4,)),
    "LeakyReLU, smooth images, steeper below zero": Case(
        lambda: kf.bijections.LeakyReLU(2.0, smoothing=1.0), (1, 2, 2)
    ),
    "Linear": Case(lambda: kf.bijections.Linear(4), (4,)),
    "Linear, channels": Case(lambda: kf.bijections.Linear(3), (3, 2, 2)),
    "Linear, of a matrix with a negative determinant": Case(
        lambda: kf.bijections.Linear.of(
            [[0.0, 2.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.5, -1.0]], [1.0, -9.0, 0.0]
        ),
        (3,),
    ),
    "LinearCoupling": Case(lambda: linear(half(4)), (4,)),
    "LinearCoupling, fresh": Case(lambda: kf.factor.LinearCoupling(half(5)), (5,)),
    "LinearCoupling, uneven, scattered": Case(lambda: linear(kf.Partition(6, (5, 0))), (6,)),
    "LinearCoupling, channels": Case(lambda: linear(half(3).swapped()), (3, 2, 2)),
    "Logit": Case(kf.bijections.Logit, (3,), interval=(0.0, 1.0)),
    "Logit, margin, image": Case(
        lambda: kf.bijections.Logit(0.0, 255.0, margin=0.05), (2, 2, 1), interval=(0.0, 255.0)
    ),
    "LULinear": Case(lambda: kf.bijections.LULinear(4), (4,)),
    "LULinear, permuted, channels": Case(lambda: kf.bijections.LULinear(5, 4), (5, 1, 2)),
    "SandwichCoupling": Case(lambda: mixed(affine(half(4)), before=True, after=True), (4,)),
    "SandwichCoupling, additive, before": Case(
        lambda: mixed(additive(half(5).swapped()), before=True), (5,)
    ),
    "SandwichCoupling, context, after": Case(
        lambda: mixed(affine(half(4), context=2), after=True), (4,), 2
    ),
    "MultiScale, one scale": Case(
        lambda: kf.bijections.MultiScale(
            (1, 2, 4), [kf.Chain([kf.bijections.Squeeze(), image_coupling(half(4))])]
        ),
        (1, 2, 4),
    ),
    "MultiScale, three scales, odd channels": Case(
        lambda: kf.bijections.MultiScale(
            (3, 2, 4),
            [
                image_coupling(half(3)),
                kf.Chain([
                    kf.bijections.Squeeze(),
                    image_coupling(half(4)),
                    kf.bijections.Linear(4),
                ]),
                kf.Chain([image_coupling(half(2).swapped()), kf.bijections.ActNorm(2)]),
            ],
        ),
        (3, 2, 4),
    ),
    "Permutation": Case(lambda: kf.bijections.Permutation((2, 0, 3, 1)), (4,)),
    "Permutation, channels": Case(lambda: kf.bijections.Permutation((1, 2, 0)), (3, 2, 1)),
    "Planar": Case(lambda: kf.bijections.Planar(4), (4,)),
    "Planar, one feature": Case(lambda: kf.bijections.Planar(1, seed=0), (1,)),
    "Planar, odd width, contracting": Case(lambda: bent(kf.bijections.Planar(5), -2.0), (5,)),
    "Planar, stretching": Case(lambda: bent(kf.bijections.Planar(3), 6.0), (3,)),
    "Planar, w near zero": Case(lambda: still(kf.bijections.Planar(3)), (3,)),
    "QRLinear": Case(lambda: kf.bijections.QRLinear(4), (4,)),
    "QRLinear, one feature": Case(lambda: kf.bijections.QRLinear(1), (1,)),
    "QRLinear, odd width, channels": Case(lambda: kf.bijections.QRLinear(3), (3, 2, 1)),
    "QRLinear, more reflections than features": Case(
        lambda: kf.bijections.QRLinear(2, reflections=6), (2,)
    ),
    "Radial": Case(lambda: kf.bijections.Radial(4), (4,)),
    "Radial, one feature": Case(lambda: kf.bijections.Radial(1, seed=0), (1,)),
    "Radial, odd width, contracting": Case(lambda: drawn_in(kf.bijections.Radial(5), -3.0), (5,)),
    "Radial, stretching": Case(lambda: drawn_in(kf.bijections.Radial(2), 8.0), (2,)),
    "RotationCoupling": Case(lambda: turning(half(4)), (4,), interval=(-5.0, 5.0)),
    "RotationCoupling, context only": Case(
        lambda: turning(kf.Partition(2, ()), context=2), (2,), 2, interval=(-5.0, 5.0)
    ),
    "SVDLinear": Case(lambda: kf.bijections.SVDLinear(4), (4,)),
    "SVDLinear, one feature": Case(lambda: kf.bijections.SVDLinear(1), (1,)),
    "SVDLinear, odd width, channels": Case(lambda: kf.bijections.SVDLinear(3), (3, 2, 1)),
    "SVDLinear, bounded ratios": Case(
        lambda: kf.bijections.SVDLinear(3, condition_bound=2.0, free_scale=True), (3,)
    ),
    "SVDLinear, few reflections": Case(lambda: kf.bijections.SVDLinear(5, reflections=2), (5,)),
    "SigmoidCoupling": Case(
        lambda: kf.bijections.SigmoidCoupling(
            half(4), kf.nets.MLP(2, 4, (8,), context_features=2), context_features=2
        ),
        (4,),
        2,
    ),
    "SigmoidCoupling, columns of images": Case(
        lambda: image_coupling(
            kf.SpatialPartition(1, "columns"), kind=kf.bijections.SigmoidCoupling
        ),
        (1, 2, 3),
    ),
    "AutoregressiveSpline": Case(lambda: autoregressive(4), (4,)),
    "AutoregressiveSpline, context, skips": Case(
        lambda: autoregressive(3, hidden=(5, 5, 4), context_features=2, residual=True), (3,), 2
    ),
    "AutoregressiveSpline, more features than units": Case(
        lambda: autoregressive(5, hidden=(2, 3), bins=2, activation="silu"), (5,)
    ),
    "AutoregressiveSpline, one feature": Case(lambda: autoregressive(1), (1,)),
    "AutoregressiveSpline, one feature, context": Case(
        lambda: autoregressive(1, context_features=2), (1,), 2
    ),
    "SplineCoupling": Case(lambda: splines(half(4)), (4,)),
    "SplineCoupling, two features, two bins": Case(lambda: splines(half(2), bins=2), (2,)),
    "SplineCoupling, narrow box": Case(lambda: splines(half(4), bound=0.7, min_slope=0.5), (4,)),
    "SplineCoupling, bent": Case(lambda: bent_splines(1.0), (4,)),
    "SplineCoupling, bent far": Case(lambda: bent_splines(30.0), (4,)),
    "SplineCoupling, context": Case(lambda: splines(half(4), context=3), (4,), 3),
    "SplineCoupling, context only": Case(lambda: splines(kf.Partition(3, ()), context=2), (3,), 2),
    "SplineCoupling, one feature, context": Case(lambda: splines(half(1), context=2), (1,), 2),
    "SplineCoupling, channels of images": Case(
        lambda: kf.bijections.SplineCoupling(half(3), Convolved(1, 16), bins=3), (3, 2, 3)
    ),
    "SplineCoupling, checkerboard": Case(
        lambda: kf.bijections.SplineCoupling(kf.SpatialPartition(1), Convolved(1, 8), bins=3),
        (1, 3, 4),
    ),
    "Squeeze": Case(kf.bijections.Squeeze, (2, 4, 2)),
    "Squeeze by three": Case(lambda: kf.bijections.Squeeze(3), (1, 3, 3)),
    "Logit, padding": Case(
        lambda: kf.bijections.Logit(0.0, 16.0, margin=0.05, padding=1),
        (3, 2),
        interval=(0.0, 16.0),
    ),
    "Standardize, padding": Case(lambda: fitted(3, padding=2), (3,)),
    "Standardize, one feature left": Case(lambda: fitted(3, left=[1]), (3,)),
    "Standardize, images": Case(lambda: kf.bijections.Standardize(2), (2, 3, 1)),
    "Standardize, fresh": Case(lambda: kf.bijections.Standardize(2), (2,)),
    "Standardize, fitted": Case(lambda: fitted(3), (3,)),
    "Gaussianize, fitted": Case(lambda: gaussianized(3), (3,)),
    "Gaussianize, padding": Case(lambda: gaussianized(3, padding=1), (3,)),
    "Whiten": Case(lambda: kf.factor.Whiten(4), (4,)),
    "Whiten, odd": Case(lambda: kf.factor.Whiten(5), (5,)),
}

FLOWS = {
    "autoregressive": Case(lambda: kf.autoregressive(4, hidden=(8,)), (4,)),
    "autoregressive, one feature, bounds": Case(
        lambda: kf.autoregressive(1, depth=2, bounds=["positive"]), (1,), interval=(0.0, 3.0)
    ),
    "autoregressive, context": Case(
        lambda: kf.autoregressive(2, depth=2, context_features=2, start={"components": 2}), (2,), 2
    ),
    "glow": Case(lambda: kf.glow((1, 4, 4), levels=2, steps=2, hidden=4), (1, 4, 4)),
    "glow, three channels, H != W, additive, context": Case(
        lambda: kf.glow(
            (3, 2, 4),
            levels=1,
            steps=2,
            hidden=4,
            couplings={"coupling": "additive"},
            context_features=2,
        ),
        (3, 2, 4),
        2,
    ),
    "glow, logit": Case(
        lambda: kf.glow(
            (1, 2, 2),
            levels=1,
            steps=1,
            hidden=4,
            pixels={"logit": 0.05, "values": 16},
            couplings={"mixing": "qr"},
        ),
        (1, 2, 2),
        interval=(0.0, 16.0),
    ),
    "invertible_network": Case(lambda: kf.invertible_network(4), (4,)),
    "invertible_network, odd, plain": Case(
        lambda: kf.invertible_network(3, depth=3, linear="plain", smoothing=0), (3,)
    ),
    "invertible_network, one feature, one layer": Case(
        lambda: kf.invertible_network(1, depth=1), (1,)
    ),
    "invertible_network, rotations": Case(
        lambda: kf.invertible_network(4, depth=2, condition_number=1.0), (4,)
    ),
    "jet": Case(
        lambda: kf.jet(
            (1, 4, 4),
            patch=2,
            depth=5,
            couplings={"spatial_every": 2},
            network={"width": 4, "blocks": 1, "heads": 2},
        ),
        (1, 4, 4),
    ),
    "real_nvp_image": Case(
        lambda: kf.real_nvp_image((1, 4, 4), levels=2, hidden=4, blocks=1), (1, 4, 4)
    ),
    "real_nvp_image, odd sides, one level, context, store": Case(
        lambda: kf.real_nvp_image(
            (2, 3, 3),
            levels=1,
            hidden=4,
            blocks=1,
            context_features=2,
            couplings={"memory": "store"},
        ),
        (2, 3, 3),
        2,
    ),
    "Flow of one permutation": Case(
        lambda: kf.Flow(StandardNormal(3), kf.bijections.Permutation((1, 2, 0))), (3,)
    ),
    "Flow, logit first": Case(
        lambda: kf.Flow(StandardNormal(2), kf.Chain([kf.bijections.Logit(), affine(half(2))])),
        (2,),
        interval=(0.0, 1.0),
    ),
    "Flow, embedding": Case(lambda: kf.Flow(StandardNormal(3), embedded()), (3,), 5),
    "invertible_network, bounds": Case(
        lambda: kf.invertible_network(2, bounds=["positive", None]), (2,), interval=(0.0, 1.0)
    ),
    "nice": Case(lambda: kf.nice(4, depth=3, hidden=(8,)), (4,)),
    "nice, one feature, context": Case(
        lambda: kf.nice(1, hidden=(8,), context_features=2), (1,), 2
    ),
    "nice, random, context": Case(
        lambda: kf.nice(3, depth=3, hidden=(8,), partition="random", context_features=1), (3,), 1
    ),
    "zuko_flow": Case(lambda: kf.zuko_flow(4, "maf", depth=2, hidden=(8,)), (4,)),
    "zuko_flow, splines": Case(lambda: kf.zuko_flow(3, "nsf", depth=2, hidden=(8,)), (3,)),
    "zuko_flow, context": Case(
        lambda: kf.zuko_flow(3, "realnvp", depth=2, hidden=(8,), context_features=2), (3,), 2
    ),
    "nice, bounds": Case(
        lambda: kf.nice(3, depth=2, hidden=(8,), bounds=["2,", ",5", None]),
        (3,),
        interval=(2.0, 5.0),
    ),
    "planar": Case(lambda: kf.planar(4), (4,)),
    "planar, bounds": Case(
        lambda: kf.planar(2, depth=2, bounds=["positive", None]), (2,), interval=(0.0, 3.0)
    ),
    "radial": Case(lambda: kf.radial(4), (4,)),
    "radial, bounds": Case(
        lambda: kf.radial(2, depth=2, bounds=[(0, 1), None]), (2,), interval=(0.0, 1.0)
    ),
    "real_nvp": Case(lambda: kf.real_nvp(4, depth=4, hidden=(8, 8)), (4,)),
    "real_nvp, fitted units": Case(
        lambda: fitted_flow(kf.real_nvp(3, depth=3, hidden=(8,), context_features=2)), (3,), 2
    ),
    "real_nvp, bounds": Case(
        lambda: kf.real_nvp(
            4, depth=3, hidden=(8,), bounds=["positive", None, (0, 1), ",2"], start="whiten"
        ),
        (4,),
        interval=(0.0, 1.0),
    ),
    "real_nvp, one feature": Case(lambda: kf.real_nvp(1), (1,)),
    "real_nvp, one feature, context": Case(
        lambda: kf.real_nvp(1, hidden=(8,), context_features=3), (1,), 3
    ),
    "real_nvp, alternating, odd": Case(
        lambda: kf.real_nvp(5, depth=3, hidden=(8,), partition="alternating"), (5,)
    ),
    "real_nvp, random, residual": Case(
        lambda: kf.real_nvp(
            5, depth=4, hidden=(8, 8), partition="random", network={"residual": True}
        ),
        (5,),
    ),
    "real_nvp, random halves, dropout": Case(
        lambda: kf.real_nvp(
            5, depth=4, hidden=(8,), partition="random-half", network={"dropout": 0.2}
        ),
        (5,),
    ),
    "real_nvp, mixed, one changed feature": Case(
        lambda: kf.real_nvp(
            4,
            depth=3,
            hidden=(8,),
            partition=kf.Partition(4, (0, 1, 2)),
            couplings={"mixing": "plain"},
        ),
        (4,),
    ),
    "real_nvp, mixed by rotations, context, invert": Case(
        lambda: kf.real_nvp(
            3,
            depth=3,
            hidden=(8,),
            couplings={"mixing": "orthogonal", "memory": "invert"},
            context_features=2,
        ),
        (3,),
        2,
    ),
    "real_nvp, mixed, bounded, alternating, store": Case(
        lambda: kf.real_nvp(
            4,
            depth=2,
            hidden=(8,),
            partition="alternating",
            couplings={"mixing": "svd", "condition_bound": 2.0, "memory": "store"},
        ),
        (4,),
    ),
    "real_nvp, mixed, whitened": Case(
        lambda: kf.real_nvp(4, depth=2, hidden=(8,), couplings={"mixing": "qr"}, start="whiten"),
        (4,),
    ),
    "real_nvp, mixed, one feature, context": Case(
        # The rounding of a log-scale grows with its bound.
        lambda: kf.real_nvp(
            1, hidden=(8,), couplings={"mixing": "lu", "scale_bound": 3.0}, context_features=2
        ),
        (1,),
        2,
    ),
    "spline, bounds, circles": Case(
        lambda: kf.spline(
            4, depth=4, hidden=(8,), bounds=["circular", "positive", (0, 1), "circular:0,1"]
        ),
        (4,),
        interval=(0.0, 1.0),
    ),
    "spline, circles, a start": Case(
        lambda: kf.spline(
            3, depth=2, hidden=(8,), bounds=["circular", None, None], start="gaussianize"
        ),
        (3,),
        interval=(-3.0, 3.0),
    ),
    "spline, a circle, context": Case(
        lambda: kf.spline(2, depth=2, hidden=(8,), bounds=["circular", None], context_features=2),
        (2,),
        2,
        interval=(-3.0, 3.0),
    ),
    "spline": Case(lambda: kf.spline(4, depth=2, hidden=(8,)), (4,)),
    "spline, fitted units, odd, context": Case(
        lambda: fitted_flow(
            kf.spline(3, depth=2, hidden=(8,), couplings={"bins": 4}, context_features=2)
        ),
        (3,),
        2,
    ),
    "spline, one feature": Case(lambda: kf.spline(1), (1,)),
    "spline, one feature, context": Case(
        lambda: kf.spline(1, hidden=(8,), context_features=2), (1,), 2
    ),
    "spline, random, residual, invert": Case(
        lambda: kf.spline(
            5,
            depth=2,
            hidden=(8, 8),
            partition="random",
            network={"residual": True},
            couplings={"memory": "invert"},
        ),
        (5,),
    ),
    "spline, random halves, whitened, dropout, store": Case(
        lambda: kf.spline(
            5,
            depth=2,
            hidden=(8,),
            partition="random-half",
            start="whiten",
            network={"dropout": 0.2},
            couplings={"memory": "store"},
        ),
        (5,),
    ),
    "spline, mixed": Case(
        lambda: kf.spline(4, depth=2, hidden=(8,), couplings={"mixing": "lu"}), (4,)
    ),
}

IMAGE = (2, 4, 4)  # shape of the points of augmentations of images
AUGMENTATIONS: dict[str, Case] = {
    "Dequantize": Case(lambda: images.Dequantize(16), IMAGE),
    "VariationalDequantize": Case(
        lambda: images.VariationalDequantize(IMAGE, 16, depth=3, hidden=4), IMAGE
    ),
    "VariationalDequantize, one coupling": Case(
        lambda: images.VariationalDequantize(IMAGE, 16, depth=1, hidden=4), IMAGE
    ),
    "DequantizeAndPad": Case(lambda: images.DequantizeAndPad(images.Dequantize(16), 1), IMAGE),
    "DequantizeAndPad, learned twice": Case(
        lambda: images.DequantizeAndPad(
            images.VariationalDequantize(IMAGE, 16, depth=2, hidden=4),
            kf.flows.LearnedPad(2, 3, kf.nets.ConvNet(2, 6, 4)),
        ),
        IMAGE,
    ),
    "DequantizeAndPad, zero": Case(
        lambda: images.DequantizeAndPad(images.Dequantize(16), kf.flows.ZeroPad(2)), IMAGE
    ),
    "Pad": Case(lambda: kf.flows.Pad(3), (2,)),
    "Pad, scale, images": Case(lambda: kf.flows.Pad(1, scale=0.25), IMAGE),
    "UniformPad": Case(lambda: kf.flows.UniformPad(2), (1,)),
    "UniformPad, scale, images": Case(lambda: kf.flows.UniformPad(3, scale=0.25), IMAGE),
    "ZeroPad": Case(lambda: kf.flows.ZeroPad(1), (3,)),
    "ZeroPad, images": Case(lambda: kf.flows.ZeroPad(2), IMAGE),
    "CopyPad, more than there are": Case(lambda: kf.flows.CopyPad(2, 5), (2,)),
    "CopyPad, fewer, images": Case(lambda: kf.flows.CopyPad(2, 1, scale=0.5), IMAGE),
    "CopyPad, no noise": Case(lambda: kf.flows.CopyPad(2, 3, scale=0.0), (2,)),
    "LearnedPad": Case(lambda: kf.flows.LearnedPad(3, 2), (3,)),
    "LearnedPad, images": Case(lambda: kf.flows.LearnedPad(2, 3, kf.nets.ConvNet(2, 6, 4)), IMAGE),
}


def seeded(seed: int = 0) -> torch.Generator:
    """Returns a generator."""
    return torch.Generator().manual_seed(seed)


def public_classes(kind: type) -> set[type]:
    """Returns the subclasses of a class among the public names, namespaces included."""
    spaces = [kf, *(getattr(kf, name) for name in kf.__all__)]
    names = [(space, name) for space in spaces for name in getattr(space, "__all__", ())]
    values = [getattr(space, name) for space, name in names]
    return {value for value in values if isinstance(value, type) and issubclass(value, kind)}
