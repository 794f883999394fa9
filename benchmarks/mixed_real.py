"""Real tables: completions of removed values."""

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.spatial.distance import cdist

from benchmarks.lines import Line
from benchmarks.mixed_known import Values
from benchmarks.mixed_measures import OURS, fit, frame_of, rng_of
from benchmarks.tables_suite import data
from benchmarks.tables_suite.command import timed

LEAST_ROWS = 5_000
TRAINED, COMPLETED, COVERED = 20_000, 2_000, 300  # rows
REMOVED = 0.15  # of the values
IMPUTATIONS = 39  # whose 10th, 4th and 1st values from both ends enclose 50, 80 and 95 %
ENDS = {50: 10, 80: 4, 95: 1}
Imputer = Callable[[Values, int], Values]  # of rows with gaps and a seed


def large_tables(part: data.Part) -> list[str]:
    """Returns the installed tables of a part of the suite that have at least 5,000 rows."""
    installed = [name for name in data.names(part) if data.SOURCES[name].installed]
    return [name for name in installed if _rows(name) >= LEAST_ROWS]


def _rows(name: str) -> int:
    return len(next(iter(data.load_table(name).values())))


def kappaflow_imputer(train: Values, seconds: float, seed: int) -> Imputer:
    """Returns `impute` of a default model of incomplete rows."""
    model = fit(frame_of(train), seconds, seed).model
    return lambda rows, seed: model.impute(frame_of(rows), seed=seed).frame.to_numpy()


def iterative(train: Values, seconds: float, seed: int, *, posterior: bool) -> Imputer:  # noqa: ARG001
    """Returns scikit-learn's IterativeImputer, by the mean or by draws of linear regressions."""
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    imputer = IterativeImputer(sample_posterior=posterior, random_state=seed).fit(train)
    return lambda rows, seed: np.asarray(imputer.transform(rows))  # noqa: ARG005 - new draws


def hot_deck(train: Values, seconds: float, seed: int) -> Imputer:  # noqa: ARG001
    """Returns draws from the values of each column."""

    def completed(rows: Values, seed: int) -> Values:
        rng, rows = np.random.default_rng(seed), rows.copy()
        for column, values in zip(rows.T, train.T, strict=True):
            gone = np.isnan(column)
            column[gone] = rng.choice(values[~np.isnan(values)], gone.sum())
        return rows

    return completed


IMPUTERS: dict[str, Callable[[Values, float, int], Imputer]] = {
    OURS: kappaflow_imputer,
    "iterative": partial(iterative, posterior=False),
    "iterative, posterior": partial(iterative, posterior=True),
    "hot deck": hot_deck,
}


def imputation(job: Line) -> Line:
    """Returns how completed rows differ from the true ones, and the coverage of intervals."""
    train, truth, rows = tables_with_gaps(job["table"], job["seed"])
    imputer = IMPUTERS[job["model"]]
    complete, times = timed(lambda: imputer(train, job["seconds"], job["seed"]))
    completed, completing = timed(lambda: complete(rows, 0))
    gone = np.isnan(rows)
    distance, error = energy_distance(completed, truth)
    line = {
        "rows": len(rows),
        "columns": rows.shape[1],
        "energy": distance,
        "energy_error": error,
        "rmse": _rms((completed - truth)[gone]),
        **times,
        "completing_s": completing["processor_s"],
    }
    if job["model"] == "iterative":
        return line
    few, true, gaps = rows[:COVERED], truth[:COVERED], gone[:COVERED]
    draws = np.sort([complete(few, 1 + number)[gaps] for number in range(IMPUTATIONS)], axis=0)
    return line | coverage(draws, true[gaps])


def coverage(draws: Values, truth: Values) -> Line:
    """Returns the shares of true values in intervals of sorted draws (39, N), and their widths.

    An interval between draws of the true distribution holds its share exactly.
    """
    line: Line = {"values": len(truth), "rmse_of_mean": _rms(draws.mean(0) - truth)}
    for level, end in ENDS.items():
        low, high = draws[end - 1], draws[-end]
        line[f"coverage_{level}"] = float(((low <= truth) & (truth <= high)).mean())
        line[f"width_{level}"] = float((high - low).mean())
    return line


def _rms(values: Values) -> float:
    return float(np.sqrt((values**2).mean()))


def tables_with_gaps(name: str, seed: int) -> tuple[Values, Values, Values]:
    """Returns training rows with gaps, and complete and incomplete versions of others."""
    parts, rng = data.load(name), rng_of(name, "gaps", seed)
    mean, deviation = parts.train.mean(0), parts.train.std(0)
    train = (parts.train[:TRAINED] - mean) / deviation
    truth = (np.concatenate([parts.validation, parts.test]) - mean) / deviation
    with_gaps = [np.where(rng.random(x.shape) < REMOVED, np.nan, x) for x in (train, truth)]
    gone = np.isnan(with_gaps[1])
    members = np.flatnonzero(gone.any(1) & ~gone.all(1))[:COMPLETED]
    train = with_gaps[0][~np.isnan(with_gaps[0]).all(1)]
    return train, truth[members], with_gaps[1][members]


def energy_distance(x: Values, y: Values) -> tuple[float, float]:
    """Returns the energy distance of two samples of as many rows, and its standard error.

    Row i of one is the completion of row i of the other, so that these pairs are left out: the
    expectation is then 0 for completions drawn from the true distribution.
    """
    between = cdist(x, y)
    terms = between + between.T - cdist(x, x) - cdist(y, y)
    np.fill_diagonal(terms, 0.0)
    of_rows = terms.sum(1) / (len(x) - 1)
    return float(of_rows.mean()), 2 * float(of_rows.std(ddof=1)) / len(x) ** 0.5
