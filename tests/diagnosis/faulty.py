"""A correct flow in the form of another library, into which each test plants one fault."""

import pytest
import torch

import kappaflow as kf

FEATURES = 4
SEEDS = pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))]
)


def points(seed=0, n=64):
    """Rows of N(0, I), (n, 4)."""
    return torch.randn(n, FEATURES, generator=torch.Generator().manual_seed(seed))


def moved(seed, context_features=0, memory="recompute"):
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


class Right(torch.nn.Module):
    """Encodes and decodes like a kappaflow flow."""

    def __init__(self, seed):
        super().__init__()
        self.flow = moved(seed)

    def encode(self, x):
        return self.flow.bijection(x)

    def decode(self, z):
        return self.flow.bijection.inverse(z)


def findings(flow, x=None, context=None, **options):
    """The findings by code."""
    return {one.code: one for one in kf.doctor(flow, x, context, **options).findings}
