"""Tables of known distribution: labels, counts, zeros and numbers; and numbers with gaps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from scipy import special, stats

Values = np.ndarray
Columns = dict[str, Values]
Given = Callable[[Columns], Any]  # of the columns before


@dataclass(frozen=True)
class Labels:
    """A column of texts with shares (n, K) given the columns before."""

    labels: tuple[str, ...]
    shares: Given

    def sample(self, before: Columns, rng: np.random.Generator) -> Values:
        """Returns a label for each row."""
        shares = self.shares(before)
        codes = (rng.random((len(shares), 1)) > shares.cumsum(1)).sum(1)
        return np.array(self.labels)[codes.clip(max=len(self.labels) - 1)]

    def log_prob(self, values: Values, before: Columns) -> Values:
        """Returns log p of labels given the columns before."""
        codes = np.array([self.labels.index(value) for value in values])
        return np.log(self.shares(before)[np.arange(len(codes)), codes])


@dataclass(frozen=True)
class Numbers:
    """A column with a distribution of scipy given the columns before, 0 in a share of the rows."""

    given: Given
    kind: Literal["count", "continuous"] = "continuous"
    zeros: Given | None = None

    def sample(self, before: Columns, rng: np.random.Generator) -> Values:
        """Returns a number for each row."""
        values = self.given(before).rvs(size=len(before[""]), random_state=rng)
        if self.zeros is not None:
            values = np.where(rng.random(len(values)) < self.zeros(before), 0, values)
        return values.astype(np.int64) if self.kind == "count" else values

    def log_prob(self, values: Values, before: Columns) -> Values:
        """Returns log p given the columns before: a density, or that of a count or a 0."""
        distribution = self.given(before)
        log_p = (distribution.logpmf if self.kind == "count" else distribution.logpdf)(values)
        if self.zeros is None:
            return log_p
        share = self.zeros(before)
        of_zero = np.where(values == 0, np.log(share), -np.inf)
        return np.logaddexp(np.log1p(-share) + log_p, of_zero)


@dataclass(frozen=True)
class KnownTable:
    """A table whose columns have known distributions given the columns before."""

    columns: Mapping[str, Labels | Numbers]

    def sample(self, n: int, rng: np.random.Generator) -> pl.DataFrame:
        """Returns n rows."""
        table: Columns = {"": np.zeros(n)}
        for name, column in self.columns.items():
            table[name] = column.sample(table, rng)
        return pl.DataFrame({name: table[name] for name in self.columns})

    def log_prob(self, frame: pl.DataFrame) -> Values:
        """Returns log p of each row in nats."""
        table = {"": np.zeros(len(frame))} | {
            name: frame[name].to_numpy() for name in self.columns
        }
        return sum(
            (column.log_prob(table[name], table) for name, column in self.columns.items()),
            np.zeros(len(frame)),
        )


def of(column: str, **values: Any) -> Given:  # noqa: ANN401
    """Returns a number, or a row of them, for the value of a column before."""
    return lambda before: np.array([values[str(value)] for value in before[column]])


def logits(*terms: Given | Values) -> Given:
    """Returns shares whose logits are sums of rows, or of functions of the columns before."""

    def shares(before: Columns) -> Values:
        rows = [term(before) if callable(term) else term for term in terms]
        return special.softmax(sum(rows, np.zeros((len(before[""]), 1))), axis=1)

    return shares


REGION = Labels(("east", "north", "south", "west"), logits(np.array([0, 1, 0.5, -0.7])))
MEMBER = Labels(
    ("no", "yes"), logits(of("region", east=(0, 1), north=(0, -1), south=(0, 0), west=(0, 2)))
)
_RATE = of("region", east=30.0, north=60.0, south=120.0, west=400.0)
_INCOME = of("region", east=3.0, north=2.4, south=3.3, west=2.0)
_PRODUCTS = tuple(f"product {letter}" for letter in "ABCDEFGH")
KNOWN: dict[str, KnownTable] = {
    "labels and counts": KnownTable(
        {
            "region": REGION,
            "member": MEMBER,
            "plan": Labels(
                ("basic", "large", "small"),
                logits(
                    of("member", no=(1, -1, 0), yes=(-1, 1, 0)),
                    of(
                        "region",
                        east=(0, 0, 0),
                        north=(1, 0, 0),
                        south=(0, 1, 0),
                        west=(0, 0, 1.5),
                    ),
                ),
            ),
            "calls": Numbers(
                lambda b: stats.poisson(of("plan", basic=0.5, large=3.0, small=1.0)(b)), "count"
            ),
            "days": Numbers(
                lambda b: stats.poisson(
                    of("member", no=6.0, yes=12.0)(b) + of("plan", basic=0, large=6, small=2)(b)
                ),
                "count",
            ),
            "visits": Numbers(
                lambda b: stats.poisson(_RATE(b) * of("member", no=1.0, yes=2.0)(b)), "count"
            ),
            "returns": Numbers(lambda b: stats.poisson(0.1 * b["visits"]), "count"),
        },
    ),
    "zeros": KnownTable(
        {
            "region": REGION,
            "member": MEMBER,
            "visits": Numbers(lambda b: stats.poisson(of("member", no=0.8, yes=2.5)(b)), "count"),
            "age": Numbers(
                lambda b: stats.norm(of("member", no=35.0, yes=50.0)(b), 8.0 + b["visits"])
            ),
            "income": Numbers(lambda b: stats.lognorm(0.5, 0, np.exp(_INCOME(b) + b["age"] / 80))),
            "spent": Numbers(
                lambda b: stats.gamma(2.0, 0, 0.05 * b["income"]),
                zeros=lambda b: np.exp(-0.3 - 0.6 * b["visits"]),
            ),
            "donated": Numbers(
                lambda b: stats.lognorm(0.7, 0, 0.01 * b["income"]),
                zeros=of("region", east=0.4, north=0.9, south=0.6, west=0.2),
            ),
        },
    ),
    "orders": KnownTable(
        {
            "product": Labels(
                _PRODUCTS, logits(np.array([2.4, 1.8, 1.3, 0.8, 0.3, -0.5, -1.2, -2]))
            ),
            "paid": Labels(
                ("card", "cash"),
                lambda b: np.array([0.2 + 0.08 * _letter(b), 0.8 - 0.08 * _letter(b)]).T,
            ),
            "pieces": Numbers(
                lambda b: stats.poisson(15.0 + 5 * _letter(b)), "count", lambda b: 0.3 + 0 * b[""]
            ),
            "stock": Numbers(lambda b: stats.poisson(20.0 * 10 ** (_letter(b) * 2 / 7)), "count"),
            "weight": Numbers(lambda b: stats.norm(0.1 * b["pieces"] + _letter(b), 0.3)),
            "price": Numbers(
                lambda b: stats.lognorm(0.3, 0, 5.0 + b["weight"] ** 2 + 3 * (b["paid"] == "card"))
            ),
        },
    ),
}


def _letter(before: Columns) -> Values:
    """Returns the number of the product, 0 to 7."""
    return np.array([_PRODUCTS.index(value) for value in before["product"]], dtype=np.float64)


@dataclass(frozen=True)
class Gaps:
    """A mixture of K normals with equal shares, in D columns, of whose values 20 % are missing.

    They are missing completely at random, or more often where the first column is large, which
    then has no gaps.
    """

    means: Values  # (K, D)
    covariances: Values  # (K, D, D)
    by_first: bool

    def sample(self, n: int, rng: np.random.Generator) -> Values:
        """Returns n complete rows (n, D)."""
        parts = len(self.means)
        which = rng.choice(parts, n, p=np.full(parts, 1 / parts))
        roots = np.linalg.cholesky(self.covariances)[which]
        noise = rng.standard_normal((n, self.means.shape[1], 1))
        return self.means[which] + (roots @ noise)[..., 0]

    def with_gaps(self, rows: Values, rng: np.random.Generator) -> Values:
        """Returns the rows with NaN in the place of 20 % of the values that can be missing."""
        share = np.full(rows.shape, 0.2)
        if self.by_first:
            x = (rows[:, :1] - rows[:, 0].mean()) / rows[:, 0].std()
            share = 0.4 * special.expit(2 * x) * np.ones_like(rows)
            share[:, 0] = 0.0
        return np.where(rng.random(rows.shape) < share, np.nan, rows)

    def log_prob(self, rows: Values) -> Values:
        """Returns the log-density of the values of each row that are there."""
        result = np.zeros(len(rows))
        patterns, index = np.unique(np.isnan(rows), axis=0, return_inverse=True)
        for number, gone in enumerate(patterns):
            if gone.all():
                continue
            there, members = np.flatnonzero(~gone), index.ravel() == number
            x, log_p = rows[members][:, there], []
            for mean, covariance in zip(self.means, self.covariances, strict=True):
                part = covariance[np.ix_(there, there)]
                log_p.append(stats.multivariate_normal(mean[there], part).logpdf(x))
            result[members] = special.logsumexp(np.stack(log_p), 0) - np.log(len(log_p))
        return result


def _gaps(parts: int, columns: int, seed: int, *, by_first: bool) -> Gaps:
    """Returns random normals of standard deviations of about 1, whose means are apart."""
    rng = np.random.default_rng(seed)
    roots = rng.normal(size=(parts, columns, columns)) / np.sqrt(columns)
    covariances = roots @ roots.transpose(0, 2, 1) + 0.1 * np.eye(columns)
    return Gaps(rng.uniform(-3, 3, (parts, columns)) * (parts > 1), covariances, by_first)


GAPS = {"normal": _gaps(1, 5, 31, by_first=False), "mixture": _gaps(3, 4, 32, by_first=True)}
