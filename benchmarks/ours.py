"""The rows of kappaflow."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.names import WITHOUT_NATIVE
from benchmarks.row import TIMED, Model, Row, Shape, conditioner
from kappaflow import AffineCoupling, Chain, Flow, Partition, StandardNormal, real_nvp
from kappaflow.autograd.checkpoint import MEMORY_MODES
from kappaflow.options import Memory
from kappaflow.testing.contract import jittered


def recipe_rows() -> list[Row]:
    """Returns a row for each memory mode, for the readable definition, and for noisy weights."""
    modes = [
        Row(
            f"kappaflow, {mode}",
            "kappaflow",
            "kappaflow",
            f'`kappaflow.real_nvp(64, depth=depth, couplings={{"memory": "{mode}"}})`',
            partial(_real_nvp, memory=mode),
            # A new flow has the same numbers in every mode, so numerics use the default only.
            TIMED if mode != MEMORY_MODES[0] else (*TIMED, "numerics"),
        )
        for mode in MEMORY_MODES
    ]
    alone = [
        Row(
            WITHOUT_NATIVE.format(mode),
            "kappaflow without the native backend",
            "kappaflow",
            "the same with `KAPPAFLOW_NATIVE=0`",
            partial(_real_nvp, memory=mode),
            ("speed",),
            {"KAPPAFLOW_NATIVE": "0"},
        )
        for mode in ("recompute", "store")
    ]
    plain = Row(
        "kappaflow, plain couplings",
        "kappaflow",
        "kappaflow",
        "the same couplings as a plain `Chain` of `AffineCoupling`, by plain autograd: "
        "the readable definition",
        _plain,
        TIMED,
    )
    moved = Row(
        "kappaflow, weights moved by noise",
        "kappaflow",
        "kappaflow",
        "the first, each weight moved by noise of standard deviation 0.1: no start, but not the "
        "identity",
        _moved,
        ("numerics",),
    )
    return [*modes, plain, moved, *alone]


def any_module_rows() -> list[Row]:
    """Returns rows with other conditioners than our MLP, so that no fused execution applies."""
    return [
        Row(
            f"kappaflow, any module, {mode}",
            "any module",
            "kappaflow",
            f'`Chain(couplings, memory="{mode}")` of `AffineCoupling` whose conditioners are '
            "`Sequential(Linear, SiLU, Linear, SiLU, Linear)`",
            partial(_any_module, memory=mode),
            TIMED,
            activation=nn.SiLU,
        )
        for mode in MEMORY_MODES
    ]


def of_kappaflow(flow: Any) -> Model:  # noqa: ANN401
    """Returns the model of one of our flows."""
    return Model(
        flow,
        flow.log_prob,
        flow.sample,
        lambda x: flow.bijection.forward(x)[0],
        lambda z: flow.bijection.inverse(z)[0],
    )


def noisy(
    make: Callable[[], Flow], shape: tuple[int, ...], noise: float
) -> tuple[Flow, torch.Tensor]:
    """Returns a flow with normal noise on all its parameters, and points.

    A new flow is the identity, which is quick to measure and has no errors.
    """
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        flow, x = make(), torch.randn(shape)
        flow.log_prob(x)  # initializes the activation norms
        for parameter in flow.parameters():
            parameter += noise * torch.randn_like(parameter)
    return flow.eval(), x


def _real_nvp(shape: Shape, *, memory: Memory) -> Model:
    flow = real_nvp(
        shape.features, depth=shape.depth, hidden=shape.hidden, couplings={"memory": memory}
    )
    return of_kappaflow(flow)


def _plain(shape: Shape) -> Model:
    flow: Any = _real_nvp(shape, memory="store").module
    units, part = flow.bijection.bijections[:2]
    plain = part.to_chain() if hasattr(part, "to_chain") else part
    return of_kappaflow(Flow(StandardNormal(shape.features), Chain([units, plain])))


def _moved(shape: Shape) -> Model:
    model = _real_nvp(shape, memory=MEMORY_MODES[0])
    jittered(model.module)
    return model


def _any_module(shape: Shape, *, memory: Memory) -> Model:
    def coupling(layer: int) -> AffineCoupling:
        half = Partition.half(shape.features)
        network = conditioner(shape.widths, nn.SiLU)
        for parameter in network[-1].parameters():  # starts at the identity, like the recipes
            nn.init.zeros_(parameter)
        part = half.swapped() if layer % 2 else half
        return AffineCoupling(part, network, scale_bound=12.0 / shape.depth)

    chain = Chain([coupling(layer) for layer in range(shape.depth)], memory=memory)
    return of_kappaflow(Flow(StandardNormal(shape.features), chain))
