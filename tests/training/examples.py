"""Small flows, rows and trainings for the tests of this folder."""

import math

import torch
from torch import nn

import kappaflow as kf
from kappaflow.flows.recipe import from_options

ENTROPY_1 = 0.5 * math.log(2 * math.pi * math.e)  # of N(0, 1), nats


def gaussian(rows=2000, seed=0):
    """Returns rows of a correlated Gaussian in awkward units, and its entropy in nats."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.tensor([[300.0, 0.0, 0.0], [2.0, 1.0, 0.0], [0.001, 0.0, 0.002]])
    x = torch.randn(rows, 3, generator=generator) @ mixing.T + torch.tensor([1e4, -5.0, 0.0])
    return x, 3 * ENTROPY_1 + math.log(300 * 1.0 * 0.002)


def small(features=3, **arguments):
    """Returns a flow that trains in a second, the same each time."""
    torch.manual_seed(0)
    return from_options(kf.real_nvp, features, **{"depth": 4, "hidden": (16,), **arguments})


def small_glow(**settings):
    """Returns a small flow of digits, the same each time."""
    torch.manual_seed(0)
    sizes = {"levels": 1, "steps": 1, "hidden": 4, "dequantize": "uniform", "values": 17}
    return from_options(kf.glow, (1, 8, 8), **sizes | settings)


def digits(n=200):
    """Returns the first images of handwritten digits."""
    return kf.load_images("digits").subset(range(n))


def without_clock(result):
    """Returns the figures of the epochs without those that depend on the moment."""
    return [
        {k: v for k, v in figures.items() if k not in {"time_s", "memory_bytes"}}
        for figures in result.history
    ]


class Interrupt(kf.training.Callback):
    """Stops a training after an epoch, as Ctrl-C does."""

    def __init__(self, epoch=2):
        self.epoch = epoch

    def on_epoch(self, flow, figures):
        if figures["epoch"] == self.epoch:
            raise KeyboardInterrupt


class Theirs(nn.Module):
    """A flow of no library: a triangular map and its own log_prob, which counts its calls."""

    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(2))
        self.slope = nn.Parameter(torch.zeros(()))
        self.calls = 0

    def encode(self, x):
        z = torch.stack((x[:, 0], x[:, 1] + self.slope * x[:, 0]), 1) * self.log_scale.exp()
        return z, self.log_scale.sum().expand(len(x))

    def decode(self, z):
        y = z * (-self.log_scale).exp()
        x = torch.stack((y[:, 0], y[:, 1] - self.slope * y[:, 0]), 1)
        return x, -self.log_scale.sum().expand(len(z))

    def log_prob(self, x):
        self.calls += x.requires_grad or torch.is_grad_enabled()
        z, log_det = self.encode(x)
        return -0.5 * z.square().sum(1) - math.log(2 * math.pi) + log_det


class _Narrow(torch.autograd.Function):
    """The identity, whose cotangent goes through float16 4,096 times as large."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, cotangent):
        return (cotangent * 4096).half().float() / 4096


@kf.register("tests.Overflows")
class Overflows(kf.Bijection):
    """A shift whose gradient overflows at a scale of 2**16, and at 2**9 no more.

    Args:
        always: It is not a number at any scale.
    """

    def __init__(self, always=False):
        super().__init__()
        self.always, self.shift = always, nn.Parameter(torch.zeros(2))

    def forward(self, x, context=None):
        bad = self.always and self.training
        shift = self.shift + (self.shift * 0).sqrt() if bad else self.shift
        return _Narrow.apply(x + shift), torch.zeros(len(x))

    def inverse(self, z, context=None):
        return z - self.shift, torch.zeros(len(z))


def with_overflows(**arguments):
    """Returns a flow whose second layer overflows, with couplings behind it."""
    torch.manual_seed(0)
    parts = [Overflows(**arguments), *kf.real_nvp(2, depth=2, hidden=(8,)).core]
    return kf.Flow(kf.StandardNormal(2), kf.Chain([kf.bijections.Standardize(2), *parts]))
