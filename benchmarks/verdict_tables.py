"""Tables of known density on which the verdict of the doctor is tested."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Rows = NDArray[np.float64]
CELL_POINTS = 16  # uniform draws from the cell of a whole number


@dataclass(frozen=True)
class Density:
    """A density with exact samples.

    Attributes:
        sample: Returns n rows, (n, columns), from a generator of random numbers.
        log_prob: Returns the log-density of rows in nats, (n,).
    """

    sample: Callable[[int, np.random.Generator], Rows]
    log_prob: Callable[[Rows], Rows]


FrozenDistribution = Any  # of scipy, whose classes of discrete and continuous ones differ


def product(*columns: FrozenDistribution) -> Density:
    """Returns independent columns."""

    def sample(n: int, rng: np.random.Generator) -> Rows:
        return np.stack([column.rvs(n, random_state=rng) for column in columns], 1).astype(float)

    def log_prob(rows: Rows) -> Rows:
        logs = [
            column.logpmf(x) if hasattr(column.dist, "logpmf") else column.logpdf(x)
            for column, x in zip(columns, rows.T, strict=True)
        ]
        return np.sum(logs, 0)

    return Density(sample, log_prob)


def mixture(*parts: tuple[float, Density]) -> Density:
    """Returns a mixture of densities with these shares."""
    shares = np.array([share for share, _ in parts])

    def sample(n: int, rng: np.random.Generator) -> Rows:
        counts = rng.multinomial(n, shares)
        rows = [part.sample(k, rng) for k, (_, part) in zip(counts, parts, strict=True)]
        return rng.permutation(np.concatenate(rows))

    def log_prob(rows: Rows) -> Rows:
        logs = [math.log(share) + part.log_prob(rows) for share, part in parts]
        return np.logaddexp.reduce(logs, 0)

    return Density(sample, log_prob)


def joined(first: Density, second: Density, width: int) -> Density:
    """Returns the first `width` columns by one density and the others by another."""
    return Density(
        lambda n, rng: np.hstack([first.sample(n, rng), second.sample(n, rng)]),
        lambda rows: first.log_prob(rows[:, :width]) + second.log_prob(rows[:, width:]),
    )


Step = Callable[[Rows], tuple[Rows | float, Rows | float]]


def triangular(density: Density, steps: dict[int, Step]) -> Density:
    """Returns a density whose column j is scaled and shifted as the columns before it say.

    `steps[j]` maps the columns before j to the scale and the shift.
    """

    def sample(n: int, rng: np.random.Generator) -> Rows:
        rows = density.sample(n, rng)
        for j in sorted(steps):
            scale, shift = steps[j](rows[:, :j])
            rows[:, j] = rows[:, j] * scale + shift
        return rows

    def log_prob(rows: Rows) -> Rows:
        z, log_det = rows.copy(), np.zeros(len(rows))
        for j, step in steps.items():
            scale, shift = step(rows[:, :j])
            z[:, j] = (rows[:, j] - shift) / scale
            log_det -= np.log(scale)
        return density.log_prob(z) + log_det

    return Density(sample, log_prob)


def mixed(density: Density, seed: int, columns: int) -> Density:
    """Returns the density after a random linear map of condition number 5."""
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.normal(size=(columns, columns)))[0] for _ in range(2))
    matrix = left * np.geomspace(0.5, 2.5, columns) @ right
    inverse, log_det = np.linalg.inv(matrix), np.linalg.slogdet(matrix)[1]
    return Density(
        lambda n, rng: density.sample(n, rng) @ matrix.T,
        lambda rows: density.log_prob(rows @ inverse.T) - log_det,
    )


def rings(*radii: float, noise: float) -> Density:
    """Returns rings on the plane, with equal shares and a normal radius."""

    def radius(center: float) -> FrozenDistribution:
        return stats.norm(center, noise)

    def sample(n: int, rng: np.random.Generator) -> Rows:
        r = np.abs(rng.choice(radii, n) + noise * rng.standard_normal(n))
        angle = rng.uniform(-np.pi, np.pi, n)
        return np.stack([r * np.cos(angle), r * np.sin(angle)], 1)

    def log_prob(rows: Rows) -> Rows:
        r = np.hypot(*rows.T)
        logs = [np.logaddexp(radius(c).logpdf(r), radius(c).logpdf(-r)) for c in radii]
        return np.logaddexp.reduce(logs, 0) - np.log(len(radii) * 2 * np.pi * r)

    return Density(sample, log_prob)


def degrees(concentration: float) -> Density:
    """Returns an angle in degrees, from 0 to 360, with most of its mass at both ends."""
    angle: FrozenDistribution = stats.vonmises(concentration)
    return Density(
        lambda n, rng: np.rad2deg(angle.rvs(n, random_state=rng))[:, None] % 360,
        lambda rows: angle.logpdf(np.deg2rad(rows[:, 0])) + math.log(math.pi / 180),
    )


def bent(columns: int, seed: int) -> Density:
    """Returns normal columns that bend, spread and follow one another, then mixed linearly."""
    rng = np.random.default_rng(seed)
    a, b, c = rng.normal(size=(3, columns))

    def step(j: int, before: Rows) -> tuple[Rows, Rows]:
        x = before[:, j - 1]
        return np.exp(0.4 * np.tanh(a[j] * x)), 0.7 * np.sin(b[j] * x) + 0.3 * c[j] * x

    normals = product(*[stats.norm()] * columns)
    return mixed(
        triangular(normals, {j: partial(step, j) for j in range(1, columns)}), seed, columns
    )


def normals(columns: int, mean: float = 0.0, deviation: float = 1.0) -> Density:
    """Returns independent normal columns."""
    return product(*[stats.norm(mean, deviation)] * columns)


@dataclass(frozen=True)
class VerdictTable:
    """A table of known density.

    Attributes:
        about: Description for the page.
        density: The density of the rows; of the columns after the context given them.
        context: Number of columns that are context, the first ones, and their distribution.
        options: Options of the data for the good fit, such as bounds.
        whole: Columns of whole numbers, by position.
    """

    about: str
    density: Density
    rows: int = 20_000
    context: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    whole: Sequence[int] = ()

    def cells_log_prob(self, log_prob: Callable[[Rows], Rows], rows: Rows) -> Rows:
        """Returns the log-probability of the cells around whole numbers under a density."""
        if not self.whole:
            return log_prob(rows)
        rng = np.random.default_rng(0)
        logs = []
        for _ in range(CELL_POINTS):
            moved = rows.copy()
            moved[:, self.whole] += rng.uniform(-0.5, 0.5, (len(rows), len(self.whole)))
            logs.append(log_prob(moved))
        return np.logaddexp.reduce(logs, 0) - math.log(CELL_POINTS)


def _given(context: Density, width: int, others: Density, steps: dict[int, Step]) -> Density:
    """Returns contexts with columns given them; log_prob is that of the columns alone."""
    together = triangular(joined(context, others, width), steps)
    return Density(
        together.sample, lambda rows: together.log_prob(rows) - context.log_prob(rows[:, :width])
    )


def _branches(context: Density, curves: Sequence[Callable[[Rows], Rows]], noise: float) -> Density:
    """Returns a column that follows one of several curves of the context."""
    branch = [
        _given(context, 1, product(stats.norm(0, noise)), {1: lambda c, f=f: (1.0, f(c[:, 0]))})
        for f in curves
    ]
    return mixture(*[(1 / len(curves), part) for part in branch])


UNIT, SPAN = product(stats.uniform()), product(stats.uniform(-1, 2))
MODES = [(0.35, -2, 0.5), (0.25, 2, 0.3), (0.2, 0, 0.4), (0.15, 4, 0.3), (0.05, -4, 0.2)]
EIGHT = [(3 * math.cos(k * math.pi / 4), 3 * math.sin(k * math.pi / 4)) for k in range(8)]
BANANA = triangular(
    normals(4),
    {1: lambda z: (1.0, z[:, 0] ** 2 - 1), 3: lambda z: (0.5, 1 - z[:, 2] ** 2)},
)

# The thresholds of the verdict were chosen on these tables.
DEVELOPMENT: dict[str, VerdictTable] = {
    "line": VerdictTable(
        "5 % of the rows in a line of width 0.05 on a range of 200",
        mixture(
            (0.95, product(stats.uniform(0, 200), stats.norm())),
            (0.05, product(stats.norm(91.2, 0.05), stats.norm(0.5, 0.7))),
        ),
    ),
    "edge": VerdictTable(
        "an exponential above 1, and a column that follows it",
        triangular(
            product(stats.expon(1), stats.norm()), {1: lambda x: (0.5, np.log(x[:, 0]))}
        ),
        options={"bounds": ["x1=1,"]},
    ),
    "angle": VerdictTable(
        "an angle with mass at both ends, and a normal column",
        product(stats.vonmises(0.7, loc=np.pi), stats.norm()),
        options={"bounds": ["x1=circular"]},
    ),
    "tails": VerdictTable(
        "two columns of Student's t with 3 degrees of freedom, linearly dependent",
        triangular(product(stats.t(3), stats.t(3)), {1: lambda x: (0.5, 0.8 * x[:, 0])}),
    ),
    "counts": VerdictTable(
        "Poisson counts of mean 3, and a column that follows them",
        triangular(product(stats.poisson(3), stats.norm()), {1: lambda x: (1.0, 0.3 * x[:, 0])}),
        options={"repair": "dequantize"},
        whole=(0,),
    ),
    "cluster": VerdictTable(
        "1 % of the rows in a small cluster, 3 columns",
        mixture((0.99, normals(3)), (0.01, normals(3, 4.0, 0.1))),
    ),
    "width": VerdictTable(
        "a column whose width grows by a factor of 55 with its context",
        _given(UNIT, 1, product(stats.norm()), {1: lambda c: (np.exp(4 * c[:, 0]), c[:, 0])}),
        context=1,
    ),
    "branches": VerdictTable(
        "a column that follows one of two curves of its context",
        _branches(SPAN, [lambda c: c + 1.5, lambda c: -c - 0.5], 0.1),
        context=1,
    ),
    "modes": VerdictTable(
        "five modes in 3 columns",
        mixture(*[(share, normals(3, mean, dev)) for share, mean, dev in MODES]),
    ),
    "rings": VerdictTable("two rings", rings(1.0, 2.0, noise=0.1)),
    "banana": VerdictTable("two bent pairs of columns", BANANA),
    "normal 10": VerdictTable("10 correlated normal columns", mixed(normals(10), 1, 10)),
    "bent 8": VerdictTable("8 columns that bend and spread", bent(8, 2)),
    "banana, 500 rows": VerdictTable("two bent pairs of columns", BANANA, rows=500),
    "bent 6, 2,000 rows": VerdictTable("6 columns that bend and spread", bent(6, 3), rows=2_000),
    "modes, 100,000 rows": VerdictTable(
        "five modes in 3 columns",
        mixture(*[(share, normals(3, mean, dev)) for share, mean, dev in MODES]),
        rows=100_000,
    ),
}  # fmt: skip

# Judged once, with the thresholds that the development tables gave.
JUDGED: dict[str, VerdictTable] = {
    "two lines": VerdictTable(
        "lines of 2 % and 4 % on a falling background, 3 columns",
        mixture(
            (0.94, product(stats.expon(0, 50), stats.norm(), stats.norm())),
            (0.02, product(stats.norm(30, 0.1), stats.norm(1, 0.5), stats.norm(-1, 0.5))),
            (0.04, product(stats.norm(120, 0.4), stats.norm(0, 0.5), stats.norm(1, 0.5))),
        ),
        options={"bounds": ["x1=positive"]},
    ),
    "cut": VerdictTable(
        "a normal column cut off at 0.5, a share between 0 and 1, and a normal column",
        product(stats.truncnorm(0.5, np.inf), stats.beta(1, 2), stats.norm()),
        options={"bounds": ["x1=0.5,", "x2=0,1"]},
    ),
    "azimuth": VerdictTable(
        "an azimuth from 0 to 360, and an exponential",
        joined(degrees(1.5), product(stats.expon()), 1),
        options={"bounds": ["x1=circular:0,360", "x2=positive"]},
    ),
    "heavy tails": VerdictTable(
        "Student's t with 1.5 and 2.5 degrees of freedom, and a normal column",
        product(stats.t(1.5), stats.t(2.5), stats.norm()),
    ),
    "lognormal": VerdictTable(
        "two lognormal columns",
        product(stats.lognorm(1.5), stats.lognorm(0.7)),
        options={"bounds": ["x1=positive", "x2=positive"]},
    ),
    "more counts": VerdictTable(
        "geometric and binomial counts, and a normal column",
        triangular(
            product(stats.geom(0.3), stats.binom(20, 0.4), stats.norm()),
            {2: lambda x: (1.0, 0.2 * x[:, 1])},
        ),
        options={"repair": "dequantize"},
        whole=(0, 1),
    ),
    "small cluster": VerdictTable(
        "1.5 % of the rows in a small cluster, 5 columns",
        mixture((0.985, mixed(normals(5), 4, 5)), (0.015, normals(5, 3.0, 0.2))),
    ),
    "widths": VerdictTable(
        "2 columns whose widths depend on 2 contexts",
        _given(
            product(stats.uniform(), stats.norm()),
            2,
            normals(2),
            {
                2: lambda c: (np.exp(3 * c[:, 0]), c[:, 1]),
                3: lambda c: (np.exp(-c[:, 1]), np.sin(3 * c[:, 0])),
            },
        ),
        context=2,
    ),
    "three branches": VerdictTable(
        "a column that follows one of three curves of its context",
        _branches(SPAN, [lambda c: 2 * c, lambda c: c**2 - 2, lambda c: 2 + 0 * c], 0.15),
        context=1,
    ),
    "eight modes": VerdictTable(
        "eight modes on a circle",
        mixture(*[(1 / 8, product(stats.norm(a, 0.2), stats.norm(b, 0.2))) for a, b in EIGHT]),
    ),
    "ring and line": VerdictTable(
        "a ring, and two columns that bend", joined(rings(2.0, noise=0.2), bent(2, 5), 2)
    ),
    "normal 50": VerdictTable("50 correlated normal columns", mixed(normals(50), 6, 50)),
    "bent 20": VerdictTable("20 columns that bend and spread", bent(20, 7)),
    "bent 12": VerdictTable("12 columns that bend and spread", bent(12, 8)),
    "normal 5, 500 rows": VerdictTable(
        "5 correlated normal columns", mixed(normals(5), 9, 5), rows=500
    ),
    "bent 4, 2,000 rows": VerdictTable("4 columns that bend and spread", bent(4, 10), rows=2_000),
    "line, 200,000 rows": VerdictTable(
        "1 % of the rows in a line of width 0.2 on a range of 100",
        mixture(
            (0.99, product(stats.norm(50, 20), stats.norm())),
            (0.01, product(stats.norm(70, 0.2), stats.norm())),
        ),
        rows=200_000,
    ),
    "bent 5, 200,000 rows": VerdictTable(
        "5 columns that bend and spread", bent(5, 11), rows=200_000
    ),
}  # fmt: skip
