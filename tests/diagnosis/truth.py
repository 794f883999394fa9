"""Flows with a planted defect and healthy ones, for a truth table of the doctor.

A planted flow computes with a healthy flow, of kappaflow or of another library, and returns
something wrong in one place.
"""

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributions import Normal, TransformedDistribution
from torch.distributions.transforms import AffineTransform, SigmoidTransform

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


KINDS: dict[type, str] = {}  # of defects, with the code that has to be found


class Planted(nn.Module):
    """A healthy flow behind encode, decode, log_prob and sample, for a defect to override."""

    def __init_subclass__(cls, code=None):
        if code:
            KINDS[cls] = code

    def __init__(self, inner: Any, x: torch.Tensor) -> None:
        super().__init__()
        self.flow = inner
        parts = getattr(inner, "transforms", [])
        self.parts = nn.ModuleList(part for part in parts if isinstance(part, nn.Module))
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

    def draw(self, n, generator=None):
        like = self.log_scale
        return torch.randn(n, len(like), dtype=like.dtype, generator=generator)

    def sample(self, n):
        return self.decode(self.draw(n))[0]


class NoLogDet(Planted, code="KF203"):
    """Its log_det is zero."""

    def encode(self, x):
        return super().encode(x)[0], torch.zeros(len(x), dtype=x.dtype)


class Flipped(Planted, code="KF203"):
    """Its log_dets have the wrong sign."""

    def encode(self, x):
        z, log_det = super().encode(x)
        return z, -log_det

    def decode(self, z):
        x, log_det = super().decode(z)
        return x, -log_det


class Averaged(Planted, code="KF203"):
    """Its log_det is a mean over features."""

    def encode(self, x):
        z, log_det = super().encode(x)
        return z, log_det / x.shape[1]


class WrongInverseLogDet(Planted, code="KF203"):
    """The log_det of decode alone is wrong."""

    def decode(self, z):
        x, log_det = super().decode(z)
        return x, log_det + 0.2


class NotInverse(Planted, code="KF201"):
    """Decode is not the inverse."""

    def decode(self, z):
        x, log_det = super().decode(z)
        return x + 0.02 * torch.sin(3 * x), log_det


class Inexact(Planted, code="KF201"):
    """By 0.001, which rounding in float64 does not explain."""

    def decode(self, z):
        x, log_det = super().decode(z)
        return x + 5e-4 * torch.sin(3 * x), log_det


class LostRow(Planted, code="KF101"):
    """nan at a row beyond those where everything is measured."""

    def encode(self, x):
        z, log_det = super().encode(x)
        return z, torch.where((x == self.far).all(1), torch.nan, log_det)


class NoJacobian(Planted, code="KF205"):
    """log_prob lacks the log_det."""

    def log_prob(self, x):
        return kf.StandardNormal(x.shape[1]).log_prob(self.encode(x)[0])


class NoConstant(Planted, code="KF205"):
    """log_prob lacks the constant of the base."""

    def log_prob(self, x):
        z, log_det = self.encode(x)
        return -0.5 * z.square().sum(1) + log_det


class Cold(Planted, code="KF208"):
    """Samples at a temperature of 0.9."""

    def sample(self, n):
        return self.decode(0.9 * self.draw(n))[0]


class Skipping(Planted, code="KF208"):
    """Samples without the last layer."""

    def sample(self, n):
        return self.inner.bijection.inverse(self.draw(n) + 1)[0]


class WrongSampleLogProb(Planted, code="KF206"):
    """The log_prob returned with samples adds the log_det."""

    def sample(self, n):
        z = self.draw(n)
        x, log_det = self.decode(z)
        return x, kf.StandardNormal(z.shape[1]).log_prob(z) + log_det


class Unseeded(Planted, code="KF704"):
    """Samples with its own random generator."""

    def sample(self, n):
        generator = torch.Generator()
        generator.seed()
        return self.decode(self.draw(n, generator))[0]


class MixedRows(Planted, code="KF204"):
    """Subtracts a mean over the batch."""

    def encode(self, x):
        z, log_det = super().encode(x)
        return z - 0.1 * z.mean(0), log_det

    def decode(self, z):
        return super().decode(z + 0.1 * z.mean(0) / 0.9)


class SmallBatches(Planted, code="KF204"):
    """Right in large batches alone."""

    def encode(self, x):
        z, log_det = super().encode(x)
        return z, log_det + (0.5 if len(x) < 5 else 0.0)


class Overwriting(Planted, code="KF214"):
    """Writes the result into its argument."""

    def encode(self, x):
        z, log_det = super().encode(x)
        x.copy_(z)
        return x, log_det


class Caching(Planted, code="KF211"):
    """Keeps its scale of the first call."""

    cached = None

    def encode(self, x):
        if self.cached is None:
            self.cached = self.log_scale.detach().clone()
        z, log_det = self.inner.bijection(x)
        return z * self.cached.exp(), log_det + self.cached.sum()


class Counting(Planted, code="KF402"):
    """A running mean changes in each call."""

    def __init__(self, inner, x):
        super().__init__(inner, x)
        self.register_buffer("mean", torch.zeros(x.shape[1], dtype=x.dtype))

    def encode(self, x):
        self.mean.mul_(0.9).add_(0.1 * x.detach().mean(0))
        return super().encode(x)


class Noisy(Planted, code="KF104"):
    """A random log_det."""

    def encode(self, x):
        z, log_det = super().encode(x)
        return z, log_det + 0.1 * torch.randn_like(log_det)


class Detached(Planted, code="KF209"):
    """A log_det without a gradient."""

    def encode(self, x):
        z, log_det = super().encode(x)
        return z, log_det.detach()


class NoGradient(Planted, code="KF213"):
    """torch.where hides a square root of zero, but not its derivative."""

    def encode(self, x):
        z, log_det = super().encode(x)
        root = torch.where(self.log_scale > 1, (self.log_scale - 0.1).sqrt(), 0.0)
        return z, log_det + root.sum()


class Exploding(Planted, code="KF213"):
    """Its log_prob leaves the finite numbers with the first step."""

    def encode(self, x):
        z, log_det = super().encode(x)
        away = (self.log_scale - 0.1).abs().max()
        return z, log_det + torch.where(away > 5e-4, torch.inf, 0.0)


class InTraining(Planted, code="KF217"):
    """Another scale in training mode, with the same log_det."""

    def encode(self, x):
        z, log_det = super().encode(x)
        return (z * 2 if self.training else z), log_det


class Folded(Planted, code="KF201"):
    """Both signs of a column have one latent."""

    def encode(self, x):
        z, log_det = super().encode(x)
        return torch.cat((z[:, :1].abs(), z[:, 1:]), 1), log_det


class Stretched(Planted, code="KF301"):
    """A condition number beyond float32."""

    def encode(self, x):
        z, log_det = super().encode(x)
        return torch.cat((z[:, :1] * 1e9, z[:, 1:]), 1), log_det + math.log(1e9)

    def decode(self, z):
        x, log_det = super().decode(torch.cat((z[:, :1] / 1e9, z[:, 1:]), 1))
        return x, log_det - math.log(1e9)


class Frozen(Planted, code="KF404"):
    """A parameter that does not train."""

    def __init__(self, inner, x):
        super().__init__(inner, x)
        self.log_scale.requires_grad_(requires_grad=False)


class NanSamples(Planted, code="KF102"):
    """Decode takes the logarithm of a negative number."""

    def decode(self, z):
        x, log_det = super().decode(z)
        return torch.where(z[:, :1] > 1, torch.nan, x), log_det


class Clamped(Planted, code="KF303"):
    """Decode clamps latents that samples hardly reach."""

    def decode(self, z):
        return super().decode(z.clamp(-5, 5))


class Unsaved(Planted, code="KF212"):
    """An order of the features that the state_dict does not hold."""

    def __init__(self, inner, x):
        super().__init__(inner, x)
        self.order = torch.randperm(x.shape[1])
        while (self.order == torch.arange(x.shape[1])).any():
            self.order = torch.randperm(x.shape[1])
        self.log_scale.data.copy_(torch.linspace(-0.2, 0.3, x.shape[1]))

    def encode(self, x):
        z, log_det = super().encode(x[:, self.order])
        return z, log_det

    def decode(self, z):
        x, log_det = super().decode(z)
        return x[:, self.order.argsort()], log_det


class OtherScale(Planted, code="KF403"):
    """Nothing is wrong with it, but its rows are a thousand times too large."""


class BrokenParameter(Planted, code="KF101"):
    """A parameter is not a number."""

    def __init__(self, inner, x):
        super().__init__(inner, x)
        self.log_scale.data[1] = math.nan


class HalfLogDet(Planted, code="KF701"):
    """A log_det in bfloat16."""

    def encode(self, x):
        z, log_det = super().encode(x)
        return z, log_det.bfloat16()


class Narrowing(Planted, code="KF702"):
    """Values in float16."""

    def encode(self, x):
        z, log_det = super().encode(x)
        return z.half(), log_det


class Dropping(Planted, code="KF218"):
    """Dropout in a flow that is given in training mode."""

    def encode(self, x):
        z, log_det = self.inner.bijection(x)
        scale = nn.functional.dropout(self.log_scale, training=self.training)
        return z * scale.exp(), log_det + scale.sum()


class SlightlyOff(Planted, code="KF201"):
    """Decode is off by 0.0003 relative."""

    def decode(self, z):
        x, log_det = super().decode(z)
        return 1.0003 * x, log_det


class HalfInside(Planted, code="KF201"):
    """Rounds to float16 inside."""

    def encode(self, x):
        return super().encode(x.half().float())


class NanOutside(Planted, code="KF303"):
    """The log_det is not a number a little outside the rows."""

    edge = math.inf

    def encode(self, x):
        z, log_det = super().encode(x)
        outside = (x.abs() > self.edge).any(1)
        return z, torch.where(outside, torch.nan, log_det)


@dataclass(frozen=True)
class Case:
    """A flow, the rows it is examined on, and the code that has to be found."""

    name: str
    flow: Any
    x: torch.Tensor
    code: str
    layer: str | None = None
    make: Any = None


ONLY_FLOAT64 = {Inexact}
ONLY_FLOAT32 = {Stretched, Narrowing, HalfInside}


class Plain(nn.Module):
    """Three couplings as many write them by hand."""

    def __init__(self):
        super().__init__()
        half = FEATURES // 2
        self.nets = nn.ModuleList(
            nn.Sequential(nn.Linear(half, 16), nn.Tanh(), nn.Linear(16, 2 * half))
            for _ in range(3)
        )

    def encode(self, x):
        log_det = x.new_zeros(len(x))
        for net in self.nets:
            kept, changed = x.chunk(2, 1)
            scale, shift = net(kept).chunk(2, 1)
            x = torch.cat((changed * scale.exp() + shift, kept), 1)
            log_det = log_det + scale.sum(1)
        return x, log_det

    def decode(self, z):
        log_det = z.new_zeros(len(z))
        for net in reversed(self.nets):
            changed, kept = z.chunk(2, 1)
            scale, shift = net(kept).chunk(2, 1)
            z = torch.cat((kept, (changed - shift) * (-scale).exp()), 1)
            log_det = log_det - scale.sum(1)
        return z, log_det


def torch_distribution():
    """A distribution of torch without parameters."""
    base = torch.distributions.Independent(Normal(torch.zeros(FEATURES), 1.0), 1)
    parts = [AffineTransform(0.3, torch.linspace(0.5, 2, FEATURES)), SigmoidTransform()]
    return TransformedDistribution(base, parts)


def pyro_flow():
    """Affine autoregressive transforms of Pyro with a permutation, in float32."""
    dist = pytest.importorskip("pyro.distributions")
    T = dist.transforms
    parts = [foreign.perturbed(T.affine_coupling(FEATURES, hidden_dims=[16])) for _ in range(2)]
    parts.insert(1, T.Permute(torch.tensor([1, 3, 0, 2])))
    return dist.TransformedDistribution(dist.Normal(torch.zeros(FEATURES), 1.0).to_event(1), parts)


def in_dtype(flow, dtype):
    """Converts a module, or the parts of a distribution that are modules."""
    parts = [flow] if isinstance(flow, nn.Module) else flow.transforms
    for part in parts:
        if isinstance(part, nn.Module):
            part.to(dtype).eval()
    return flow


MAKERS = {
    "kappaflow": lambda: moved(0),
    **{
        name: foreign.VECTORS[name]
        for name in (
            "zuko MAF", "nflows RealNVP", "normflows RealNVP", "FrEIA AllInOne",
            "torchflows RealNVP",
        )
    },
    "Pyro coupling": pyro_flow,
    "torch.distributions": torch_distribution,
    "plain": lambda: foreign.perturbed(Plain(), scale=0.2),
}  # fmt: skip
SOURCES = tuple(MAKERS)
# It has no parameters but the frozen one, and no copy in float64. Normflows' scales overflow at
# such rows, which are other findings.
SKIPPED = {
    (Frozen, "torch.distributions"),
    (Inexact, "torch.distributions"),
    (OtherScale, "normflows RealNVP"),
}


def healthy_module(name, dtype=torch.float32):
    """Returns a healthy flow by name, and rows that it fits."""
    torch.manual_seed(0)
    flow = in_dtype(MAKERS[name](), dtype)
    x = torch.zeros(2, FEATURES, dtype=dtype)
    return flow, rows(kf.wrap(flow, x))


def planted(kind, name):
    """Returns the case of a kind of defect in a flow, by name."""
    dtype = torch.float64 if kind in ONLY_FLOAT64 else torch.float32
    inner, x = healthy_module(name, dtype)

    flow = kind(inner, x)

    def make():
        other = kind(healthy_module(name, dtype)[0], x)
        other.order = flow.order.roll(1)
        return other

    if kind is LostRow:
        flow.far = x[200].clone()
    x = x if kind is LostRow else x[:128]
    if kind is NanOutside:
        flow.edge = 1.1 * x[:128].abs().max(0).values
    if kind is OtherScale:
        x = 1000 * x
    if kind is Unsaved:
        x = x[:, flow.order.argsort()]
    if kind is Caching:  # used before, as a flow that trained
        flow.encode(x)
    maker = make if kind is Unsaved else None
    return Case(f"{kind.__name__} in {name}", flow, x, KINDS[kind], make=maker)


def changed(part, names, change):
    """Gives a layer a class whose methods return what `change` makes of their results.

    It receives the name of the method, its value, its log_det and its named arguments. The name
    of the class begins with Wrong.
    """
    kind = type(part)

    def method(name):
        def call(self, *args, **named):
            value, log_det = getattr(kind, name)(self, *args, **named)
            if isinstance(value, torch.Tensor):
                return change(name, value, log_det, named)
            (value,), others = value, type(value)  # of FrEIA
            value, log_det = change(name, value, log_det, named)
            return others((value,)), log_det

        return call

    part.__class__ = type(f"Wrong{kind.__name__}", (kind,), {name: method(name) for name in names})


def encodes(library, name, named):
    """Whether a call of a layer goes from data to latent."""
    if library == "FrEIA":
        return not named.get("rev", False)
    return name == ("inverse" if library == "normflows" else "forward")


# What a layer makes of its value and log_det, given whether it encodes.
IN_A_LAYER = {
    "log_det twice": (lambda z, log_det, _: (z, 2 * log_det), "KF203"),
    "log_det of zero": (lambda z, log_det, _: (z, 0 * log_det), "KF203"),
    "log_det negative": (lambda z, log_det, _: (z, -log_det), "KF203"),
    "log_det of the inverse": (
        lambda z, log_det, encodes: (z, log_det + 0.2 * (not encodes)),
        "KF203",
    ),
    "not its inverse": (
        lambda z, log_det, encodes: (z + 0.05 * (not encodes) * (3 * z).sin(), log_det),
        "KF201",
    ),
    "mixes rows": (lambda z, log_det, encodes: (z - 0.1 * encodes * z.mean(0), log_det), "KF204"),
    "log_det detached": (lambda z, log_det, _: (z, log_det.detach()), "KF209"),
    "log_det in bfloat16": (lambda z, log_det, _: (z, log_det.bfloat16()), "KF701"),
    "log_det not finite": (
        lambda z, log_det, encodes: (
            z,
            log_det.masked_fill(encodes & ((9 * z[:, 0]).sin() > 0.5), torch.nan),
        ),
        "KF101",
    ),
}


def of_kappaflow():
    """Returns a flow of single couplings."""
    units, stack = moved(0).bijection
    return kf.Flow(kf.StandardNormal(FEATURES), kf.Chain([units, *stack.to_chain()]))


LAYERS = {  # a flow of each library, and its layer that becomes wrong
    "kappaflow": (of_kappaflow, lambda flow: flow.bijection[3]),
    "nflows": (
        lambda: foreign.nflows_flow("RealNVP"),
        lambda flow: flow._transform._transforms[3],
    ),
    "normflows": (lambda: foreign.normflows_flow("RealNVP"), lambda flow: flow.flows[2]),
    "FrEIA": (lambda: foreign.freia_flow("AllInOne"), lambda flow: flow.module_list[1]),
    "torchflows": (foreign.torchflows_flow, lambda flow: flow.bijection.layers[2]),
}
LIBRARIES = tuple(LAYERS)


def in_a_layer(library, defect="log_det twice"):
    """Returns the case of a flow of a library with a defect in its layer WrongX."""
    torch.manual_seed(0)
    change, code = IN_A_LAYER[defect]

    def wrong(name, value, log_det, named):
        if not isinstance(log_det, torch.Tensor) or not log_det.dim():
            log_det = torch.as_tensor(log_det).expand(len(value))
        return change(value, log_det, encodes(library, name, named))

    make, layer = LAYERS[library]
    flow = make().float()
    names = ("forward",) if library == "FrEIA" else ("forward", "inverse")
    x = rows(kf.wrap(flow, torch.zeros(2, FEATURES)), 64)
    changed(layer(flow), names, wrong)
    return Case(f"{defect} in a layer of {library}", flow, x, code, layer="Wrong")
