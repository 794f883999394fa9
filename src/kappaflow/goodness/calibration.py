"""`calibration`: do held-out rows fall where a flow predicts them, at every context?"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from kappaflow._checks import natural_int, positive_int
from kappaflow.flows import Flow
from kappaflow.flows.rows import Data
from kappaflow.foreign import Wrapped
from kappaflow.goodness.deviation import Deviation, Family, Level, interval_phrase, worst_level
from kappaflow.goodness.inputs import Inputs, opened
from kappaflow.goodness.pooled import (
    encoded_by,
    grids_of,
    is_coarse,
    on_grids,
    samples_of,
    stream,
    to_array,
)
from kappaflow.goodness.scan import FloatArray, IntArray, Scan, effective_rows, scan_uniform
from kappaflow.results import to_plain
from kappaflow.summary import Facts, PlottedSummary

MOST_FOREIGN = 500  # rows of a flow of another library, whose sampler may be slow
MOST_ROWS, SAMPLES = 2_000, 63  # 64 possible ranks, which dyadic cells divide equally
SLICES = (1, 2, 4, 8, 16)  # of a column of the context, of equal counts
BINS = 16  # of histograms of ranks
CONTEXT_BINS = 8
COVERAGES = tuple(round(0.05 * k, 2) for k in range(1, 20))
CONFIDENCE = 0.05  # of the bands
HIGHEST, RANDOM = "highest density", "random reference"
SMALLEST_SHIFT = 0.02  # of the mean rank or the central half, for a wrong center or width


@dataclass(frozen=True)
class ContextBin:
    """Held-out rows in a quantile bin of a column of the context.

    Attributes:
        column: The modeled column.
        context: The column of the context.
        low: Least context in the bin.
        high: Largest context in the bin.
        rows: Number of rows in it.
        central_half: Share of the rows in the central half of what is predicted; more than 0.5
            means that predictions are too wide.
        mean_rank: Mean rank of the rows, 0 to 1; more than 0.5 means that predictions are too low.
    """

    column: str
    context: str
    low: float
    high: float
    rows: int
    central_half: float
    mean_rank: float


@dataclass(frozen=True, repr=False)
class Calibration(PlottedSummary):
    """Ranks of held-out rows among samples at their contexts, which a right flow makes uniform.

    Attributes:
        level: Whether the ranks are uniform ("good"), or the flow needs "care", or is "bad".
        rows: Number of held-out rows.
        samples: Number of samples for each row.
        columns: Names of the columns.
        p_values: By column, and for "highest density" and "random reference", the p-value of
            uniform ranks (Kolmogorov-Smirnov).
        coverages: Nominal levels of the intervals and regions.
        covered: By the same names, the share of the rows in central intervals, in regions of
            highest density, and in balls around random references (TARP).
        band: Half-width of a band that contains all of a right curve with a probability of 95 %.
        histograms: By the same names, the share of the rows in 16 bins of the ranks.
        contexts: Rows in quantile bins of each column of the context.
        deviations: Where ranks are not uniform by more than chance, the worst first.
        ranks: By the same names, the rank of each row, 0 to `samples`; not in `to_dict`.
    """

    level: Level
    rows: int
    samples: int
    columns: tuple[str, ...]
    p_values: dict[str, float]
    coverages: tuple[float, ...]
    covered: dict[str, list[float]]
    band: float
    histograms: dict[str, list[float]]
    contexts: tuple[ContextBin, ...]
    deviations: tuple[Deviation, ...]
    ranks: Annotated[dict[str, IntArray], Field(exclude=True)] = field(
        default_factory=dict, repr=False, compare=False
    )

    def _facts(self) -> Facts:
        names = ", ".join(f"{name} {value:.3g}" for name, value in self.p_values.items())
        return [
            ("level", self.level),
            ("rows", f"{self.rows:,}"),
            ("samples for each", f"{self.samples:,}"),
            ("p-values of uniform ranks", names),
        ]

    def _details(self) -> Facts:
        return [(entry.level, entry.sentence) for entry in self.deviations]

    def to_dict(self) -> dict[str, Any]:
        """Returns all figures but the ranks as plain values for JSON."""
        return to_plain(self)


class Ranks(NamedTuple):
    """Ranks of rows among samples by name, with the contexts and weights of the rows."""

    by_name: dict[str, IntArray]
    columns: tuple[str, ...]
    context: FloatArray
    context_columns: tuple[str, ...]
    weights: FloatArray | None
    samples: int


def calibration(
    flow: object,
    x: Data,
    context: Data = None,
    *,
    samples: int = SAMPLES,
    seed: int = 0,
) -> Calibration:
    """Ranks held-out rows among samples at their contexts: PIT, coverage, SBC and TARP.

    For a posterior of simulation-based inference, x are parameters and the context observations:
    uniform ranks of each column are simulation-based calibration, and those of distances from
    random references are TARP. Ranks are tested over all rows, and in quantile bins of each column
    of the context, because a width that is too large here and too small there is right on average.

    Args:
        flow: A flow of a table, or anything that `kappaflow.wrap` takes.
        x: Held-out rows, (B, D), at least 30, as for `kappaflow.two_sample`; at most 2,000 are
            used, chosen at random.
        context: Context of each row, (B, C), for a conditional flow.
        samples: Samples at the context of each row. One less than a power of 2 is best.
        seed: Seed of the samples.

    Returns:
        Ranks, coverage and deviations; `level` is "good", "care" or "bad".

    Raises:
        ArgumentError: The rows do not fit the flow, or are fewer than 30.
        NumericalError: A sample or a latent is not finite.

    Source:
        Dawid 1984 (PIT); Talts, Betancourt, Simpson, Vehtari, Gelman 2018 (SBC); Lemos, Coogan,
        Hezaveh, Perreault-Levasseur 2023 (TARP); Massart 1990 (the band).

    Example:
        >>> import torch, kappaflow as kf
        >>> flow = kf.Flow(kf.StandardNormal(1), kf.bijections.ElementwiseAffine(1))
        >>> rows = torch.randn(500, 1, generator=torch.Generator().manual_seed(0))
        >>> kf.calibration(flow, rows).level
        'good'
        >>> kf.calibration(flow, rows / 3).deviations[0].place
        'highest density'
    """
    positive_int("samples", samples)
    natural_int("seed", seed)
    with opened(flow, x, context) as (own, inputs):
        return calibrate(own, inputs, samples=samples, seed=seed)


def calibrate(
    flow: Flow, inputs: Inputs, groups: int = 1, *, samples: int = SAMPLES, seed: int = 0
) -> Calibration:
    """Returns the calibration at 2,000 rows at most; `groups` counts the groups of tests."""
    x, context, weights = inputs.x, inputs.context, inputs.weights
    most = MOST_FOREIGN if isinstance(flow, Wrapped) else MOST_ROWS
    if len(x) > most:
        index = torch.randperm(len(x), generator=stream(seed, 3))[:most].sort().values
        x, context = x[index], None if context is None else context[index]
        weights = None if weights is None else weights[index.numpy()]
    names, context_names = inputs.names, inputs.context_names
    contexts = np.zeros((len(x), 0)) if context is None else to_array(context)
    by_name = _ranks(flow, x, context, inputs, samples, seed)
    ranks = Ranks(by_name, names, contexts, context_names, weights, samples)
    family = Family(groups)
    tests = len(by_name) * (1 + contexts.shape[1])
    for deviation in _deviations(ranks):
        family.add(deviation, tests)
    rng = np.random.default_rng(seed)
    rows = len(x) if weights is None else effective_rows(weights)
    total = float(len(x) if weights is None else weights.sum())
    uniform = {name: _spread(rank, samples, rng) for name, rank in by_name.items()}
    return Calibration(
        level=worst_level([entry.level for entry in family.deviations]),
        rows=len(x),
        samples=samples,
        columns=names,
        p_values={name: _kolmogorov(u, weights) for name, u in uniform.items()},
        coverages=COVERAGES,
        covered={name: _covered(name, u, weights) for name, u in uniform.items()},
        band=math.sqrt(math.log(2 / CONFIDENCE) / (2 * rows)),
        histograms={
            name: (np.histogram(u, BINS, (0, 1), weights=weights)[0] / total).tolist()
            for name, u in uniform.items()
        },
        contexts=tuple(_context_bins(ranks, uniform)),
        deviations=family.sorted(),
        ranks=by_name,
    )


@torch.no_grad()
def _ranks(
    flow: Flow,
    x: Tensor,
    context: Tensor | None,
    inputs: Inputs,
    samples: int,
    seed: int,
) -> dict[str, IntArray]:
    """Returns the number of samples at the context of each row that are below the row.

    The order is that of each column, of the density, and of the distance from a random reference,
    which is another row.
    """
    generator, rng = stream(seed, 2), np.random.default_rng(seed)
    grids = grids_of(to_array(x))
    rows, count = on_grids(to_array(x), grids, rng), max(1, 8_192 // samples)
    cycle, references = rng.permutation(len(rows)), np.empty_like(rows)
    references[cycle] = rows[np.roll(cycle, 1)]
    spread = np.maximum(rows.std(0), 1e-300)
    has_density = flow.likelihood == "exact" and flow.augment is None
    has_density = has_density and not is_coarse(to_array(x), grids)
    results: list[FloatArray] = []
    for start in range(0, len(x), count):
        part = slice(start, start + count)
        own = rows[part]
        contexts = None if context is None else context[part]
        repeated = None if contexts is None else contexts.repeat_interleave(samples, 0)
        sampled = samples_of(flow, len(own) * samples, repeated, generator)
        sampled = inputs.like_rows(flow, sampled)
        values = on_grids(to_array(sampled), grids, rng).reshape(len(own), samples, -1)
        below = [_below(values, own, rng)]
        if has_density:
            scores = encoded_by(flow, sampled, repeated)[:, 0].reshape(len(own), samples)
            below.append(
                _below(scores[..., None], encoded_by(flow, x[part], contexts)[:, :1], rng)
            )
        distance = np.linalg.norm((values - references[part][:, None]) / spread, axis=2)
        from_row = np.linalg.norm((own - references[part]) / spread, axis=1)
        below.append(_below(distance[..., None], from_row[:, None], rng))
        results.append(np.hstack(below))
    listed = [*inputs.names, *([HIGHEST] if has_density else []), RANDOM]
    return dict(zip(listed, np.concatenate(results).T.astype(np.int64), strict=True))


def _below(samples: FloatArray, own: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Returns the number of samples, (n, S, D), below each row, (n, D), and of some equal ones.

    Densities near a mode are equal in float32, and a rank that counts none of them is too low.
    """
    equal = (samples == own[:, None]).sum(1)
    return (samples < own[:, None]).sum(1) + rng.integers(0, equal + 1)


def _spread(ranks: IntArray, samples: int, rng: np.random.Generator) -> FloatArray:
    """Returns ranks as numbers from 0 to 1, spread evenly over the step of each."""
    return (ranks + rng.random(len(ranks))) / (samples + 1)


def _kolmogorov(u: FloatArray, weights: FloatArray | None) -> float:
    """Returns the p-value of uniform numbers; weights count as fewer rows (Kish 1965)."""
    from scipy.stats import kstest, kstwobign  # takes half as long to load as torch

    if weights is None:
        return float(kstest(u, "uniform").pvalue)
    order = np.argsort(u)
    above = np.cumsum(weights[order]) / weights.sum()
    below = above - weights[order] / weights.sum()
    distance = max(float((above - u[order]).max()), float((u[order] - below).max()))
    return float(kstwobign.sf(math.sqrt(effective_rows(weights)) * distance))


def _covered(name: str, u: FloatArray, weights: FloatArray | None) -> list[float]:
    """Returns the share of the rows in regions of each nominal level."""
    if name == HIGHEST:
        outside = 1 - u
    else:
        outside = u if name == RANDOM else np.abs(2 * u - 1)
    return [float(np.average(outside <= level, weights=weights)) for level in COVERAGES]


def _deviations(ranks: Ranks) -> Iterator[Deviation]:
    """Yields a test for each kind of rank: of all rows, and of slices of each context."""
    n = len(ranks.context)
    for name, own in ranks.by_name.items():
        overall = scan_uniform(own, ranks.samples + 1, np.zeros(n, np.int64), ranks.weights)
        if overall is not None:
            yield _described(ranks, name, overall, None, np.ones(n, bool))
        for j, context in enumerate(ranks.context_columns):
            results = [
                (scan_uniform(own, ranks.samples + 1, home, ranks.weights), home)
                for home in (_slices(ranks.context[:, j], slices) for slices in SLICES[1:])
            ]
            scans = [(scan, home) for scan, home in results if scan is not None]
            if scans:
                best, home = min(scans, key=lambda pair: pair[0].p_value)
                best = best._replace(p_value=min(1.0, len(scans) * best.p_value))
                inside = home == best.cell.start
                values = ranks.context[inside, j]
                ends = float(values.min()), float(values.max())
                at = interval_phrase(*ends) if ends[0] < ends[1] else f"{ends[0]:.6g}"
                phrase = f"{context} is {at}"
                yield _described(ranks, name, best, phrase, inside)


def _slices(values: FloatArray, slices: int) -> IntArray:
    """Returns the number of the slice of each value; equal values are in the same slice."""
    before = np.searchsorted(np.sort(values), values)
    return np.unique(before * slices // len(values), return_inverse=True)[1]


def _described(
    ranks: Ranks, name: str, scan: Scan, where: str | None, inside: np.ndarray
) -> Deviation:
    """Returns a scan of ranks as a deviation, which says how predictions are wrong."""
    u = (ranks.by_name[name][inside] + 0.5) / (ranks.samples + 1)
    weights = None if ranks.weights is None else ranks.weights[inside]
    at = f" where {where}" if where else ""
    test = "coverage" if name in {HIGHEST, RANDOM} else "pit"
    counts = np.histogram(u, BINS, (0, 1), weights=weights)[0]
    histogram = tuple((counts / counts.sum()).tolist())
    return Deviation(
        test, (), (), scan.cell.share, scan.cell.expected, int(inside.sum()), scan.p_value,
        scan.nats, _sentence(name, u, weights, at), f"{name}{at}", histogram,
    )  # fmt: skip


def _sentence(name: str, u: FloatArray, weights: FloatArray | None, at: str) -> str:
    if name == HIGHEST:
        pairs = zip(COVERAGES, _covered(name, u, weights), strict=True)
        level, share = max(pairs, key=lambda pair: abs(pair[1] - pair[0]))
        return (
            f"The regions of highest density that should hold {100 * level:.0f} % of the held-out "
            f"rows hold {100 * share:.0f} %{at}."
        )
    if name == RANDOM:
        return (
            f"Held-out rows are not where samples are{at}: ranks of their distances from random "
            "references are not uniform (TARP)."
        )
    central = float(np.average(np.abs(u - 0.5) <= 0.25, weights=weights))
    mean = float(np.average(u, weights=weights))
    below = 100 * float(np.average(u < 0.5, weights=weights))
    how = "are too wide" if central > 0.5 else "are too narrow"
    if abs(mean - 0.5) > abs(central - 0.5):
        how = "are too low" if mean > 0.5 else "are too high"
    if max(abs(mean - 0.5), abs(central - 0.5)) < SMALLEST_SHIFT:
        how = "have another shape than the rows"
    return (
        f"Predictions of {name} {how}{at}: {100 * central:.0f} % of the held-out rows lie in "
        f"their central half, and {below:.0f} % below their median."
    )


def _context_bins(ranks: Ranks, uniform: dict[str, FloatArray]) -> Iterator[ContextBin]:
    n = len(ranks.context)
    for j, context in enumerate(ranks.context_columns):
        home = _slices(ranks.context[:, j], min(CONTEXT_BINS, max(1, n // 25)))
        for inside in (np.flatnonzero(home == part) for part in range(home.max() + 1)):
            values, shares = ranks.context[inside, j], None
            if ranks.weights is not None:
                shares = ranks.weights[inside]
            for name in ranks.columns:
                u = uniform[name][inside]
                central = float(np.average(np.abs(u - 0.5) <= 0.25, weights=shares))
                mean = float(np.average(u, weights=shares))
                ends = float(values.min()), float(values.max())
                yield ContextBin(name, context, *ends, len(inside), central, mean)
