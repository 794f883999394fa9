"""`two_sample`: do samples of a flow have the distribution of held-out rows?"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from scipy.special import chdtri, ndtr, ndtri

from kappaflow._checks import natural_int
from kappaflow.flows import Flow
from kappaflow.flows.rows import Data
from kappaflow.foreign import Wrapped
from kappaflow.goodness.classifier import Classified, classified, leaves
from kappaflow.goodness.corner import Corner, corner_of_deviations
from kappaflow.goodness.deviation import FAMILY, Bounds, Deviation, Family, Level, worst_level
from kappaflow.goodness.inputs import LEAST_ROWS, Inputs, Rows, opened
from kappaflow.goodness.marginals import Marginal, marginal_of
from kappaflow.goodness.overfit import Gap, gap_of
from kappaflow.goodness.pairs import MOST_PAIRS, number_of_pairs, pairs_of, scan_pair
from kappaflow.goodness.peaks import with_peaks
from kappaflow.goodness.pooled import (
    Pooled,
    encoded_by,
    has_log_prob,
    on_grids,
    owners_of,
    pooled,
    samples_of,
    stream,
    to_array,
)
from kappaflow.goodness.scan import FEWEST, FloatArray, IntArray, Scan, Tally, two_cells
from kappaflow.results import to_plain
from kappaflow.summary import Facts, PlottedSummary

MOST_TRAIN_ROWS, MOST_FOREIGN = 16_000, 4_096
SMOOTH_CELLS = 16  # of the test whose smallest visible divergence is stated
FEWEST_WEIGHTED = 100  # rows with weights to measure overfitting on
OF_SCORES = 4  # tests: of log_prob, by a classifier, in its boxes, and of overfitting
NATS_IN_ALL = 0.015  # estimated divergence that matters, if any deviation is significant
NATS_OVERFIT = 0.02  # divergence by overfitting that matters
CROSS_FITTED = math.sqrt(2)  # times the error: quarters that are alike raise each other's AUC
POWER = 2.0  # standard errors by which a deviation exceeds what is significant, to be seen


@dataclass(frozen=True, repr=False)
class TwoSample(PlottedSummary):
    """Samples of a flow, compared with held-out rows.

    Attributes:
        level: Whether samples match the rows ("good"), or the flow needs "care", or is "bad".
        rows: Number of held-out rows.
        samples: Number of samples.
        deviations: Where they differ by more than chance, the worst first.
        marginals: Each column, with histograms.
        auc: Probability that a classifier gives a held-out row a larger score than a sample; 0.5
            if it cannot distinguish them.
        auc_standard_error: Its standard error.
        nats: Estimated divergence of the flow from the distribution of the rows, in nats per row,
            as far as the tests show it. The true one may be larger.
        gap: Mean log_prob of training rows minus that of held-out rows, in nats per row; None if
            the training rows are not known.
        gap_standard_error: Its standard error.
        smallest_share: Share of the rows in a narrow line that would just have been seen.
        smallest_nats: Divergence in nats of a smooth deviation of one column that would just have
            been seen; not a bound on the divergence of the flow.
        not_checked: What was not compared, one phrase each.
        corner: The columns of the worst deviations, two at a time; not in `to_dict`.
    """

    level: Level
    rows: int
    samples: int
    deviations: tuple[Deviation, ...]
    marginals: tuple[Marginal, ...]
    auc: float
    auc_standard_error: float
    nats: float
    gap: float | None
    gap_standard_error: float | None
    smallest_share: float
    smallest_nats: float
    not_checked: tuple[str, ...] = ()
    corner: Annotated[Corner | None, Field(exclude=True)] = field(
        default=None, repr=False, compare=False
    )

    def _facts(self) -> Facts:
        return [
            ("level", self.level),
            ("rows", f"{self.rows:,}"),
            ("samples", f"{self.samples:,}"),
            ("AUC of a classifier", f"{self.auc:.3f} ± {self.auc_standard_error:.3f}"),
            ("estimated divergence", f"{self.nats:.3f} nats"),
        ]

    def _details(self) -> Facts:
        return [(entry.level, entry.sentence) for entry in self.deviations]

    def to_dict(self) -> dict[str, Any]:
        """Returns all figures as plain values for JSON."""
        return to_plain(self)


def two_sample(
    flow: object,
    x: Data,
    context: Data = None,
    *,
    train: Data | tuple[Data, Data] = None,
    seed: int = 0,
) -> TwoSample:
    """Compares samples of a flow with held-out rows: columns, pairs, and all columns at once.

    Each column and pair is compared in cells of equal counts, down to a dozen rows and samples, so
    that narrow excesses and holes show, as do tails. Boosted trees try to separate samples from
    rows. All tests together find a deviation in 1 % of the flows that are right. Rows count by
    their weights, and rounded columns are compared on their grid.

    Args:
        flow: A flow of a table, or anything that `kappaflow.wrap` takes.
        x: Held-out rows, (B, D), at least 30: a tensor, an array, a data frame, a `Table` or a
            path. At most 20,000 are compared, with 10 times as many samples (5,000 to 50,000),
            and at most 4,096 with as many for a flow of another library.
        context: Context of each row, (B, C), for a conditional flow.
        train: Rows that the flow was trained on, (N, D); for a conditional flow the pair (rows,
            context). The classifier learns from them, which finds smaller deviations, and
            overfitting is measured. Without them, the classifier is cross-fitted on `x`.
        seed: Seed of the samples.

    Returns:
        The deviations, the worst first, with figures; `level` is "good", "care" or "bad".

    Raises:
        ArgumentError: The rows do not fit the flow, or are fewer than 30.
        NumericalError: A sample or a latent is not finite.

    Source:
        Lopez-Paz, Oquab 2017 (classifier two-sample tests); Donsker, Varadhan 1975 (divergence).

    Example:
        >>> import torch, kappaflow as kf
        >>> flow = kf.Flow(kf.StandardNormal(2), kf.bijections.ElementwiseAffine(2))
        >>> rows = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
        >>> kf.two_sample(flow, rows).level
        'good'
        >>> result = kf.two_sample(flow, 3 * rows)
        >>> result.level, result.auc > 0.6
        ('bad', True)
    """
    natural_int("seed", seed)
    with opened(flow, x, context, train) as (own, inputs):
        return compare_samples(own, inputs, seed=seed)


def compare_samples(flow: Flow, inputs: Inputs, groups: int = 0, seed: int = 0) -> TwoSample:
    """Returns the comparison of samples with rows; `groups` counts the other groups of tests."""
    limit = MOST_FOREIGN if isinstance(flow, Wrapped) else None
    both = pooled(flow, inputs, limit, seed)
    pairs = number_of_pairs(both)
    family = Family(groups + 2 + (pairs > 0))
    marginals = tuple(_columns(family, both))
    for first, second in pairs_of(both):
        result = scan_pair(both, first, second)
        names = (both.names[result.first], both.names[result.second])
        family.add(_of_scan("pair", names, result.region, result.scan, both), pairs)
    others = None
    if inputs.train is not None and not _why_no_training(inputs):
        others = _training(flow, inputs, inputs.train, both, limit, seed)
    _add_scores(family, both)
    result = _add_classifier(family, both, others, seed)
    gap = None if others is None else _add_overfitting(family, both, others)
    not_checked = tuple(_not_checked(flow, inputs, both, has_gap=gap is not None))
    return _summary(family, both, marginals, result, gap, not_checked)


def _columns(family: Family, both: Pooled) -> Iterator[Marginal]:
    for j, name in enumerate(both.columns):
        order = both.ordered(j)
        scan = both.pool.scan(order)
        region = _interval(both.features[:, j], order, scan)
        deviation = _of_scan("column", (name,), (region,), scan, both)
        deviation = family.add(deviation, len(both.columns))
        yield marginal_of(both, j, region, deviation.p_value)


def _add_scores(family: Family, both: Pooled) -> None:
    if both.scores is None:
        return
    order = both.order_of(both.scores)
    scan = both.pool.scan(order)
    region = _interval(both.scores, order, scan)
    family.add(_of_scan("score", ("log_prob",), (region,), scan, both), OF_SCORES)


class Training(NamedTuple):
    """Training rows and other samples than those of the comparison, with their context."""

    rows: FloatArray
    samples: FloatArray
    encoded_rows: FloatArray | None
    encoded_samples: FloatArray | None
    weights: FloatArray | None


def _training(
    flow: Flow, inputs: Inputs, train: Rows, both: Pooled, limit: int | None, seed: int
) -> Training:
    generator = stream(seed, 1)
    (x, context), weights = train, inputs.train_weights
    index = torch.randperm(len(x), generator=generator)[: limit or MOST_TRAIN_ROWS]
    shares = None if weights is None else weights[index.numpy()]
    x = x[index].to(flow.device, flow.dtype)
    contexts = None if context is None else context[index].to(flow.device, flow.dtype)
    owners = owners_of(len(x), 2 * len(x), shares, seed)
    twice = None if contexts is None else contexts[owners]
    samples = inputs.like_rows(flow, samples_of(flow, 2 * len(x), twice, generator))
    rng = np.random.default_rng(seed + 1)
    rows, values = (on_grids(to_array(part), both.grids, rng) for part in (x, samples))
    if contexts is not None and twice is not None:
        rows, values = np.hstack([rows, to_array(contexts)]), np.hstack([values, to_array(twice)])
    if both.encoded is None:
        return Training(rows, values, None, None, shares)
    parts = encoded_by(flow, x, contexts), encoded_by(flow, samples, twice)
    return Training(rows, values, *parts, shares)


def _add_classifier(
    family: Family, both: Pooled, others: Training | None, seed: int
) -> Classified:
    features, trained_on = both.features, None
    if both.encoded is not None:
        features = np.hstack([features, both.encoded])
    if others is not None:
        parts = (others.rows, others.encoded_rows), (others.samples, others.encoded_samples)
        rows, samples = (np.hstack([part for part in pair if part is not None]) for pair in parts)
        trained_on = rows, samples, others.weights
    result = classified(features, both.pool, trained_on, both.owners, seed)
    deviation = _of_scan("classifier", (), (), both.pool.scan(result.order), both)
    text = (
        f"A classifier separates samples from held-out rows: its AUC is {result.auc:.3f} ± "
        f"{result.standard_error:.3f}, and chance would be 0.5."
    )
    by_auc = float(ndtr((0.5 - result.auc) / max(result.standard_error, 1e-9)))
    p_value = min(1.0, 2 * min(deviation.p_value, by_auc))
    if others is None:
        p_value = float(ndtr(ndtri(p_value) / CROSS_FITTED))
    nats = max(result.nats, deviation.nats)
    family.add(replace(deviation, sentence=text, nats=nats, p_value=p_value), OF_SCORES)
    if others is not None:  # trees that were cross-fitted know the rows in their boxes
        family.add(_worst_leaf(both, result), OF_SCORES)
    return result


def _worst_leaf(both: Pooled, result: Classified) -> Deviation:
    """Returns the box of columns in which the classifier is sure and right most often."""
    boxes, n = leaves(both.features, result.logits), both.pool.rows
    order = np.concatenate([box.inside for box in boxes])
    edges = np.cumsum([0, *(len(box.inside) for box in boxes)])
    cell = Tally(both.pool, order).worst(edges, len(boxes))
    box = boxes[int(np.searchsorted(edges, cell.start, side="right")) - 1].bounds
    names = tuple(both.names[feature] for feature in box)
    region = tuple(map(both.rounded, names, box.values()))
    share, expected = both.shares(names, region) or (cell.share, cell.expected)
    nats = two_cells(cell.share, cell.expected)
    return Deviation("classifier", names, region, share, expected, n, cell.p_value, nats)


def _add_overfitting(family: Family, both: Pooled, others: Training) -> Gap | None:
    scores, n = both.scores, both.pool.rows
    if scores is None or others.encoded_rows is None:
        return None
    if (both.weights is None) != (others.weights is None):
        return None  # means of rows with and without weights cannot be compared
    if both.weights is not None and both.pool.effective_rows < FEWEST_WEIGHTED:
        return None  # the error of a weighted mean of few rows is too small
    train = others.rows, others.encoded_rows[:, 0]
    held_out = both.features[:n], scores[:n]
    samples = both.features[n:], scores[n:]
    gap = gap_of(train, held_out, len(both.columns), both.weights, others.weights, samples)
    nats = gap.nats / 2
    text = (
        f"The flow overfits: it scores its training rows {gap.nats:.3f} ± "
        f"{gap.standard_error:.3f} nats per row higher than held-out rows. This alone costs about "
        f"{nats:.2f} nats."
    )
    if nats >= NATS_OVERFIT:
        numbers = 1.0, 1.0, n, gap.p_value, nats
        family.add(Deviation("overfitting", (), (), *numbers, sentence=text), OF_SCORES)
    return gap


def _not_checked(flow: Flow, inputs: Inputs, both: Pooled, *, has_gap: bool) -> Iterator[str]:
    """Yields what was not compared and why, one phrase each."""
    pairs = number_of_pairs(both) - MOST_PAIRS
    if pairs > 0:
        yield f"{pairs:,} pairs of columns, whose correlations differ less than those tested"
    if both.scores is None:
        why = "columns are rounded" if has_log_prob(flow) else "this flow has no exact one"
        yield f"the distribution of log_prob and overfitting, because {why}"
    elif not has_gap:
        yield f"overfitting, because {_why_no_gap(inputs)}"


def _why_no_training(inputs: Inputs) -> str:
    """Returns why nothing can be learned from training rows; empty if it can."""
    if inputs.train is None:
        return "the training rows are not known"
    rows, x = inputs.train[0], inputs.x
    if len(rows) < LEAST_ROWS:
        return f"there are fewer than {LEAST_ROWS} training rows"
    is_same = len(rows) == len(x) and torch.equal(rows.to(x), x)
    return "'x' should be held-out rows, and is the training rows" if is_same else ""


def _why_no_gap(inputs: Inputs) -> str:
    if reason := _why_no_training(inputs):
        return reason
    if (inputs.weights is None) != (inputs.train_weights is None):
        return "held-out and training rows should both have weights"
    return f"the weights leave less information than {FEWEST_WEIGHTED} rows without weights"


def _summary(
    family: Family,
    both: Pooled,
    marginals: tuple[Marginal, ...],
    result: Classified,
    gap: Gap | None,
    not_checked: tuple[str, ...],
) -> TwoSample:
    of_overfitting = 0.0 if gap is None else max(0.0, gap.nats / 2)
    others = [entry.nats for entry in family.deviations if entry.test != "overfitting"]
    nats = max([0.0, result.nats, *others]) + of_overfitting
    deviations = with_peaks(both, family.sorted())
    level = worst_level([entry.level for entry in family.deviations])
    if level == "good" and family.deviations and nats >= NATS_IN_ALL:
        level = "care"
    return TwoSample(
        level=level,
        rows=both.pool.rows,
        samples=both.pool.samples,
        deviations=deviations,
        marginals=marginals,
        auc=result.auc,
        auc_standard_error=result.standard_error,
        nats=nats,
        gap=None if gap is None else gap.nats,
        gap_standard_error=None if gap is None else gap.standard_error,
        smallest_share=_smallest_share(both, family.groups),
        smallest_nats=_smallest_nats(both, family.groups),
        not_checked=not_checked,
        corner=corner_of_deviations(both, deviations),
    )


def _smallest_share(both: Pooled, groups: int) -> float:
    """Returns the share of the rows in a line without samples that is seen nearly always."""
    n, pool = both.pool.effective_rows, both.pool
    cells = pool.size / FEWEST * 2 * math.log2(max(4, pool.size / FEWEST))
    chance = FAMILY / (groups * len(both.columns) * cells)
    significant = math.log(chance) / math.log(n / (n + pool.samples))
    return min(1.0, (significant + POWER * math.sqrt(significant)) / n)


def _smallest_nats(both: Pooled, groups: int) -> float:
    """Returns the divergence of a smooth deviation of one column that is seen nearly always."""
    n, m = both.pool.effective_rows, both.pool.samples
    degrees = SMOOTH_CELLS - 1
    limit = float(chdtri(degrees, FAMILY / (groups * len(both.columns) * SMOOTH_CELLS)))
    noncentrality = limit - degrees + POWER * math.sqrt(2 * limit)
    return noncentrality / (2 * n * m / (n + m))


def _of_scan(
    test: str, names: tuple[str, ...], region: tuple[Bounds, ...], scan: Scan, both: Pooled
) -> Deviation:
    cell, rows = scan.cell, both.pool.rows
    region = tuple(map(both.rounded, names, region))
    share, expected = both.shares(names, region) or (cell.share, cell.expected)
    return Deviation(test, names, region, share, expected, rows, scan.p_value, scan.nats)


def _interval(values: FloatArray, order: IntArray, scan: Scan) -> Bounds:
    """Returns the ends of a cell; infinite at the ends of all values."""
    start, stop = scan.cell.start, scan.cell.stop
    low = -math.inf if start == 0 else float(values[order[start]])
    high = math.inf if stop == len(order) else float(values[order[stop - 1]])
    return low, high
