"""A correct flow, alone and in the form of another library, into which tests plant one fault."""

import math
from functools import partial

import pytest
import torch

import kappaflow as kf
from kappaflow.diagnosis.doctor import diagnose_rows

FEATURES = 4
SEEDS = pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))]
)


def points(seed=0, n=64, features=FEATURES):
    """Rows of N(0, I), (n, features)."""
    return torch.randn(n, features, generator=torch.Generator().manual_seed(seed))


def moved(seed=0, context_features=0, memory="recompute"):
    """A flow with random weights, standardized by the rows."""
    torch.manual_seed(seed)
    flow = kf.real_nvp(
        FEATURES,
        depth=4,
        hidden=(8,),
        couplings={"scale_bound": 3.0, "memory": memory},
        context_features=context_features,
    )
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    flow.bijection.bijections[0].fit(points(seed))
    if context_features:
        flow.bijection.embedding.fit(torch.linspace(-1, 1, 300)[:, None])
    return flow


def alone(*layers, features=FEATURES):
    """A flow of these layers, without a standardization."""
    return kf.Flow(kf.StandardNormal(features), kf.Chain(layers))


def with_layer(layer, at=3, seed=0):
    """A correct flow with another layer inserted, the fourth or at the end."""
    units, stack = moved(seed).bijection
    parts = [units, *stack.to_chain()]
    return alone(*parts[:at], layer, *parts[at:])


def stretching(*log_scale):
    """A layer with these log-scales, and none for the other features."""
    rest = [0.0] * (FEATURES - len(log_scale))
    return kf.bijections.ElementwiseAffine(FEATURES, log_scale=[*log_scale, *rest])


class Right(torch.nn.Module):
    """Encodes and decodes like a kappaflow flow."""

    def __init__(self, seed=0):
        super().__init__()
        self.flow = moved(seed)

    def encode(self, x):
        return self.flow.bijection(x)

    def decode(self, z):
        return self.flow.bijection.inverse(z)


class Scaled(kf.Bijection):
    """x times a constant, with a log_det and an inverse that may be wrong."""

    def __init__(self, factor=2.0, log_det_sign=1.0, inverse_error=0.0, forward_off=0.0, off=0.0):
        super().__init__()
        self.factor, self.log_det_sign, self.inverse_error = factor, log_det_sign, inverse_error
        self.forward_off, self.inverse_off = forward_off, off

    def _log_det(self, x):
        return x.new_full((len(x),), self.log_det_sign * x.shape[1] * math.log(self.factor))

    def forward(self, x, context=None):
        return x * self.factor, self._log_det(x) + self.forward_off

    def inverse(self, z, context=None):
        return z / self.factor + self.inverse_error, -self._log_det(z) + self.inverse_off


def codes(diagnosis, start=""):
    """The codes of a diagnosis that begin like this."""
    return {finding.code for finding in diagnosis.findings if finding.code.startswith(start)}


doctor = partial(diagnose_rows, compares_samples=False)


def findings(flow, x=..., context=None, **options):
    """The findings on the map by code, at rows of N(0, I) unless others are given."""
    diagnosis = doctor(flow, points() if x is ... else x, context, **options)
    return {finding.code: finding for finding in diagnosis.findings}
