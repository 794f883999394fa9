"""Compares density estimators on tables of known density at equal processor time."""

from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.known_report import known_text
from benchmarks.known_tables import BOXES, PARTS, TABLES, WIDTHS, shares, widths
from benchmarks.lines import Line
from benchmarks.tables_suite.command import MODELS, Suite, scored, tables, timed
from benchmarks.tables_suite.data import seed_of
from benchmarks.tables_suite.fitted import Fitted, condition_numbers
from benchmarks.tables_suite.report import OURS, summary
from benchmarks.verdict_tables import Rows

FRESH = 20_000  # rows for the divergence
SAMPLES = 100_000  # for shares and widths
BOOSTED = "boosted"  # of columns given a context


def rows_of(name: str, purpose: str, number: int, seed: int = 0) -> Rows:
    """Returns rows that a name, a purpose and a seed decide; not the rows of the verdict."""
    rng = np.random.default_rng([seed_of(name, f"known, {purpose}"), seed])
    return TABLES[name].density.sample(number, rng)


def measured(job: Line, cache: Path) -> Line:
    """Trains one model on one table and compares it with the truth on fresh rows.

    `test` is the divergence in nats. The seed decides the training rows too.
    """
    from benchmarks.known_models import fit

    name, table = job["table"], TABLES[job["table"]]
    rows = rows_of(name, "rows", table.rows, job["seed"])
    fresh = rows_of(name, "fresh rows", FRESH)
    fitted, times = timed(partial(fit, job["model"], table, rows, job["seconds"], job["seed"]))
    log_p = table.cells_log_prob(fitted.log_prob, fresh)
    conditions = condition_numbers(fitted, fresh, table.context, rows.std(0))
    return {
        **job,
        "rows": len(rows),
        "columns": rows.shape[1] - table.context,
        **scored(job, cache, log_p, conditions, table.density.log_prob(fresh)),
        **times,
        **_figures(fitted, name),
        **fitted.details,
    }


def _figures(fitted: Fitted, name: str) -> dict[str, list[float]]:
    """Returns the mass of samples in lines over the true one, or their widths by decile."""
    if fitted.sample is None or name not in {*BOXES, *WIDTHS}:
        return {}
    truth = rows_of(name, "samples", SAMPLES)
    samples = np.hstack([truth[:, : TABLES[name].context], fitted.sample(truth)])
    if name in WIDTHS:
        return {"widths": widths(name, samples).tolist()}
    return {"shares": (shares(name, samples) / shares(name, truth)).tolist()}


KNOWN = Suite(
    "known",
    {part: tuple(names) for part, names in PARTS.items()},
    (OURS, "mixture, validated", *MODELS[3:5], "normflows NSF, fair", BOOSTED),
    measured,
    partial(summary, every=True),
    known_text,
    lambda model, table: model != BOOSTED or TABLES[table].context > 0,
)
known = partial(tables, suite=KNOWN, part="known")
known.__doc__ = """Compare densities on tables of known density: kappaflow, flows, mixtures, trees.

As `tables`, with the divergence from the truth in place of the likelihood of test rows.
"""
