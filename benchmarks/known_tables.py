"""Tables of known density for choosing between models, with lines and widths to compare."""

from functools import partial

import numpy as np
from scipy import stats

from benchmarks.verdict_tables import (
    DEVELOPMENT,
    JUDGED,
    SPAN,
    UNIT,
    Density,
    Rows,
    Step,
    VerdictTable,
    _branches,
    _given,
    bent,
    joined,
    mixed,
    mixture,
    normals,
    product,
    triangular,
)


def exponentials(density: Density) -> Density:
    """Returns the density of the exponentials of the columns."""
    return Density(
        lambda n, rng: np.exp(density.sample(n, rng)),
        lambda rows: density.log_prob(np.log(rows)) - np.log(rows).sum(1),
    )


def random_mixture(parts: int, columns: int, seed: int) -> Density:
    """Returns a mixture of correlated normals with random shares and centers."""
    rng = np.random.default_rng(seed)
    shares, centers = rng.dirichlet(np.full(parts, 3.0)), rng.uniform(-4, 4, (parts, columns))
    moved = [product(*map(stats.norm, center)) for center in centers]
    return mixture(*((shares[k], mixed(moved[k], seed + k, columns)) for k in range(parts)))


def chain(columns: int) -> Density:
    """Returns columns whose width and location follow the two columns before."""

    def step(before: Rows) -> tuple[Rows, Rows]:
        x, other = before[:, -1], before[:, max(0, before.shape[1] - 2)]
        return 0.15 + 0.5 / (1 + np.exp(-3 * other)), np.sin(2 * x) + 0.5 * x

    return triangular(normals(columns), dict.fromkeys(range(1, columns), step))


def clusters(centers: Rows, deviation: float) -> Density:
    """Returns a mixture of small normal clusters, with equal shares."""
    parts = [product(*(stats.norm(x, deviation) for x in center)) for center in centers]
    return mixture(*((1 / len(parts), part) for part in parts))


ANGLES = np.sqrt(np.linspace(1, 70, 80))
ARM = (ANGLES / 2 * np.array([np.cos(ANGLES), np.sin(ANGLES)])).T
SQUARES = [(i, j) for i in range(4) for j in range(4) if (i + j) % 2]
LINE = mixture(
    (0.96, product(stats.uniform(0, 100), stats.norm(), stats.norm())),
    (0.04, product(stats.norm(62, 0.05), stats.norm(0.5, 0.5), stats.norm(-0.5, 0.7))),
)
SPIKE = mixture(
    (0.45, normals(1, -2, 0.5)), (0.45, normals(1, 2, 0.7)), (0.1, normals(1, 0, 0.02))
)
LOGNORMAL = exponentials(mixed(normals(3), 21, 3))
MIXED = joined(UNIT, normals(2), 1)  # contexts
# The scale and the shift of the first column after the context, by table.
WIDTHS: dict[str, Step] = {
    "width": lambda c: (np.exp(4 * c[:, 0]), c[:, 0]),
    "wide and moving": lambda c: (0.1 * np.exp(4.6 * c[:, 0]), 20 * np.sin(6 * c[:, 0])),
    "narrow and moving": lambda c: (0.01 * np.exp(4.6 * c[:, 0]), 5 * c[:, 0] ** 2),
    "3 widths": lambda c: (np.exp(4 * c[:, 0] - 2), 3 * np.sin(4 * c[:, 0]) + c[:, 1]),
    "widths": lambda c: (np.exp(3 * c[:, 0]), c[:, 1]),
}
WIDTHS["wide and moving, 2,000 rows"] = WIDTHS["wide and moving"]


def moving(name: str) -> Density:
    """Returns a normal column whose width and location depend on one context."""
    return _given(UNIT, 1, normals(1), {1: WIDTHS[name]})


def _of_two_ways(sign: float, c: Rows) -> tuple[Rows, Rows]:
    """Returns the scale and the shift of one of two modes, given three contexts."""
    return 0.1 + 0.4 * c[:, 0], sign * (1 + c[:, 0] + 0.5 * np.sin(c[:, 1])) + c[:, 2]


# Models are chosen on these and on the development tables of the verdict.
_ADDED: dict[str, VerdictTable] = {
    "line of 3": VerdictTable("4 % in a line, 3 columns", LINE),
    "line of 3, 100,000 rows": VerdictTable("4 % in a line, 3 columns", LINE, rows=100_000),
    "tight cluster": VerdictTable(
        "1 % in a cluster, 5 columns",
        mixture((0.99, mixed(normals(5), 22, 5)), (0.01, normals(5, 1.0, 0.05))),
    ),
    "equal": VerdictTable(
        "two columns that are equal to 1e-4, and a normal column",
        triangular(normals(3), {1: lambda x: (1e-4, x[:, 0])}),
    ),
    "spike": VerdictTable("one column with two modes and a spike", SPIKE),
    "Cauchy": VerdictTable("one Cauchy column", product(stats.cauchy())),
    "edges": VerdictTable("one uniform column, without its bounds", UNIT),
    "squares": VerdictTable(
        "a checkerboard",
        mixture(*((1 / 8, product(stats.uniform(i), stats.uniform(j))) for i, j in SQUARES)),
    ),
    "spirals": VerdictTable("two spiral arms", clusters(np.concatenate([ARM, -ARM]), 0.12)),
    "heavy 6": VerdictTable(
        "6 dependent columns of Student's t with 2 degrees of freedom",
        mixed(product(*[stats.t(2)] * 6), 23, 6),
    ),
    "lognormal 3": VerdictTable(
        "3 dependent lognormal columns",
        LOGNORMAL,
        options={"bounds": [f"x{i}=positive" for i in (1, 2, 3)]},
    ),
    "lognormal 3, no bounds": VerdictTable("3 dependent lognormal columns", LOGNORMAL),
    "mixture 5": VerdictTable("6 normals in 5 columns", random_mixture(6, 5, 24)),
    "mixture 8": VerdictTable("12 normals in 8 columns", random_mixture(12, 8, 25)),
    "mixture 5, 2,000 rows": VerdictTable(
        "3 normals in 5 columns", random_mixture(3, 5, 26), rows=2_000
    ),
    "chain 4, 2,000 rows": VerdictTable("4 columns in a chain", chain(4), rows=2_000),
    "chain 8, 12,800 rows": VerdictTable("8 columns in a chain", chain(8), rows=12_800),
    **{
        name: VerdictTable(
            "a column whose width grows over two decades of its context while it moves",
            moving(name),
            rows=2_000 if "2,000" in name else 20_000,
            context=1,
        )
        for name in WIDTHS if "moving" in name
    },
    "3 widths": VerdictTable(
        "3 columns whose widths and locations depend on 2 contexts",
        _given(
            joined(UNIT, normals(1), 1),
            2,
            normals(3),
            {
                2: WIDTHS["3 widths"],
                3: lambda c: (np.exp(-c[:, 1]), 0.2 * c[:, 2]),
                4: lambda c: (0.1 + c[:, 0], np.tanh(c[:, 3])),
            },
        ),
        context=2,
    ),
    "narrow branches": VerdictTable(
        "a column that follows one of two curves of its context, which cross",
        _branches(SPAN, [lambda c: np.sin(3 * c), lambda c: -np.sin(3 * c)], 0.05),
        context=1,
    ),
    "two ways": VerdictTable(
        "a column with two modes, given 3 contexts",
        mixture(*(
            (0.5, _given(MIXED, 3, normals(1), {3: partial(_of_two_ways, sign)}))
            for sign in (-1.0, 1.0)
        )),
        context=3,
    ),
    "heavy given 4": VerdictTable(
        "2 columns of Student's t with 2.5 degrees of freedom, given 4 contexts",
        _given(
            joined(MIXED, UNIT, 3),
            4,
            product(*[stats.t(2.5)] * 2),
            {
                4: lambda c: (np.exp(2 * c[:, 0]), 2 * c[:, 1]),
                5: lambda c: (0.5 + c[:, 3], np.sin(c[:, 2]) + 0.3 * c[:, 4]),
            },
        ),
        context=4,
    ),
}  # fmt: skip
LEFT_OUT = ("banana, 500 rows", "modes, 100,000 rows")  # which leave little to choose
# Judged tables on which models were looked at while they were chosen, and those in their place.
SEEN = ("three branches", "eight modes", "normal 50", "bent 20", "bent 12")
_IN_THEIR_PLACE = {
    "four branches": VerdictTable(
        "a column that follows one of four lines of its context",
        _branches(
            SPAN,
            [lambda c: -2 * c - 2, lambda c: -c - 1, lambda c: c + 1, lambda c: 2 * c + 2],
            0.1,
        ),
        context=1,
    ),
    "nine modes": VerdictTable(
        "nine modes on a grid", clusters(np.array([*np.ndindex(3, 3)]), 0.1)
    ),
    "normal 40": VerdictTable("40 correlated normal columns", mixed(normals(40), 27, 40)),
    "bent 18": VerdictTable("18 columns that bend and spread", bent(18, 28)),
    "bent 14": VerdictTable("14 columns that bend and spread", bent(14, 29)),
}
PARTS = {
    "known": {k: v for k, v in DEVELOPMENT.items() if k not in LEFT_OUT} | _ADDED,
    "judged": {k: v for k, v in JUDGED.items() if k not in SEEN} | _IN_THEIR_PLACE,
}
TABLES = PARTS["known"] | PARTS["judged"]

# Lines and clusters: center and half width (three deviations) in each of the first columns.
BOXES: dict[str, tuple[tuple[float, float, int], ...]] = {
    "line": ((91.2, 0.15, 1),),
    "cluster": ((4, 0.3, 3),),
    "line of 3": ((62, 0.15, 1),),
    "line of 3, 100,000 rows": ((62, 0.15, 1),),
    "tight cluster": ((1, 0.15, 5),),
    "spike": ((0, 0.06, 1),),
    "two lines": ((30, 0.3, 1), (120, 1.2, 1)),
    "small cluster": ((3, 0.6, 5),),
    "line, 200,000 rows": ((70, 0.6, 1),),
}


def shares(name: str, rows: Rows) -> Rows:
    """Returns the share of rows in each line or cluster of a table."""
    boxes = BOXES[name]
    inside = [np.all(abs(rows[:, :columns] - x) < half, 1) for x, half, columns in boxes]
    return np.mean(inside, 1)


def widths(name: str, rows: Rows) -> Rows:
    """Returns the deviation of samples over the true one, in each decile of the first context."""
    k = TABLES[name].context
    scale, shift = WIDTHS[name](rows[:, :k])
    z = ((rows[:, k] - shift) / scale)[np.argsort(rows[:, 0])]
    return np.array([decile.std() for decile in np.array_split(z, 10)])
