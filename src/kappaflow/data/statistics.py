"""Statistics of columns: exact linear relations between them, and how heavy their tails are."""

import math
from dataclasses import dataclass

import numpy as np

from kappaflow.data.naming import BoolArray, FloatArray
from kappaflow.data.table import Table

# A unit combination of standardized columns whose root mean square is below this is a relation.
# Rounding to float32 leaves about 6e-8 (2**-24) of a column of mean 0, several times that after
# a sum with offsets; the closest real neighbors we know (MAGIC: 0.1) are five orders above. A
# flow trained in float32 cannot tell anything between the two from an exact relation.
RELATION_RMS = 1e-6
# Values that float32 holds exactly need not have been rounded to it (large whole numbers):
# whatever rounding might explain, a combination that keeps 1 % of its variation is no relation.
LARGEST_RMS = 1e-2
# Coefficients of standardized columns below this are what rounding left in the null direction.
NEGLIGIBLE = 1e-4
SHOWN_TERMS = 6


@dataclass(frozen=True)
class Relation:
    """column = constant + sum of coefficient * other, in input units, columns by position."""

    column: int
    others: tuple[int, ...]
    coefficients: tuple[float, ...]
    constant: float

    def text(self, names: tuple[str, ...]) -> str:
        """Returns it as in "c = 1.00*a + 1.00*b", with the number of terms beyond six."""
        terms = [(_number(self.constant), self.constant < 0)] if self.constant else []
        for other, coefficient in zip(self.others, self.coefficients, strict=True):
            terms.append((f"{_number(coefficient)}*{names[other]}", coefficient < 0))
        shown = ("-" if terms[0][1] else "") + terms[0][0]
        for term, negative in terms[1:SHOWN_TERMS]:
            shown += f" {'-' if negative else '+'} {term}"
        more = len(terms) - SHOWN_TERMS
        return f"{names[self.column]} = {shown}" + (f" + {more} more terms" if more > 0 else "")


def relations(values: FloatArray) -> tuple[Relation, ...]:
    """Returns the fewest relations that explain all linear dependence between columns.

    Each names a column that follows from the others; without these the table has full rank.
    Cost: a QR factorization, O(rows * columns**2). Values must be finite, no column constant.
    """
    z, mean, std = standardized(values)
    directions = _null_directions(z, _input_rounding(values) * (1 + np.abs(mean) / std))
    if not len(directions):
        return ()
    pivots = _dependent(directions)
    solved = np.linalg.solve(directions[:, pivots], directions)
    results = [_relation(row, pivot, mean, std) for row, pivot in zip(solved, pivots, strict=True)]
    return tuple(sorted(results, key=lambda relation: relation.column))


def nearest_relation(values: FloatArray) -> tuple[Relation, float]:
    """Returns the relation that is nearest to holding, and by how much it fails.

    This is the root mean square of what the relation leaves of its column, in units of its
    standard deviation. The table has two columns or more, is finite, and no column is constant.
    """
    z, mean, std = standardized(values)
    directions, rms = _directions(z)
    row = directions[-1]
    pivot = _dependent(row[None])[0]
    return _relation(row / row[pivot], pivot, mean, std), float(rms[-1] / abs(row[pivot]))


def _directions(z: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Returns orthogonal unit directions, and the root mean square of z along each, descending."""
    triangle = np.linalg.qr(z, mode="r") / np.sqrt(len(z))
    _, strength, directions = np.linalg.svd(triangle, full_matrices=True)
    rms = np.zeros(z.shape[1])
    rms[: len(strength)] = strength
    return directions, rms


def _null_directions(z: FloatArray, rounding: FloatArray) -> FloatArray:
    """Returns unit directions (k, columns) along which z varies no more than rounding explains.

    `rounding` is the error of each standardized column that the rounding of the input alone
    makes: it takes over from RELATION_RMS where the offset of a column is large against its
    spread.
    """
    directions, rms = _directions(z)
    explained = 4 * np.sqrt(directions**2 @ rounding**2)
    return directions[rms <= np.clip(explained, RELATION_RMS, LARGEST_RMS)]


def _input_rounding(values: FloatArray) -> FloatArray:
    """Returns the relative rounding of each column, float32 where its numbers are such."""
    with np.errstate(over="ignore"):
        single = [np.array_equal(column, column.astype(np.float32)) for column in values.T]
    return np.where(single, 2.0**-24, 2.0**-53)


def _dependent(directions: FloatArray) -> list[int]:
    """Returns the columns to write in terms of the others, those with the largest shares.

    The share of a column in the null space does not depend on the basis the SVD happened to
    choose; among equals the last one is taken, so that a copy depends on its original.
    """
    rest, pivots = directions.copy(), []
    for _ in range(len(directions)):
        share = np.einsum("kd,kd->d", rest, rest)
        pivot = int(np.flatnonzero(share >= 0.99 * share.max())[-1])
        unit = rest[:, pivot] / np.sqrt(share[pivot])
        rest -= np.outer(unit, unit @ rest)
        pivots.append(pivot)
    return pivots


def _relation(row: FloatArray, pivot: int, mean: FloatArray, std: FloatArray) -> Relation:
    """Returns a row of the solved null space, 1 at its pivot, in the units of the input."""
    others = tuple(int(j) for j in np.flatnonzero(np.abs(row) > NEGLIGIBLE) if j != pivot)
    coefficients = tuple(float(-row[j] * std[pivot] / std[j]) for j in others)
    parts = [c * mean[j] for c, j in zip(coefficients, others, strict=True)]
    constant = float(mean[pivot] - sum(parts))
    noise = 1e-4 * std[pivot] + 1e-6 * sum(abs(part) for part in parts)
    return Relation(pivot, others, coefficients, constant if abs(constant) > noise else 0.0)


def _number(value: float) -> str:
    size = abs(value)
    if 0.1 <= size < 1000:
        return f"{size:.2f}"
    return f"{size:.0f}" if 1000 <= size < 1e6 else f"{size:.3g}"


def standardized(values: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Returns z, mean and std of each column; they are scaled first, as squares could overflow."""
    size = np.abs(values).max(axis=0)
    size[size == 0] = 1.0
    scaled = values / size
    mean = scaled.mean(axis=0)
    scaled -= mean
    std = np.sqrt(np.einsum("nd,nd->d", scaled, scaled) / len(scaled))
    scaled /= np.where(std > 0, std, 1.0)
    return scaled, mean * size, std * size


TAIL_ROWS = 1000  # fewest values to judge a tail
TAIL_SHARE = 0.05  # of the values, those furthest out
ERRORS, HEAVY = 3.0, 0.1


@dataclass(frozen=True)
class Tail:
    """The extreme-value index of a column."""

    index: float  # 0 for Gaussian tails; if positive, moments from 1 / index on are infinite
    standard_error: float

    @property
    def is_heavy(self) -> bool:
        """Whether the tail is a power of the distance, by three standard errors."""
        return self.index - ERRORS * self.standard_error > HEAVY


def tail_of(column: FloatArray) -> Tail | None:
    """Returns the tail of a column by the moments of the logarithms of its furthest values.

    The estimator of Dekkers, Einmahl and de Haan (1989) of distances from the median. None for
    fewer than 1,000 values, or if most are equal. Rounded values have noise as wide as a step.
    """
    if len(column) < TAIL_ROWS:
        return None
    away = np.sort(np.abs(column - np.median(column)))
    k = int(TAIL_SHARE * len(away))
    if away[-k - 1] <= 0:
        return None
    step = np.diff(np.unique(away[-k - 1 :])).min(initial=away[-k - 1])
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, len(away))  # values that repeat are steps
    away = np.sort(away + step * noise)
    logs = np.log(away[-k:] / away[-k - 1])
    first, second = float(logs.mean()), float(np.square(logs).mean())
    if second <= first**2 or second == 0:
        return None
    index = first + 1 - 0.5 / (1 - first**2 / second)
    spread = math.sqrt(1 + index**2) if index > 0 else 1.0
    return Tail(index, spread / math.sqrt(k))


SENTINEL_SHARE, SENTINEL_ROWS = 0.001, 3  # rows that hold a code
DISTINCT = 5  # fewest distinct values to judge a column


@dataclass(frozen=True)
class Sentinel:
    """A number that most likely stands for a missing value, such as -999 or 9999."""

    column: str
    value: float
    mask: BoolArray


def sentinels_of(table: Table) -> list[Sentinel]:
    """Returns the numbers in a table that most likely stand for missing values.

    Such a number is -1 or is written in nines only (9, -99, 999.9), is held by more than 0.1 % of
    the rows and by at least 3, and lies apart from all other values of its column: by more than
    80 % of these spread over, or it is negative where they are not.
    """
    results = []
    for name, column in table.by_column.items():
        finite = column[np.isfinite(column)]
        for value in dict.fromkeys((finite.min(), finite.max())) if finite.size else ():
            if _is_code(value) and _lies_apart(value, finite):
                results.append(Sentinel(name, float(value), column == value))
    return results


def _is_code(value: float) -> bool:
    return value == -1 or set(f"{abs(value):.12g}".replace(".", "")) == {"9"}


def _lies_apart(value: float, column: FloatArray) -> bool:
    """Returns whether a value is repeated and far from the rest of its column."""
    rest = column[column != value]
    count = len(column) - len(rest)
    if (
        count < SENTINEL_ROWS
        or count <= SENTINEL_SHARE * len(column)
        or len(np.unique(rest)) < DISTINCT
    ):
        return False
    low, high = np.quantile(rest, [0.1, 0.9])
    gap = float(np.abs(rest - value).min())
    if abs(value) >= 99:
        return gap > high - low or (value < 0 and float(rest.min()) >= 0)
    # Where all others are whole, a single 9 or -1 is a number like them.
    is_whole = np.array_equal(rest, np.rint(rest))
    return gap > (high - low) * (1 if value == -1 else 3) and not is_whole
