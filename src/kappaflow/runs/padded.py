"""Padding in runs: from words to the flow, and from the flow to what a report says of it."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow, importance_weighted_log_prob, padding_in, padding_of_kind
from kappaflow.report import PaddingView, Weighted
from kappaflow.training import Rows, units_log_det

DRAWS = 64  # of the padding, for each row
WEIGHTED_ROWS = 2000  # at most
PLAIN = "gaussian"  # the kind that a number alone stands for
OPTIONS = ("padding_kind", "padding_scale")


def with_padding(arguments: dict[str, Any], event_shape: Sequence[int]) -> dict[str, Any]:
    """Returns the arguments of a recipe, where padding of a kind and a scale has become a padding.

    Args:
        arguments: Of a recipe, and beside its `padding`, a number, perhaps `padding_kind` and
            `padding_scale`.
        event_shape: Of the points.

    Returns:
        Arguments that the recipe takes.

    Raises:
        ArgumentError: A kind or a scale is given without padding, or one of them is wrong.
    """
    kind, scale = (arguments.get(name) for name in OPTIONS)
    given = {name: value for name, value in arguments.items() if name not in OPTIONS}
    if kind is None and scale is None:
        return given
    features = given.get("padding")
    if not features:
        name = OPTIONS[0] if kind is not None else OPTIONS[1]
        raise ArgumentError(f"'{name}' should be left out where there is no padding.")
    if (kind or PLAIN) != PLAIN or scale is not None:
        given["padding"] = padding_of_kind(kind or PLAIN, features, event_shape, scale=scale)
    return given


def padding_view(flow: Flow, test: Rows) -> tuple[PaddingView | None, Tensor | None]:
    """Returns what a report says of the padding of a flow, None where there is none.

    Args:
        flow: The flow.
        test: Held-out rows, some of which are weighted.

    Returns:
        The padding, with an importance-weighted likelihood where it has a density; and that
        negative log-likelihood of each of the first 2,000 rows at most.
    """
    padding = padding_in(flow.augment)
    if padding is None:
        return None, None
    few = test.at(slice(0, WEIGHTED_ROWS))
    weighted, nll = _weighted(flow, few) if padding.has_density else (None, None)
    view = PaddingView(
        features=padding.features,
        in_words=padding.in_words,
        has_density=padding.has_density,
        weighted=weighted,
    )
    return view, nll


def _weighted(flow: Flow, rows: Rows) -> tuple[Weighted, Tensor]:
    estimate, error = importance_weighted_log_prob(
        flow, rows.x, DRAWS, context=rows.context, generator=torch.Generator().manual_seed(0)
    )
    nll, error = -estimate.double().cpu(), error.double().cpu()
    weighted = Weighted(
        draws=DRAWS,
        rows=len(nll),
        nll=nll.mean().item(),
        nll_standardised=nll.mean().item() + units_log_det(flow),
        standard_error=nll.std(correction=0).item() / math.sqrt(len(nll)),
        monte_carlo_error=error.square().sum().sqrt().item() / len(nll),
    )
    return weighted, nll
