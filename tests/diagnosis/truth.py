"""Flows with a planted defect and healthy ones, for a truth table of the doctor.

A planted flow computes with a healthy flow, of kappaflow or of another library, and returns
something wrong in one place.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import kappaflow as kf
from diagnosis.faulty import moved
from interop import foreign

FEATURES = 4
ROWS = 256


def rows(flow, n=ROWS, seed=7):
    """Rows that the flow itself draws, so that it fits them."""
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        z = flow.base.sample(n, dtype=flow.dtype, generator=generator)
        return flow.bijection.inverse(z)[0]


class Planted(nn.Module):
    """A healthy flow behind encode, decode, log_prob and sample, for a defect to override."""

    def __init__(self, inner: Any, x: torch.Tensor) -> None:
        super().__init__()
        self.flow = inner
        self.log_scale = nn.Parameter(torch.full((x.shape[1],), 0.1, dtype=x.dtype))

    @property
    def inner(self):
        """The healthy flow; a wrapped one could not be copied."""
        return kf.wrap(self.flow, torch.zeros(1, len(self.log_scale), dtype=self.log_scale.dtype))

    def encode(self, x):
        z, log_det = self.inner.bijection(x)
        return z * self.log_scale.exp(), log_det + self.log_scale.sum()

    def decode(self, z):
        x, log_det = self.inner.bijection.inverse(z * (-self.log_scale).exp())
        return x, log_det - self.log_scale.sum()

    def log_prob(self, x):
        z, log_det = self.encode(x)
        return kf.StandardNormal(z.shape[1]).log_prob(z) + log_det

    def sample(self, n):
        return self.decode(torch.randn(n, len(self.log_scale), dtype=self.log_scale.dtype))[0]


class NoLogDet(Planted):
    """Its log_det is zero."""

    def encode(self, x):
        return super().encode(x)[0], torch.zeros(len(x), dtype=x.dtype)


class Flipped(Planted):
    """Its log_dets have the wrong sign."""

    def encode(self, x):
        z, log_det = super().encode(x)
        return z, -log_det

    def decode(self, z):
        x, log_det = super().decode(z)
        return x, -log_det


class Averaged(Planted):
    """Its log_det is a mean over features."""

    def encode(self, x):
        z, log_det = super().encode(x)
        return z, log_det / x.shape[1]


class WrongInverseLogDet(Planted):
    """The log_det of decode alone is wrong."""

    def decode(self, z):
        x, log_det = super().decode(z)
        return x, log_det + 0.2


class NotInverse(Planted):
    """Decode is not the inverse."""

    def decode(self, z):
        x, log_det = super().decode(z)
        return x + 0.02 * torch.sin(3 * x), log_det


class Inexact(Planted):
    """By 0.001, which rounding in float64 does not explain."""

    def decode(self, z):
        x, log_det = super().decode(z)
        return x + 5e-4 * torch.sin(3 * x), log_det


class LostRow(Planted):
    """nan at a row beyond those where everything is measured."""

    def encode(self, x):
        z, log_det = super().encode(x)
        return z, torch.where((x == self.far).all(1), torch.nan, log_det)


class NoJacobian(Planted):
    """log_prob lacks the log_det."""

    def log_prob(self, x):
        return kf.StandardNormal(x.shape[1]).log_prob(self.encode(x)[0])


class NoConstant(Planted):
    """log_prob lacks the constant of the base."""

    def log_prob(self, x):
        z, log_det = self.encode(x)
        return -0.5 * z.square().sum(1) + log_det


class Cold(Planted):
    """Samples at a temperature of 0.9."""

    def sample(self, n):
        z = 0.9 * torch.randn(n, len(self.log_scale), dtype=self.log_scale.dtype)
        return self.decode(z)[0]


class Skipping(Planted):
    """Samples without the last layer."""

    def sample(self, n):
        z = torch.randn(n, len(self.log_scale), dtype=self.log_scale.dtype)
        return self.inner.bijection.inverse(z + 1)[0]


class WrongSampleLogProb(Planted):
    """The log_prob returned with samples adds the log_det."""

    def sample(self, n):
        z = torch.randn(n, len(self.log_scale), dtype=self.log_scale.dtype)
        x, log_det = self.decode(z)
        return x, kf.StandardNormal(z.shape[1]).log_prob(z) + log_det


class Unseeded(Planted):
    """Samples from a generator of its own."""

    def sample(self, n):
        generator = torch.Generator()
        generator.seed()
        z = torch.randn(n, len(self.log_scale), dtype=self.log_scale.dtype, generator=generator)
        return self.decode(z)[0]


class MixedRows(Planted):
    """Subtracts a mean over the batch."""

    def encode(self, x):
        z, log_det = super().encode(x)
        return z - 0.1 * z.mean(0), log_det

    def decode(self, z):
        return super().decode(z + 0.1 * z.mean(0) / 0.9)


class SmallBatches(Planted):
    """Right in large batches alone."""

    def encode(self, x):
        z, log_det = super().encode(x)
        return z, log_det + (0.5 if len(x) < 5 else 0.0)


class Overwriting(Planted):
    """Writes the result into its argument."""

    def encode(self, x):
        z, log_det = super().encode(x)
        x.copy_(z)
        return x, log_det


class Caching(Planted):
    """Keeps its scale of the first call."""

    cached = None

    def encode(self, x):
        if self.cached is None:
            self.cached = self.log_scale.detach().clone()
        z, log_det = self.inner.bijection(x)
        return z * self.cached.exp(), log_det + self.cached.sum()


class Counting(Planted):
    """A running mean changes in each call."""

    def __init__(self, inner, x):
        super().__init__(inner, x)
        self.register_buffer("mean", torch.zeros(x.shape[1], dtype=x.dtype))

    def encode(self, x):
        self.mean.mul_(0.9).add_(0.1 * x.detach().mean(0))
        return super().encode(x)


class Noisy(Planted):
    """A random log_det."""

    def encode(self, x):
        z, log_det = super().encode(x)
        return z, log_det + 0.1 * torch.randn_like(log_det)


class Detached(Planted):
    """A log_det without a gradient."""

    def encode(self, x):
        z, log_det = super().encode(x)
        return z, log_det.detach()


class NoGradient(Planted):
    """torch.where hides a square root of zero, but not its derivative."""

    def encode(self, x):
        z, log_det = super().encode(x)
        root = torch.where(self.log_scale > 1, (self.log_scale - 0.1).sqrt(), 0.0)
        return z, log_det + root.sum()


class Exploding(Planted):
    """Its log_prob leaves the finite numbers with the first step."""

    def encode(self, x):
        z, log_det = super().encode(x)
        away = (self.log_scale - 0.1).abs().max()
        return z, log_det + torch.where(away > 5e-4, torch.inf, 0.0)


class InTraining(Planted):
    """Another scale in training mode, with the same log_det."""

    def encode(self, x):
        z, log_det = super().encode(x)
        return (z * 2 if self.training else z), log_det


class Folded(Planted):
    """Both signs of a column have one latent."""

    def encode(self, x):
        z, log_det = super().encode(x)
        return torch.cat((z[:, :1].abs(), z[:, 1:]), 1), log_det


class Stretched(Planted):
    """A condition number beyond float32."""

    def encode(self, x):
        z, log_det = super().encode(x)
        return torch.cat((z[:, :1] * 1e9, z[:, 1:]), 1), log_det + math.log(1e9)

    def decode(self, z):
        x, log_det = super().decode(torch.cat((z[:, :1] / 1e9, z[:, 1:]), 1))
        return x, log_det - math.log(1e9)


class Frozen(Planted):
    """A parameter that does not train."""

    def __init__(self, inner, x):
        super().__init__(inner, x)
        self.log_scale.requires_grad_(requires_grad=False)


class HalfLogDet(Planted):
    """A log_det in bfloat16."""

    def encode(self, x):
        z, log_det = super().encode(x)
        return z, log_det.bfloat16()


class Narrowing(Planted):
    """Values in float16."""

    def encode(self, x):
        z, log_det = super().encode(x)
        return z.half(), log_det


@dataclass(frozen=True)
class Case:
    """A flow, the rows it is examined on, and the code that has to be found."""

    name: str
    flow: Any
    x: torch.Tensor
    code: str


KINDS = {
    NoLogDet: "KF203",
    Flipped: "KF203",
    Averaged: "KF203",
    WrongInverseLogDet: "KF203",
    NotInverse: "KF201",
    Inexact: "KF201",
    LostRow: "KF101",
    NoJacobian: "KF205",
    NoConstant: "KF205",
    Cold: "KF208",
    Skipping: "KF208",
    WrongSampleLogProb: "KF206",
    Unseeded: "KF704",
    MixedRows: "KF204",
    SmallBatches: "KF204",
    Overwriting: "KF214",
    Caching: "KF211",
    Counting: "KF402",
    Noisy: "KF104",
    Detached: "KF209",
    NoGradient: "KF213",
    Exploding: "KF213",
    InTraining: "KF217",
    Folded: "KF201",
    Stretched: "KF301",
    Frozen: "KF404",
    HalfLogDet: "KF701",
    Narrowing: "KF702",
}
ONLY_FLOAT64 = {Inexact}
ONLY_FLOAT32 = {Stretched, Narrowing}
SOURCES = (
    "kappaflow", "zuko MAF", "nflows RealNVP", "normflows RealNVP", "FrEIA AllInOne",
)  # fmt: skip


def healthy_module(name, dtype=torch.float32):
    """Returns a healthy flow with parameters, by name, and rows that it fits."""
    torch.manual_seed(0)
    flow = moved(0) if name == "kappaflow" else foreign.VECTORS[name]()
    flow = flow.to(dtype).eval()
    x = torch.zeros(2, FEATURES, dtype=dtype)
    return flow, rows(kf.wrap(flow, x))


def planted(kind, name):
    """Returns the case of a kind of defect in a flow, by name."""
    dtype = torch.float64 if kind in ONLY_FLOAT64 else torch.float32
    inner, x = healthy_module(name, dtype)
    flow = kind(inner, x)
    if kind is LostRow:
        flow.far = x[200].clone()
    x = x if kind is LostRow else x[:128]
    if kind is Caching:  # used before, as a flow that trained
        flow.encode(x)
    return Case(f"{kind.__name__} in {name}", flow, x, KINDS[kind])


def doubled(part, *names):
    """Gives a layer a class whose methods return twice the log_det."""
    kind = type(part)

    def method(name):
        def call(self, *args, **named):
            value, log_det = getattr(kind, name)(self, *args, **named)
            return value, 2 * log_det

        return call

    part.__class__ = type(f"Wrong{kind.__name__}", (kind,), {one: method(one) for one in names})


def in_a_layer(library):
    """Returns a flow of a library whose layer WrongX has twice its log_det."""
    torch.manual_seed(0)
    if library == "nflows":
        flow = foreign.nflows_flow("RealNVP").float()
        doubled(flow._transform._transforms[3], "forward", "inverse")
    elif library == "normflows":
        flow = foreign.normflows_flow("RealNVP").float()
        doubled(flow.flows[2], "forward", "inverse")
    elif library == "FrEIA":
        flow = foreign.freia_flow("AllInOne").float()
        doubled(flow.module_list[1], "forward")
    else:
        inner = moved(0)
        units, stack = inner.bijection.bijections
        couplings = [*stack.to_chain()]
        doubled(couplings[2], "forward", "inverse")
        flow = kf.Flow(inner.base, kf.Chain([units, *couplings]))
    return flow


LIBRARIES = ("kappaflow", "nflows", "normflows", "FrEIA")
