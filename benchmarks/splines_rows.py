"""Spline couplings of kappaflow and of other libraries, with one shape."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.names import ZUKO_SPLINES
from benchmarks.ours import of_kappaflow
from benchmarks.peers import nflows_couplings, of_zuko
from benchmarks.row import Model, Row, Shape
from kappaflow import Flow, spline
from kappaflow.options import Memory
from kappaflow.training.maximum_likelihood import CheckedLikelihood

BINS, BOUND = 8, 5.0


@dataclass(frozen=True)
class SplineNetworks(Shape):
    """The common shape of all rows: halves of the features, and splines of `BINS` bins."""

    depth: int = 8
    features: int = 16

    @property
    def widths(self) -> tuple[int, int, int, int]:
        return (self.kept, *self.hidden, (3 * BINS - 1) * (self.features - self.kept))


def spline_rows() -> list[Row]:
    """Returns our rows by memory mode, also compiled, and the rows of zuko and nflows."""
    ours = [
        Row(
            f"kappaflow, {memory}",
            "splines",
            "kappaflow",
            "`kappaflow.spline(features, depth=depth, hidden=hidden, "
            f'couplings={{"memory": "{memory}"}})`',
            partial(_ours, memory=memory),
        )
        for memory in ("recompute", "store", "invert")
    ]
    compiled = [
        Row(
            f"kappaflow, {memory}, compiled",
            "splines",
            "kappaflow",
            "the same, its training steps as those of `kappaflow.fit(..., compile=True)`",
            partial(_compiled, memory=memory),
        )
        for memory in ("recompute", "store")
    ]
    return [
        *ours,
        *compiled,
        Row(
            ZUKO_SPLINES,
            "splines",
            "zuko",
            "`zuko.flows.NICE` whose couplings have `MonotonicRQSTransform` as their univariate: "
            "networks as large as ours",
            _zuko_couplings,
        ),
        Row(
            "zuko, NSF of two passes",
            "splines",
            "zuko",
            "`zuko.flows.NSF(features, transforms=depth, passes=2)`, as its documentation makes "
            "couplings: networks with masks, of all features",
            _zuko_nsf,
        ),
        Row(
            "nflows",
            "splines",
            "nflows",
            "`PiecewiseRationalQuadraticCouplingTransform` with `nflows.nn.nets.MLP`, and linear "
            "tails",
            _nflows,
        ),
    ]


def _ours(shape: Shape, *, memory: Memory) -> Model:
    return of_kappaflow(_flow(shape, memory))


def _flow(shape: Shape, memory: Memory) -> Flow:
    return spline(
        shape.features,
        depth=shape.depth,
        hidden=shape.hidden,
        couplings={"bins": BINS, "bound": BOUND, "memory": memory},
    )


def _compiled(shape: Shape, *, memory: Memory) -> Model:
    """Returns a flow with compiled steps, so that compilation is not part of the measured time."""
    flow = _flow(shape, memory)
    steps = CheckedLikelihood(flow, compiled=True)

    def log_prob(x: Tensor) -> Tensor:
        return steps(x, None, torch.is_grad_enabled())

    log_prob(shape.data()).mean().backward()
    flow.zero_grad()
    return replace(of_kappaflow(flow), log_prob=log_prob)


def _zuko_couplings(shape: Shape) -> Model:
    import zuko  # pyright: ignore[reportMissingImports]

    flow = zuko.flows.NICE(
        shape.features,
        transforms=shape.depth,
        hidden_features=shape.hidden,
        univariate=partial(zuko.transforms.MonotonicRQSTransform, bound=BOUND),
        shapes=[(BINS,), (BINS,), (BINS - 1,)],
    )
    return of_zuko(flow)


def _zuko_nsf(shape: Shape) -> Model:
    import zuko  # pyright: ignore[reportMissingImports]

    flow = zuko.flows.NSF(
        shape.features,
        transforms=shape.depth,
        hidden_features=shape.hidden,
        passes=2,
        bins=BINS,
    )
    return of_zuko(flow)


def _nflows(shape: Shape) -> Model:
    from nflows.transforms import (  # pyright: ignore[reportMissingImports]
        PiecewiseRationalQuadraticCouplingTransform,
    )

    def coupling(mask: torch.Tensor, network: Callable[[int, int], nn.Module]) -> nn.Module:
        return PiecewiseRationalQuadraticCouplingTransform(
            mask, network, num_bins=BINS, tails="linear", tail_bound=BOUND
        )

    return nflows_couplings(shape, coupling)
