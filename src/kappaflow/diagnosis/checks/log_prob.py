"""KF101, KF104, KF204, KF205: log_prob computed in several ways that should agree."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from kappaflow.conditioning import layers_of
from kappaflow.conditioning.round_trip import layer_by_layer
from kappaflow.diagnosis.advice import bound_scales, loses_digits
from kappaflow.diagnosis.check import Symptom, check, measurement, table
from kappaflow.diagnosis.measurements import Measurements, library_log_prob
from kappaflow.diagnosis.not_finite import explain
from kappaflow.diagnosis.result import Columns
from kappaflow.diagnosis.tensors import (
    ROUNDED,
    columns,
    count_not_finite,
    differ,
    in_chunks,
    largest_difference,
)
from kappaflow.flows import Flow

NATS, ROUNDINGS = 1e-2, 1e2  # allowed difference of two ways: nats, and a multiple of rounding
NUMBERS = 2**19  # numbers in the rows whose log_prob is computed
NUDGE = 4  # units of rounding by which points are moved


class LogProbs(NamedTuple):
    """Log-densities of the points, computed in several ways, (n,), in nats."""

    layers: Tensor  # the density of the base plus the log_dets
    second_call: Tensor
    in_halves: Tensor | None  # in batches of two rows, a half and the rest; None for a single row
    library: Tensor | None  # the library's own log_prob
    rounding: Tensor  # the change when the row is rounded differently


@measurement("log_prob in several ways")
def log_probs(m: Measurements) -> LogProbs:
    """Computes log_prob a second time, in halves of the batch, and by the library."""
    flow, (x, context) = m.flow, m.batch
    layers = flow.augmented_log_prob(x, context) if len(x) > len(m.points) else m.log_prob
    return LogProbs(
        layers,
        flow.augmented_log_prob(x, context),
        _in_halves(flow, x, context),
        library_log_prob(flow, x, context),
        effect_of_rounding(flow, x, context, layers),
    )


@table("densities")
def densities(m: Measurements) -> Columns:
    """Returns log_prob at the points, with a column for each way."""
    result = log_probs(m)
    return columns(
        layers=result.layers,
        again=result.second_call,
        in_halves=result.in_halves,
        library=result.library,
    )


@table("log_prob")
def log_prob_of_data_and_samples(m: Measurements) -> Columns:
    """Returns log_prob at the points and at samples."""
    return columns(data=m.log_prob, samples=m.sample_log_prob) if m.rows is not None else {}


@check(
    "KF101",
    "log_prob is not finite",
    cause="A scale or a shift overflowed, or parameters are not finite.",
    fix="Bound the log-scales and train again.",
)
def log_prob_not_finite(m: Measurements) -> Iterator[Symptom]:
    """The doctor computes log_prob of all rows, up to half a million numbers. It names the first
    layer with a value that is not finite, and the arguments that bound scales in the library of
    the flow.

    Example:
        scales = kf.bijections.ElementwiseAffine(2, log_scale=[200.0, 0.0])
        flow = kf.Flow(kf.StandardNormal(2), scales)
        x = torch.randn(64, 2)
    """
    log_prob = _log_prob_of_rows(m)
    bad_count, count = count_not_finite(log_prob)
    if not bad_count:
        return
    first = int((~torch.isfinite(log_prob)).nonzero()[0])
    rows, contexts = (m.points, m.context) if m.rows is None else (m.rows, m.contexts)
    context = None if contexts is None else contexts[first : first + 1]
    explanation = explain(m, m.flow.standardization(rows[first : first + 1])[0], context)
    rows_text = f"{count} points" if count == len(m.points) else f"{count:,} rows"
    first_row = "" if first < len(m.points) else f"; the first is {m.name_row(first)}"
    yield Symptom(
        f"log_prob is not finite at {bad_count:,} of the {rows_text}{first_row}.",
        {"finite_share": 1 - bad_count / count},
        layer=explanation.layer,
        cause=explanation.cause,
        fix=explanation.fix or f"Bound the log-scales and train again: {bound_scales(m.flow)}.",
    )


@measurement("log_prob of all rows")
def _log_prob_of_rows(m: Measurements) -> Tensor:
    """Returns log_prob of the rows, up to half a million numbers, or else of the points."""
    if m.rows is None or len(m.rows) == len(m.points):
        return m.log_prob
    most = max(len(m.points), m.effort.limit(NUMBERS) // math.prod(m.flow.joint_shape))
    most = m.up_to(most, len(m.rows), "log_prob of {} rows")
    contexts = None if m.contexts is None else m.contexts[:most]
    return in_chunks(lambda *of: (m.flow.augmented_log_prob(*of),), m.rows[:most], contexts)[0]


@check(
    "KF104",
    "log_prob changes from call to call",
    severity="note",
    cause="A layer uses random numbers in evaluation mode: an estimate of a trace, or noise.",
    fix="Average several calls, and report log_prob as an estimate.",
)
def log_prob_random(m: Measurements) -> Iterator[Symptom]:
    """The checks that compare densities then stay silent, because the random numbers would
    look like an error.

    Example:
        def encode(x):
            return x, 0.1 * torch.randn(len(x))


        flow = (encode, lambda z: (z, torch.zeros(len(z))))
        x = torch.randn(64, 2)
    """
    worst = largest_difference(log_probs(m).second_call, log_probs(m).layers)
    if worst > ROUNDINGS * m.profile.eps * (1 + _size(m.log_prob)):  # sums in another order
        yield Symptom(
            f"log_prob changes by up to {worst:.2g} nats from call to call.",
            {"worst_nats": worst},
        )


@check(
    "KF204",
    "log_prob of a row depends on the other rows of the batch",
    cause="A layer computes statistics of the batch, or a log_det is summed over rows.",
    fix="Use running statistics in evaluation mode, and reduce over features only.",
)
def batch_dependent(m: Measurements) -> Iterator[Symptom]:
    """The doctor cuts the batch into two rows, a half and the rest, compares log_prob, and names
    the first layer with values that change.

    Example:
        def encode(x):
            return x - x.mean(0), torch.zeros(len(x))


        flow = (encode, lambda z: (z, torch.zeros(len(z))))
        x = torch.randn(64, 2)
    """
    message = "log_prob of a row changes by up to {:.2g} nats with the other rows of the batch."
    for symptom in _disagreement(m, _in_halves, log_probs(m).in_halves, message):
        layer = _first_mixing_layer(m.flow, *m.batch)
        yield replace(symptom, layer=layer)


@check(
    "KF205",
    "log_prob does not match the base and the layers",
    cause="log_prob leaves out a log_det or a term of the base, or uses a stale value.",
    fix="Compare log_prob(x) with base.log_prob(z) + log_det at the same points.",
)
def log_prob_inconsistent(m: Measurements) -> Iterator[Symptom]:
    """The library's own `log_prob` differs from the density of the base plus the log_dets of
    the layers.

    Example:
        class Doubling:
            def encode(self, x):
                return 2 * x, torch.full((len(x),), 1.3863)

            def decode(self, z):
                return z / 2, torch.full((len(z),), -1.3863)

            def log_prob(self, x):
                return torch.distributions.Normal(0, 1).log_prob(2 * x).sum(1)


        flow = Doubling()
        x = torch.randn(64, 2)
    """
    message = (
        "log_prob differs from the density of the base plus the log_dets of the layers by up to "
        "{:.2g} nats."
    )
    yield from _disagreement(m, library_log_prob, log_probs(m).library, message)


def _disagreement(
    m: Measurements,
    compute: Callable[[Flow, Tensor, Tensor | None], Tensor | None],
    value: Tensor | None,
    message: str,
) -> Iterator[Symptom]:
    """Yields a symptom if `compute` differs from the layers; a warning if rounding explains it."""
    result = log_probs(m)
    if value is None or log_prob_random(m):
        return
    worst, tolerance = compare_densities(m, value, result.layers, result.rounding)
    if not worst > tolerance:
        return

    def difference(flow: Flow, x: Tensor, context: Tensor | None) -> float:
        value, layers = compute(flow, x, context), flow.augmented_log_prob(x, context)
        return math.inf if value is None else largest_difference(value, layers)

    symptom = Symptom(message.format(worst), {"worst_nats": worst, "tolerance_nats": tolerance})
    in_copy = m.in_float64(difference, *m.batch)
    is_rounding = in_copy is not None and in_copy <= ROUNDED * worst
    yield loses_digits(m.flow, symptom) if is_rounding else symptom


def _in_halves(flow: Flow, x: Tensor, context: Tensor | None) -> Tensor | None:
    """Returns log_prob in batches of two rows, a half and the rest; None for a single row."""
    if len(x) < 2:
        return None
    end = 2 + len(x) // 2
    parts = [part for part in (slice(2), slice(2, end), slice(end, None)) if len(x[part])]
    contexts = [None if context is None else context[part] for part in parts]
    pairs = zip(parts, contexts, strict=True)
    return torch.cat([flow.augmented_log_prob(x[part], rows) for part, rows in pairs])


def compare_densities(
    m: Measurements, a: Tensor, b: Tensor, rounding: Tensor
) -> tuple[float, float]:
    """Returns the largest difference of two log-densities and its tolerance, in nats.

    Points at which rounding alone changes the density visibly are left out.
    """
    stable = ROUNDINGS * rounding <= NATS
    tolerance = NATS + ROUNDINGS * m.profile.eps * _size(b[stable])
    return largest_difference(a[stable], b[stable]), tolerance


def effect_of_rounding(flow: Flow, x: Tensor, context: Tensor | None, log_prob: Tensor) -> Tensor:
    """Returns how much log_prob changes when the points move by a few roundings, (n,)."""
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, x.shape, generator=generator).to(x) * 2 - 1
    moved = x * (1 + NUDGE * torch.finfo(x.dtype).eps * signs)
    return (flow.augmented_log_prob(moved, context) - log_prob).abs()


def _first_mixing_layer(flow: Flow, x: Tensor, context: Tensor | None) -> str | None:
    """Returns the first layer with a value or log_det that changes in a smaller batch."""
    for layer, state, *results in layer_by_layer(layers_of(flow.bijection, context), x):
        for size in (len(x) // 2, 2):
            part = replace(layer, context=None if layer.context is None else layer.context[:size])
            part_results = part.encode(state[:size])
            if any(differ(a[:size], b) for a, b in zip(results, part_results, strict=True)):
                return layer.name
    return None


def _size(log_prob: Tensor) -> float:
    return max(log_prob.abs().nan_to_num(0, posinf=0).tolist(), default=0.0)
