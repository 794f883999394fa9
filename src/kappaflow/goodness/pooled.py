"""`Pooled`: held-out rows and samples of a flow, side by side, with their log_prob."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from kappaflow.conditioning.round_trip import latent_points
from kappaflow.data.naming import BoolArray
from kappaflow.data.rounding import COARSE, resolution
from kappaflow.errors import NumericalError
from kappaflow.flows import Flow
from kappaflow.foreign import Wrapped
from kappaflow.goodness.deviation import Bounds
from kappaflow.goodness.inputs import Inputs
from kappaflow.goodness.scan import FloatArray, IntArray, Pool

MOST_ROWS = 20_000  # held-out rows that are compared; more are left out at random
SAMPLES_PER_ROW, FEWEST_SAMPLES, MOST_SAMPLES = 10, 5_000, 50_000
STREAM = 0x5851F42D4C95
SCORE_DECIMALS = 3  # of log_prob, in nats
AT_ONCE = 8_192  # rows that a flow takes at a time
MANY_TIES = 0.02  # share of values that repeat, above which a column is compared on its grid


@dataclass(frozen=True, eq=False)
class Pooled:
    """Held-out rows and samples of a flow, in the units of the data."""

    columns: tuple[str, ...]  # names of the columns
    rows: FloatArray  # held-out rows, (n, D)
    samples: FloatArray  # samples, (m, D); of a conditional flow m / n for the context of each row
    context_columns: tuple[str, ...] = ()  # names of the columns of the context
    context: FloatArray | None = None  # context of each row, (n, C)
    owners: IntArray | None = None  # the row whose context each sample has, (m,)
    # Weights of the rows with mean 1, (n,); None if all are equal
    weights: FloatArray | None = None
    # log_prob and latents of rows, then samples, (n + m, 1 + D); None if log_prob is not exact
    encoded: FloatArray | None = None
    # The grids of columns of rounded values, which have noise as wide as a step
    grids: "Grids" = field(default_factory=dict)
    _orders: dict[int, IntArray] = field(default_factory=dict, repr=False)

    @cached_property
    def pool(self) -> Pool:
        """The numbers and weights of rows and samples."""
        return Pool(len(self.rows), len(self.samples), self.weights)

    @cached_property
    def features(self) -> FloatArray:
        """Rows, then samples, with their context: (n + m, D + C)."""
        features = np.concatenate([self.rows, self.samples])
        if self.context is None or self.owners is None:
            return features
        return np.hstack([features, np.concatenate([self.context, self.context[self.owners]])])

    @property
    def scores(self) -> FloatArray | None:
        """log_prob of rows, then samples, (n + m,)."""
        return None if self.encoded is None else self.encoded[:, 0]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns of `features`."""
        return (*self.columns, *self.context_columns)

    def ordered(self, feature: int) -> IntArray:
        """Returns the order of rows and samples by a column; that of equal values is random."""
        if feature not in self._orders:
            self._orders[feature] = self.order_of(self.features[:, feature])
        return self._orders[feature]

    def rounded(self, name: str, bounds: Bounds) -> Bounds:
        """Returns the least and the largest value of the grid of a column inside of a region."""
        grid = self.grids.get(self.names.index(name)) if name in self.columns else None
        if grid is None:
            return bounds
        start, step = grid
        low, high = ((end - start) / step for end in bounds)
        first, last = np.ceil(low), np.floor(high)
        if first > last:  # the region is inside of the noise of a value
            first = last = np.rint((low + high) / 2)
        return float(start + step * first), float(start + step * last)

    def shares(self, names: Sequence[str], region: Sequence[Bounds]) -> tuple[float, float] | None:
        """Returns the shares of rows and of samples in a region of rounded columns, with its ends.

        None if no column is rounded: the cells of a scan are then the region.
        """
        features = [self.names.index(name) for name in names if name in self.names]
        if not any(feature in self.grids for feature in features):
            return None
        inside = np.ones(self.pool.size, dtype=np.bool_)
        for feature, (low, high) in zip(features, region, strict=True):
            half = self.grids[feature][1] / 2 if feature in self.grids else 0.0
            values = self.features[:, feature]
            inside &= (values >= low - half) & (values <= high + half)
        n = self.pool.rows
        weights = np.ones(n) if self.weights is None else self.weights
        return float(np.average(inside[:n], weights=weights)), float(inside[n:].mean())

    def order_of(self, values: FloatArray) -> IntArray:
        """Returns the order of rows and samples by a value of each; equal ones are mixed."""
        return np.lexsort((np.random.default_rng(0).random(self.pool.size), values))

    def positions(self, feature: int) -> IntArray:
        """Returns the position of each row and sample in the order by a column."""
        positions = np.empty(self.pool.size, dtype=np.int64)
        positions[self.ordered(feature)] = np.arange(self.pool.size)
        return positions


Grids = dict[int, tuple[float, float]]  # by column: a value, and the step of rounding


def grids_of(rows: FloatArray) -> Grids:
    """Returns the grids of the columns of rounded values, of which many repeat."""
    grids = {}
    for j, column in enumerate(rows.T):
        repeated = 1 - len(np.unique(column)) / len(column)
        step = resolution(column) if repeated > MANY_TIES else None
        if step is not None:
            grids[j] = (float(column[0]), step)
    return grids


def on_grids(values: FloatArray, grids: Grids, rng: np.random.Generator) -> FloatArray:
    """Returns values rounded to the grids, with uniform noise as wide as a step.

    The difference between a rounded number and a real one is then no difference. That whole
    numbers are modeled as real ones is a finding on the data.
    """
    values = values.copy()
    for j, (start, step) in grids.items():
        steps = np.rint((values[:, j] - start) / step)
        values[:, j] = start + step * (steps + rng.uniform(-0.5, 0.5, len(values)))
    return values


@torch.no_grad()
def pooled(flow: Flow, inputs: Inputs, limit: int | None = None, seed: int = 0) -> Pooled:
    """Returns held-out rows and at least as many samples of a flow of tables, with log_prob.

    Rounded columns are put on their grids. `limit` is the most rows and the most samples.
    """
    generator = stream(seed)
    x, context, weights = inputs.x, inputs.context, inputs.weights
    if len(x) > (limit or MOST_ROWS):
        index = torch.randperm(len(x), generator=generator)[: limit or MOST_ROWS]
        x, context = x[index], None if context is None else context[index]
        weights = None if weights is None else weights[index.numpy()]
    number = min(limit or MOST_SAMPLES, max(FEWEST_SAMPLES, SAMPLES_PER_ROW * len(x)))
    owners = None if context is None else owners_of(len(x), number, weights, seed)
    contexts = None if context is None else context[owners]
    samples = samples_of(flow, number if contexts is None else len(contexts), contexts, generator)
    _require_finite(samples, "samples are not finite")
    samples = inputs.like_rows(flow, samples)
    encoded = None
    if has_log_prob(flow):
        parts = (encoded_by(flow, x, context), encoded_by(flow, samples, contexts))
        encoded = np.concatenate(parts)
    rng = np.random.default_rng(seed)
    grids = grids_of(to_array(x))
    return Pooled(
        columns=inputs.names,
        rows=on_grids(to_array(x), grids, rng),
        samples=on_grids(to_array(samples), grids, rng),
        context_columns=inputs.context_names,
        context=None if context is None else to_array(context),
        owners=owners,
        weights=None if weights is None else weights / weights.mean(),
        encoded=None if is_coarse(to_array(x), grids) else encoded,
        grids=grids,
    )


def has_log_prob(flow: Flow) -> bool:
    """Returns whether a flow has a log_prob of rows, or a bound of it, without augmentation."""
    return flow.likelihood != "joint" and flow.augment is None


def owners_of(rows: int, number: int, weights: FloatArray | None, seed: int = 0) -> IntArray:
    """Returns the row of each sample: about `number`, as many for each row, or by its weight."""
    number = rows * max(1, round(number / rows))
    if weights is None:
        return np.arange(number) % rows
    rng = np.random.default_rng([seed, rows])
    ends = np.cumsum(weights) / weights.sum()
    owners = np.searchsorted(ends[:-1], (np.arange(number) + rng.random()) / number)
    return rng.permutation(owners)


def is_coarse(rows: FloatArray, grids: Grids) -> bool:
    """Returns whether a flow can resolve the grid of a column, and put density on its values."""
    return any(step > COARSE * rows[:, j].std() for j, (_, step) in grids.items())


def stream(seed: int, number: int = 0) -> torch.Generator:
    """Returns a generator whose numbers are not those of rows made with the same small seed."""
    return torch.Generator().manual_seed(STREAM + 2**20 * number + seed)


@torch.no_grad()
def samples_of(
    flow: Flow, number: int, contexts: Tensor | None, generator: torch.Generator
) -> Tensor:
    """Returns samples in the units of the data, one for each context if there are any."""
    results = []
    for start in range(0, number, AT_ONCE):
        count = min(AT_ONCE, number - start)
        part = None if contexts is None else contexts[start : start + count]
        results.append(_sample(flow, count, part, generator))
    return torch.cat(results)


def _sample(flow: Flow, count: int, context: Tensor | None, generator: torch.Generator) -> Tensor:
    if isinstance(flow, Wrapped):
        own = flow.own_sample(count, context, generator=generator)
        if own is not None:
            return own[0]
        return flow.bijection.inverse(latent_points(flow, count, context, generator), context)[0]
    if context is None:
        return flow.sample(count, generator=generator)
    return flow.sample(1, context, generator=generator)[0]


@torch.no_grad()
def encoded_by(flow: Flow, x: Tensor, context: Tensor | None) -> FloatArray:
    """Returns log_prob and latents of rows, (n, 1 + D)."""
    contexts = [None] * len(x) if context is None else context.split(AT_ONCE)
    results = []
    for rows, part in zip(x.split(AT_ONCE), contexts, strict=False):
        z, log_det = flow.bijection(rows, part)
        log_prob = to_array(flow.base.log_prob(z, part) + log_det)
        # rounding errors, which are all that differs if the density is constant, say nothing
        log_prob = np.round(log_prob, SCORE_DECIMALS)
        results.append(np.column_stack([log_prob, to_array(z)]))
    encoded = np.concatenate(results)
    _require_finite(encoded, "rows and samples have a log_prob or latents that are not finite")
    return encoded


def _require_finite(values: Tensor | FloatArray, problem: str) -> None:
    """Raises NumericalError if a row of samples or latents is not finite."""
    array = values if isinstance(values, np.ndarray) else to_array(values)
    finite: BoolArray = np.logical_and.reduce(np.isfinite(array), axis=1)
    if not finite.all():
        raise NumericalError(f"{int((~finite).sum()):,} of {len(finite):,} {problem}.")


def to_array(values: Tensor) -> FloatArray:
    """Returns a tensor as an array in float64."""
    return values.detach().double().cpu().numpy()
