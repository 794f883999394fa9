"""Log-densities of `kf.fit_table` and of others, compared with known distributions."""

import time
from typing import Any

import numpy as np
import polars as pl

import kappaflow as kf
from benchmarks.lines import Line
from benchmarks.mixed_known import GAPS, KNOWN, KnownTable, Values
from benchmarks.mixed_peers import LogProb, mixtures, noise_by_hand
from benchmarks.tables_suite.command import timed
from benchmarks.tables_suite.data import seed_of
from kappaflow.training import loop

OURS = "kappaflow"
ROWS, FRESH = 10_000, 2_000
GAP_DRAWS = 1_024  # which the default draws are compared with


def fit(frame: pl.DataFrame, seconds: float, seed: int) -> Any:  # noqa: ANN401
    """Returns the default model of a table, trained for a processor time."""
    loop.clock = time.process_time
    return kf.fit_table(frame, max_time_s=seconds, seed=seed, progress=False)


def rng_of(table: str, purpose: str, seed: int = 0) -> np.random.Generator:
    """Returns a generator that a table, a purpose and a seed decide."""
    return np.random.default_rng([seed_of(table, f"mixed, {purpose}"), seed])


def ours(table: KnownTable, train: pl.DataFrame, seconds: float, seed: int) -> LogProb:  # noqa: ARG001
    """Fits `kf.fit_table`. Rows with a label that the training rows do not have get -inf."""
    model = fit(train, seconds, seed).model
    columns = model.encoding.columns
    labels = [column.name for column in columns if column.labels and not column.is_number]

    def log_prob(frame: pl.DataFrame) -> Values:
        known = np.all([frame[name].is_in(train[name].unique().to_list()) for name in labels], 0)
        result = np.full(len(frame), -np.inf)
        result[known] = model.log_prob(frame.filter(known)).log_prob
        return result

    return log_prob


DENSITIES = {OURS: ours, "noise by hand": noise_by_hand, "mixtures by label": mixtures}


def known(job: Line) -> Line:
    """Returns how far log p of new rows is below the truth, over rows where it is finite."""
    table, seed = KNOWN[job["table"]], job["seed"]
    train = table.sample(ROWS, rng_of(job["table"], "rows", seed))
    fresh = table.sample(FRESH, rng_of(job["table"], "fresh rows"))
    log_prob, times = timed(lambda: DENSITIES[job["model"]](table, train, job["seconds"], seed))
    log_p, scoring = timed(lambda: log_prob(fresh))
    finite = np.isfinite(log_p)
    return {
        **mean_and_error("nats", (table.log_prob(fresh) - log_p)[finite]),
        "not_finite_rows": int((~finite).sum()),
        **times,
        "scoring_s": scoring["processor_s"],
    }


def gaps(job: Line) -> Line:
    """Returns how log p of incomplete rows differs from the closed form of the values there."""
    table, seed = GAPS[job["table"]], job["seed"]
    rng = rng_of(job["table"], "rows", seed)
    train = table.with_gaps(table.sample(ROWS, rng), rng)
    rng = rng_of(job["table"], "fresh rows")
    complete = table.sample(2 * FRESH, rng)
    fresh = table.with_gaps(complete, rng)
    there = ~np.isnan(fresh).all(1)
    incomplete = np.flatnonzero(np.isnan(fresh).any(1) & there)[:FRESH]
    fitted, times = timed(lambda: fit(frame_of(train), job["seconds"], seed))
    model, rows = fitted.model, frame_of(fresh[incomplete])
    scores, scoring = timed(lambda: model.log_prob(rows))
    more = model.log_prob(rows[:500], draws=GAP_DRAWS, seed=1).log_prob
    difference = scores.log_prob - table.log_prob(fresh[incomplete])
    complete = complete[:FRESH]
    of_complete = model.log_prob(frame_of(complete)).log_prob - table.log_prob(complete)
    return {
        **mean_and_error("bias", difference),
        "absolute": float(abs(difference).mean()),
        "monte_carlo_error": float(np.sqrt((scores.standard_error**2).mean())),
        "effective_size_p05": float(np.quantile(scores.effective_size, 0.05)),
        **mean_and_error("bias_of_draws", scores.log_prob[:500] - more),
        **mean_and_error("bias_of_complete_rows", of_complete),
        **times,
        "scoring_s": scoring["processor_s"],
    }


def mean_and_error(name: str, values: Values) -> Line:
    """Returns the mean of values, and its standard error."""
    error = float(values.std(ddof=1)) / len(values) ** 0.5
    return {name: float(values.mean()), f"{name}_error": error}


def frame_of(rows: Values) -> pl.DataFrame:
    """Returns rows as a frame with columns x0, x1, ..., in which NaN is missing."""
    names = [f"x{number}" for number in range(rows.shape[1])]
    return pl.DataFrame(rows, schema=names).fill_nan(None)
