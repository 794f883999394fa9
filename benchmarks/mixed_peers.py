"""Densities of mixed columns by other means: noise by hand, and mixtures by label."""

import time
import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import polars as pl
from scipy import special, stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from benchmarks.mixed_known import KnownTable, Labels, Values
from benchmarks.tables_suite.ours import default_density

LogProb = Callable[[pl.DataFrame], Values]
DRAWS = 64  # of the noise, for each row
LEAST_ROWS = 60  # of a combination of labels that gets a mixture of its own
COMPONENTS = (1, 2, 3, 5, 8, 12)
PER_COMPONENT = 20  # rows, at least


class Cells:
    """Rows as numbers with noise: a density is the mean over the noise.

    Counts get uniform noise. With `codes`, so do codes of labels, and a zero among continuous
    numbers becomes a number between -w and 0, where w is the standard deviation of the column.
    Without, labels are left out, and a normal number takes the place of a zero.
    """

    def __init__(self, table: KnownTable, train: pl.DataFrame, *, codes: bool) -> None:
        self.table, self.codes = table, codes
        self.widths = {
            name: float(train[name].to_numpy().std())
            for name, column in table.columns.items()
            if not isinstance(column, Labels) and column.zeros and column.kind == "continuous"
        }

    def labels(self, frame: pl.DataFrame) -> list[tuple[object, ...]]:
        """Returns the labels of each row, and which continuous numbers are zero."""
        names = [name for name, of in self.table.columns.items() if isinstance(of, Labels)]
        return frame.select(*names, *(pl.col(name) == 0 for name in self.widths)).rows()

    def numbers(self, frame: pl.DataFrame, rng: np.random.Generator) -> tuple[Values, Values]:
        """Returns rows with new noise, and the log-density of the noise in the place of zeros."""
        columns, log_q = [], np.zeros(len(frame))
        for name, column in self.table.columns.items():
            noise, normal = rng.random(len(frame)), rng.standard_normal(len(frame))
            values = frame[name].to_numpy()
            if isinstance(column, Labels):
                if self.codes:
                    order = {label: code for code, label in enumerate(column.labels)}
                    columns.append(frame[name].replace_strict(order).to_numpy() + noise)
            elif column.kind == "count":
                columns.append(values + noise)
            elif name in self.widths:
                width = self.widths[name]
                columns.append(np.where(values, values, -width * noise if self.codes else normal))
                log_q -= (values == 0) * (
                    np.log(width) if self.codes else -stats.norm.logpdf(normal)
                )
            else:
                columns.append(values)
        return np.stack(columns, 1), log_q

    def mean_density(self, frame: pl.DataFrame, log_prob: Callable[[Values], Values]) -> Values:
        """Returns log p of each row, the mean of the density over draws of the noise."""
        rng, parts = np.random.default_rng(1), []
        for _ in range(DRAWS):
            rows, log_q = self.numbers(frame, rng)
            parts.append(log_prob(rows) - log_q)
        return special.logsumexp(parts, 0) - np.log(DRAWS)


def noise_by_hand(table: KnownTable, train: pl.DataFrame, seconds: float, seed: int) -> LogProb:
    """Fits `kf.fit_auto` to codes of labels, counts and zeros with uniform noise."""
    cells = Cells(table, train, codes=True)
    rows, _ = cells.numbers(train, np.random.default_rng(seed))
    names = [f"x{number}" for number in range(rows.shape[1])]
    density = default_density(rows, names, seconds, seed)
    return partial(cells.mean_density, log_prob=density.log_prob)


def mixtures(table: KnownTable, train: pl.DataFrame, seconds: float, seed: int) -> LogProb:
    """Fits a mixture of normals to the numbers of each combination of labels, chosen by BIC.

    Combinations of few rows have that of all rows. Their shares are those of the training rows
    plus one.
    """
    cells, keys = Cells(table, train, codes=False), Cells(table, train, codes=False).labels(train)
    rows, _ = cells.numbers(train, np.random.default_rng(seed))
    groups: dict[object, list[int]] = {}
    for row, key in enumerate(keys):
        groups.setdefault(key, []).append(row)
    possible = np.prod([len(set(column)) for column in zip(*keys, strict=True)])
    large = [key for key, members in groups.items() if len(members) >= LEAST_ROWS]
    until, fits = time.process_time() + seconds, {}
    for number, key in enumerate([None, *large]):
        members = groups.get(key, [*range(len(rows))])
        now = time.process_time()
        fits[key] = _mixture(rows[members], now + (until - now) / (len(large) + 1 - number))

    def log_prob(frame: pl.DataFrame) -> Values:
        new, result = cells.labels(frame), np.empty(len(frame))
        for key in set(new):
            members = [row for row, other in enumerate(new) if other == key]
            share = (len(groups.get(key, ())) + 1) / (len(train) + possible)
            density = fits.get(key, fits[None]).score_samples
            result[members] = np.log(share) + cells.mean_density(frame[members], density)
        return result

    return log_prob


def _mixture(rows: Values, until: float) -> GaussianMixture:
    """Returns the mixture with the lowest BIC that can be fitted until a processor time."""
    models: list[GaussianMixture] = []
    for components in COMPONENTS:
        if models and (components * PER_COMPONENT > len(rows) or time.process_time() > until):
            break
        model = GaussianMixture(components, reg_covar=1e-3 * rows.var(0).min() + 1e-9)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            models.append(model.fit(rows))
    return min(models, key=lambda model: model.bic(rows))
