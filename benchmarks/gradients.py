"""The error of float32 gradients against float64, by memory mode and condition number."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.numerics import POINTS, condition_number, finite
from benchmarks.ours import of_kappaflow
from benchmarks.row import Shape
from kappaflow import real_nvp
from kappaflow.autograd.checkpoint import MEMORY_MODES
from kappaflow.errors import ArgumentError
from kappaflow.options import Memory
from kappaflow.testing.contract import jittered

SHAPE = Shape(depth=32, batch=128)
SEEDS = 5  # several, because a single flipped ReLU can dominate an error
# Factor on the last layers of the conditioners, and bound on the sum of log-scales. The condition
# number grows with both.
SETTINGS = (
    (0.03, 12.0),
    (0.1, 12.0),
    (0.3, 12.0),
    (0.3, 24.0),
    (0.6, 12.0),
    (1.0, 6.0),
    (1.0, 12.0),
)


def gradient_errors(
    last_layers: float, scale_bound: float, shape: Shape = SHAPE, *, seed: int = 0
) -> dict[str, Any]:
    """Returns the relative error of the float32 gradient of each memory mode.

    The reference is the same flow in float64 with memory="store", with the same float32 weights
    and points, so the error comes from the arithmetic alone. The gradient is the gradient of the
    mean log_prob for all parameters, as one vector.
    """
    state = _jittered_state(last_layers, scale_bound, shape, seed)
    reference = _flow("store", scale_bound, shape, state).double()
    exact = _gradient(reference, shape)
    errors, warned = {}, {}
    for mode in MEMORY_MODES:
        try:
            flow = _flow(mode, scale_bound, shape, state)
        except ArgumentError:  # not every flow has every mode
            continue
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = _gradient(flow, shape)
        errors[mode] = finite(((found - exact).norm() / exact.norm()).item())
        messages = [str(warning.message) for warning in caught]
        of_mode = [text for text in messages if text.startswith("memory=")]
        if of_mode:  # other warnings are about the flow: noise makes log_prob absurdly low
            warned[mode] = of_mode[0]
    return {
        "last_layers": last_layers,
        "scale_bound": scale_bound,
        "condition_number": finite(
            condition_number(of_kappaflow(reference), shape.data()[:POINTS])
        ),
        "errors": errors,
        "warned": warned,
    }


def _jittered_state(
    last_layers: float, scale_bound: float, shape: Shape, seed: int
) -> dict[str, Tensor]:
    """Returns the state of a flow with noise in all weights, smaller in the last layers."""
    state = jittered(_flow("store", scale_bound, shape), seed=seed).state_dict()
    last = f".layers.{len(shape.hidden)}."
    return {
        name: tensor * last_layers if last in name else tensor for name, tensor in state.items()
    }


def _flow(
    memory: Memory, scale_bound: float, shape: Shape, state: dict[str, Tensor] | None = None
) -> nn.Module:
    torch.manual_seed(0)
    flow = real_nvp(
        shape.features,
        depth=shape.depth,
        hidden=shape.hidden,
        couplings={"memory": memory, "scale_bound": scale_bound},
    )
    if state is not None:
        flow.load_state_dict(state)
    return flow


def _gradient(flow: Any, shape: Shape) -> Tensor:  # noqa: ANN401
    """Returns the gradient of the mean log_prob as one vector, in float64."""
    flow.log_prob(shape.data(flow.dtype)).mean().backward()
    return torch.cat([parameter.grad.double().flatten() for parameter in flow.parameters()])
