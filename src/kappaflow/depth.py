"""`prune`: the shallowest flow within a tolerance, by removing layers and training the others."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from torch import Tensor

from kappaflow._checks import positive_float
from kappaflow.bijection import Bijection, Chain
from kappaflow.bijections import Gaussianize, OnFeatures
from kappaflow.conditioning.points import Layer, checked_flow, joined_points, measuring
from kappaflow.data.raw import READ_ALL
from kappaflow.diagnosis.depth_gains import Passed
from kappaflow.errors import ArgumentError
from kappaflow.factor import Whiten
from kappaflow.flows import Flow
from kappaflow.rewrite.layers import after_standardization, flow_of, is_linear, parts_of, stacked
from kappaflow.summary import Facts, Summary
from kappaflow.training import Batch, batch_of, checked_settings, fit_split, log_prob_of
from kappaflow.training.fit import split_rows
from kappaflow.training.measure import condition_numbers, mean, quantile, standard_error
from kappaflow.training.rows import as_table
from kappaflow.training.settings import OF_TABLES

RANKED = 1_000  # validation rows that decide which layer is removed next
MEASURED = 64  # at which conditioning is measured
UNREMOVED = Gaussianize, OnFeatures  # layers that the first fit sets
TIMED, REPEATED = 4_096, 7  # rows and repetitions for the time of a score


@dataclass(frozen=True)
class PruneTrial:
    """A flow that was tried: how many layers it lacks, and how many nats it loses by that."""

    removed: int
    loss: float
    standard_error: float


@dataclass(frozen=True, repr=False)
class PrunedFlow(Summary):
    """A flow with fewer layers, compared with the one that it was made from.

    Attributes:
        flow: The new flow, in evaluation mode; the old one itself if no layer could be removed.
        removed: Names of the layers that were removed, data side first.
        kept: Number of layers of the same kinds that are left.
        loss: Mean NLL on validation rows minus that of the old flow, in nats.
        standard_error: Standard error of the loss, from the differences row by row.
        time: Processor time of a score by the new flow, over that by the old one.
        condition_numbers: 95 % condition number of the old flow and of the new one.
        trials: The flows that were trained, in order.
    """

    flow: Flow
    removed: tuple[str, ...]
    kept: int
    loss: float
    standard_error: float
    time: float
    condition_numbers: tuple[float, float]
    trials: tuple[PruneTrial, ...]

    def _facts(self) -> Facts:
        before, after = (f"{number:.3g}" for number in self.condition_numbers)
        return [
            ("layers", f"{self.kept + len(self.removed)} -> {self.kept}"),
            ("loss", f"{self.loss:+.3f} ± {self.standard_error:.3f} nats on validation rows"),
            ("time of a score", f"{self.time:.2f} times that before"),
            ("95 % condition number", f"{before} -> {after}"),
            ("removed", ", ".join(self.removed) or "none"),
        ]


def prune(
    flow: Flow,
    train: Any,
    validation: Any = None,
    *,
    nats: float = 0.02,
    progress: bool | None = None,
    **settings: Any,
) -> PrunedFlow:
    """Removes as many layers of a trained flow as possible, at a loss of at most `nats`.

    Layers become the identity, those first without which the flow loses the least; what is left
    is trained on. How many can go is found by bisection, which trains about log2(L) flows.
    Standardization, curves of columns, permutations and linear layers stay.

    Args:
        flow: A trained flow of a table, made of layers of kappaflow; it does not change.
        train: Rows to train on, as for `kappaflow.fit`.
        validation: Rows to compare on, and to stop at; a tenth of `train` by default.
        nats: The largest loss on validation rows, in nats per row: mean NLL minus that of the
            old flow. With few rows the standard error of the loss can be larger.
        progress: Show progress bars; by default on a terminal and in a notebook.
        **settings: Of each training, as for `kappaflow.fit`. By default it is as `kappaflow fit`
            trains tables, with a third of the epochs.

    Returns:
        The new flow, and what it costs.

    Raises:
        ArgumentError: An argument is wrong, or the flow has fewer than two layers to choose from.
        NumericalError: A training failed.

    Example:
        >>> import torch, kappaflow as kf
        >>> x = torch.randn(600, 2, generator=torch.Generator().manual_seed(0))
        >>> pruned = kf.prune(kf.real_nvp(2, depth=4, hidden=(8,)), x, max_epochs=1)
        >>> pruned.kept  # normal rows need no coupling, but one always stays
        1
    """
    positive_float("nats", nats)
    checked_flow(flow)
    defaults = OF_TABLES | ({"overfit_decay": None} if [*flow.base.parameters()] else {})
    checked = checked_settings(("validation", "nats", "progress"), **{**defaults, **settings})
    parts = split_rows(
        as_table(train), validation, {}, checked, READ_ALL, repair=None, duplicates="keep"
    )
    if checked.max_epochs is None and checked.max_time_s is None:
        checked = checked.shorter(len(parts.train))
    held_out = batch_of(parts.validation, flow)
    before = log_prob_of(flow, held_out)
    best, removed, trials = flow, list[str](), list[PruneTrial]()
    names, least, most = _names(flow), 0, len(removable(_parts(flow)))
    if most < 2:
        raise ArgumentError(
            "'flow' should have at least two layers that can be removed: couplings or others that "
            f"are trained and not linear; it has {most}."
        )
    while most - least > 1:
        count = (least + most) // 2
        tried, gone = without_layers(best, held_out, count - least)
        result = fit_split(tried, parts.train, parts.validation, checked, progress=progress)
        loss, error = _loss(before, log_prob_of(result.flow, held_out), held_out.weights)
        trials.append(PruneTrial(count, loss, error))
        if loss <= nats:
            best, least = result.flow.eval(), count
            removed += [names.pop(i) for i in sorted(gone, reverse=True)]
        else:
            most = count
    loss, error = _loss(before, log_prob_of(best, held_out), held_out.weights)
    return PrunedFlow(
        best,
        tuple(sorted(removed, key=lambda name: int(name.split()[0]))),
        len(names),
        loss,
        error,
        _time_ratio(best, flow, held_out),
        (_condition(flow, held_out), _condition(best, held_out)),
        tuple(trials),
    )


def _parts(flow: Flow) -> list[Bijection]:
    return parts_of(flow, unsplit=(Whiten,))


def removable(parts: Sequence[Bijection]) -> list[int]:
    """Returns the indices of the layers that may become the identity."""
    return [
        i
        for i, part in enumerate(parts)
        if not (part.is_standardization or is_linear(part) or isinstance(part, UNREMOVED))
        and [*part.parameters()]
    ]


def without_layers(flow: Flow, rows: Batch, count: int) -> tuple[Flow, list[int]]:
    """Returns the flow without `count` layers, each the least missed, and which these are."""
    parts = _parts(flow)
    first, left = after_standardization(parts), removable(parts)
    some, order = rows.at(slice(0, RANKED)), [*left]
    chain = flow.bijection
    with measuring(flow):
        context = chain.embed(some.context) if isinstance(chain, Chain) else some.context
        start = flow.standardization(joined_points(flow, some.x))[0]
        for _ in range(count):
            numbers = [i for i in range(first, len(parts)) if i in left or i not in order]
            passed = Passed(flow, [Layer("", parts[i], context) for i in numbers], start)
            scores = [
                mean(passed.log_prob(numbers.index(i), context=some.context), some.weights)
                for i in left
            ]
            left.pop(int(np.nanargmax(scores)))
    gone = [number for number, i in enumerate(order) if i not in left]
    kept = [part for i, part in enumerate(parts) if i in left or i not in order]
    return flow_of(flow, stacked(kept, flow)), gone


def _names(flow: Flow) -> list[str]:
    """Returns the names of the removable layers, with their positions, as `layers_of` has them."""
    parts = _parts(flow)
    first = after_standardization(parts)
    return [f"{i + 1 - first} {parts[i].layer_name()}" for i in removable(parts)]


def _loss(before: Tensor, after: Tensor, weights: Tensor | None) -> tuple[float, float]:
    loss = before - after
    return mean(loss, weights), standard_error(loss, weights)


def _condition(flow: Flow, rows: Batch) -> float:
    numbers = condition_numbers(flow, rows.at(slice(0, MEASURED)))
    return quantile(numbers, 0.95)


def _time_ratio(flow: Flow, other: Flow, rows: Batch) -> float:
    """Returns the processor time of a score by a flow, over that by another one."""
    some, times = rows.at(slice(0, TIMED)), ([], [])
    for _ in range(REPEATED):
        for one, seconds in zip((flow, other), times, strict=True):
            started = time.process_time()
            log_prob_of(one, some)
            seconds.append(time.process_time() - started)
    return median(times[0]) / median(times[1])
