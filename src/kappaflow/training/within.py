"""Weights a little above a condition budget, moved until they keep it."""

import math
from typing import Any

import torch
from torch import Tensor

from kappaflow.flows import Flow
from kappaflow.training.measure import budget_figures, conditioning_figures, likelihood_figures
from kappaflow.training.rows import AnyRows

FAR = 2.0  # times the budget: weights beyond are not moved
JUST = 0.99  # of the budget is where they are moved to
MOST_MOVES = 6
FIRST_RATE = 4.0  # by how much log(condition number) falls, as the share of the way falls by 1
LEAST_RATE = 1.0  # that is believed

State = dict[str, Tensor]


@torch.no_grad()
def within_budget(
    flow: Flow, start: State, rows: AnyRows, asked: float, figures: dict[str, Any]
) -> tuple[dict[str, float], State] | None:
    """Returns a state near that of a flow which keeps a budget, and what is measured there.

    Weights a little above a budget are not lost: towards those of the start, at which most flows
    are the identity, the condition number falls. How far to go is found by secants.

    Args:
        flow: Left as it is.
        start: Its state before training.
        rows: Held out.
        asked: The budget.
        figures: What was measured of the flow, "condition_number_p95" among it.

    Returns:
        The figures that are others, and the state; None where the flow keeps the budget already,
        is far above it, or nothing near keeps it.
    """
    p95 = figures["condition_number_p95"]
    if p95 is None or not asked < p95 < FAR * asked:
        return None
    here = {name: tensor.detach().clone() for name, tensor in flow.state_dict().items()}
    share, rate, above = 1.0, FIRST_RATE, math.log(p95 / asked)
    try:
        for _ in range(MOST_MOVES):
            share -= (math.log(p95 / asked) - math.log(JUST)) / rate
            state = _between(start, here, share)
            flow.load_state_dict(state)
            found = budget_figures(flow, rows)
            p95 = found["condition_number_p95"]
            if p95 <= asked:
                measured = conditioning_figures(flow, rows, found)
                return measured | likelihood_figures(flow, rows), state
            rate = max(LEAST_RATE, (above - math.log(p95 / asked)) / (1 - share))
    finally:
        flow.load_state_dict(here)
    return None


def _between(one: State, other: State, share: float) -> State:
    """Returns a mean of two states, with so much of the other, and its whole numbers."""
    return {
        name: one[name].lerp(there, share) if there.is_floating_point() else there
        for name, there in other.items()
    }
