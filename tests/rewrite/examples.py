"""Flows that the tests of rewriting share."""

import torch

import kappaflow as kf


def moved(flow, seed=0, noise=0.15):
    """Returns a flow off its start."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in flow.parameters():
        parameter.data.add_(noise * torch.randn(parameter.shape, generator=generator))
    return flow


def flow_of(*parts, features=4):
    """Returns a flow of these layers, off its start."""
    return moved(kf.Flow(kf.StandardNormal(features), kf.Chain(parts)))
