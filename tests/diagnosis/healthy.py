"""Healthy flows of many kinds and libraries: the doctor may report notes on them, no more."""

import pytest
import torch
from torch import nn
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    Normal,
    StudentT,
    TransformedDistribution,
    Uniform,
)
from torch.distributions.transforms import AffineTransform, SigmoidTransform

import kappaflow as kf
from diagnosis import truth
from diagnosis.faulty import moved
from interop import foreign
from kappaflow.flows.recipe import from_options

ROWS = 300
HELD_OUT = slice(1000, 1190)  # too few to compare the likelihood with that of simple densities


def drawn(flow, shape=(truth.FEATURES,), context=None, n=ROWS):
    """Returns a flow, rows that it draws itself, and their context."""
    dtype = torch.float32
    if isinstance(flow, nn.Module):
        flow = flow.float().eval()
    else:
        dtype = flow.base_dist.sample().dtype
    if context is not None:
        context = torch.randn(n, context)
    wrapped = kf.wrap(flow, torch.zeros(2, *shape, dtype=dtype), context)
    with torch.no_grad():
        z = wrapped.base.sample(n, context=context, dtype=dtype)
        return flow, wrapped.bijection.inverse(z, context)[0], context


def noisy(flow, seed=0, scale=0.1):
    """Returns a flow with noise on its parameters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in flow.parameters():
            if parameter.requires_grad:
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return flow


def table(seed, n=1500):
    """Two moons with a third column that depends on them."""
    generator = torch.Generator().manual_seed(seed)
    angle = 3.14159 * torch.rand(n, generator=generator)
    side = torch.randint(2, (n,), generator=generator) * 2.0 - 1
    moons = torch.stack((angle.cos() * side + 0.5 * side, angle.sin() * side, angle.cos()), 1)
    return moons + 0.2 * torch.randn(n, 3, generator=generator)


def fitted(recipe, seed, scale=None, **options):
    """Returns a flow that was trained for a few epochs, and held-out rows."""
    rows = table(seed)
    rows = rows if scale is None else rows * torch.tensor(scale) + torch.tensor(scale)
    torch.manual_seed(seed)
    flow = from_options(recipe, 3, hidden=(32,), **options)
    kf.fit(flow, rows[:1000], max_epochs=20, learning_rate=5e-3, batch_size=100, seed=seed)
    return flow, rows[HELD_OUT], None


def fitted_elsewhere(make, seed):
    """The same for a flow of another library, by plain gradient steps."""
    rows = table(seed)
    rows = (rows - rows[:1000].mean(0)) / rows[:1000].std(0)
    torch.manual_seed(seed)
    flow = make()
    optimizer = torch.optim.Adam(flow.parameters(), lr=5e-3)
    for _ in range(200):
        batch = rows[torch.randint(1000, (200,))]
        density = flow() if not hasattr(flow, "log_prob") else flow
        loss = -density.log_prob(batch).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return flow.eval(), rows[HELD_OUT], None


def nflows_of_three():
    """A spline flow of nflows on three features."""
    pytest.importorskip("nflows")
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.transforms import (
        CompositeTransform,
        MaskedAffineAutoregressiveTransform,
        ReversePermutation,
    )

    parts = []
    for _ in range(3):
        parts += [MaskedAffineAutoregressiveTransform(3, 16), ReversePermutation(3)]
    return Flow(CompositeTransform(parts), StandardNormal([3]))


def zuko_of_three(name):
    """A flow of zuko on three features."""
    return getattr(pytest.importorskip("zuko").flows, name)(3, transforms=3, hidden_features=(16,))


def distribution(base, *transforms):
    """A distribution of torch on three features, and its samples."""
    flow = TransformedDistribution(Independent(base, 1), list(transforms))
    return flow, flow.sample((ROWS,)), None


def mixture():
    """A base with two modes, whose coordinates depend on each other."""
    modes = Independent(Normal(torch.tensor([[-2.0, 0.0, 1.0], [2.0, 1.0, 0.0]]), 1.0), 1)
    both = MixtureSameFamily(Categorical(torch.ones(2)), modes)
    flow = TransformedDistribution(both, [AffineTransform(1.0, 2.0)])
    return flow, flow.sample((ROWS,)), None


def images(recipe, side=8, **options):
    """A flow on images with noise on its parameters, and images that it draws."""
    shape = (3, side, side)
    return drawn(noisy(from_options(recipe, shape, **options), scale=0.02), shape, n=32)


def float64(flow):
    """A flow in float64 with its rows."""
    flow, x, context = drawn(flow)
    return flow.double(), x.double(), context


TAME = {"scale_bound": 2.0, "min_bin": 0.4, "min_slope": 0.2}
RECIPES = {
    "real_nvp": lambda: kf.real_nvp(4, depth=4, hidden=(16,)),
    "nice": lambda: kf.nice(4, depth=4, hidden=(16,)),
    "spline": lambda: kf.spline(4, depth=3, hidden=(16,)),
    "random partitions": lambda: kf.real_nvp(4, depth=4, hidden=(16,), partition="random"),
    "with mixing": lambda: kf.real_nvp(4, depth=4, hidden=(16,), couplings={"mixing": "lu"}),
    "inverted memory": lambda: kf.real_nvp(
        4, depth=4, hidden=(16,), couplings={"memory": "invert"}
    ),
    "autoregressive": lambda: kf.autoregressive(4, hidden=(16,), couplings=TAME),
    "planar": lambda: kf.planar(4),
    "radial": lambda: kf.radial(4),
    "invertible_network": lambda: kf.invertible_network(4),
}
HEALTHY = {
    **{
        f"{name}, untrained": lambda make=make: (make(), torch.randn(ROWS, 4), None)
        for name, make in RECIPES.items()
        if name != "invertible_network"  # starts at random
    },
    **{f"{name}, moved": lambda make=make: drawn(noisy(make())) for name, make in RECIPES.items()},
    **{
        f"{name}, moved, seed {i}": lambda make=make, i=i: drawn(noisy(make(), i))
        for name, make in RECIPES.items()
        for i in range(1, 10)
    },
    **{f"couplings, seed {i}": lambda i=i: drawn(moved(i)) for i in range(10)},
    **{
        f"conditional couplings, seed {i}": lambda i=i: drawn(moved(i, 2), context=2)
        for i in range(3)
    },
    **{f"real_nvp, trained, seed {i}": lambda i=i: fitted(kf.real_nvp, i) for i in range(3)},
    **{f"spline, trained, seed {i}": lambda i=i: fitted(kf.spline, i) for i in range(3)},
    "columns of other scales": lambda: fitted(kf.real_nvp, 0, scale=[1e-6, 1.0, 1e6]),
    "one feature": lambda: drawn(noisy(kf.spline(1, depth=2, hidden=(8,))), (1,)),
    "forty features": lambda: drawn(noisy(kf.real_nvp(40, depth=4, hidden=(32,))), (40,)),
    "float64": lambda: float64(moved(0)),
    "glow": lambda: images(kf.glow, steps=2, hidden=16),
    "glow of 16 pixels": lambda: images(kf.glow, 16, steps=1, hidden=16),
    "real_nvp_image": lambda: images(kf.real_nvp_image),
    **{
        f"{name}, drawn": lambda make=make: drawn(make())
        for name, make in foreign.VECTORS.items()
        # KF206 is right for torchflows, and KF301 for this MAF with random weights.
        if name not in {"torchflows RealNVP", "torch", "nflows MAF"}
    },
    **{
        f"{name}, seed {i}": lambda make=make, i=i: drawn(noisy(make().float(), i, 0.05))
        for name, make in foreign.VECTORS.items()
        if name in {"zuko NSF", "nflows RealNVP", "FrEIA AllInOne"}
        for i in range(1, 4)
    },
    **{
        f"zuko {name}, drawn": lambda name=name: drawn(foreign.zuko_flow(name))
        for name in (
            "NICE",
            "NCSF",
            "BPF",
            "NAF",
        )  # with random weights, GF and SOSPF lose samples
    },
    "zuko MAF, conditional": lambda: drawn(foreign.zuko_flow("MAF", 3), context=3),
    "nflows MAF, conditional": lambda: drawn(foreign.nflows_flow("MAF", 3), context=3),
    "FrEIA, conditional": lambda: drawn(foreign.freia_flow("AllInOne", 3), context=3),
    "normflows, conditional": lambda: drawn(foreign.normflows_conditional(), context=3),
    "normflows Glow": lambda: drawn(foreign.normflows_glow(), (2, 4, 4), n=32),
    "nflows, trained": lambda: fitted_elsewhere(nflows_of_three, 0),
    "zuko MAF, trained": lambda: fitted_elsewhere(lambda: zuko_of_three("MAF"), 0),
    "zuko NSF, trained": lambda: fitted_elsewhere(lambda: zuko_of_three("NSF"), 1),
    "plain, hand-written": lambda: drawn(truth.MAKERS["plain"]()),
    "Pyro couplings": lambda: drawn(truth.in_dtype(truth.pyro_flow(), torch.float32)),
    "torch, sigmoid": lambda: drawn(truth.torch_distribution()),
    "uniform base": lambda: distribution(Uniform(torch.zeros(3), 1.0), AffineTransform(1.0, 2.0)),
    "inverted transform": lambda: distribution(
        Uniform(torch.zeros(3), 1.0), SigmoidTransform().inv
    ),
    "heavy tails": lambda: distribution(
        StudentT(torch.full((3,), 5.0)), AffineTransform(1.0, 2.0)
    ),
    "mixture": mixture,
}


def healthy(name):
    """Returns a flow, rows, and their context or None, by name."""
    torch.manual_seed(0)
    return HEALTHY[name]()
