"""`repair`: from a table with problems to one that has a density, saying what was done."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from kappaflow.data.examine import complete_rows, examine
from kappaflow.data.problem import Problem, listed, rows_in_words
from kappaflow.data.raw import quoted
from kappaflow.data.rounding import dequantize, resolutions
from kappaflow.data.table import Table, whole_columns
from kappaflow.errors import DataError

JITTER = 1e-3
ROUNDS = 3
# Noise must not repeat the draws of data that were themselves made with default_rng(seed).
STREAM = 20071
_REASONS = {
    "missing": ("it holds no number", "they hold no number"),
    "infinite": ("it holds no number", "they hold no number"),
    "constant": ("it is constant", "they are constant"),
    "duplicated-column": ("it repeats another column", "they repeat other columns"),
    "dependent-columns": (
        "it follows linearly from other columns",
        "they follow linearly from other columns",
    ),
}

Repair = Literal["drop", "jitter", "dequantize"]
REPAIRS: tuple[Repair, ...] = ("drop", "jitter", "dequantize")


def repair(
    table: Table, problems: Sequence[Problem], how: Repair, *, seed: int = 0
) -> tuple[Table, tuple[str, ...]]:
    """Returns the table without what stops it, and a sentence for each thing done.

    Rows with missing or infinite values are dropped in any case, as is a column that holds
    nothing else.

    Args:
        table: The table.
        problems: What `examine` found in it; warnings are left alone.
        how: "drop" leaves out constant columns, all but the first of equal columns, and the
            fewest columns whose removal ends linear dependence; "jitter" keeps them and adds
            Gaussian noise of 1e-3 of their standard deviation (1e-3 to a constant column);
            "dequantize" adds uniform noise to all columns that are rounded, exactly as wide as a
            step of their values, and leaves other columns as they are.
        seed: Seed of the noise.

    Returns:
        The repaired table, in which `examine` finds nothing that stops, and the sentences.

    Raises:
        DataError: If problems remain: too few rows, or no column left.

    Example:
        >>> import numpy as np
        >>> from kappaflow.data import examine, load_table
        >>> table = load_table(np.array([[0.5, 1.5], [np.nan, 2.5], [2.5, 0.25], [1.25, 3.5]]))
        >>> repair(table, examine(table), "drop")[1]
        ('dropped 1 row with missing or infinite values (row 2)',)
    """  # noqa: DOC502 - raised by `repaired`
    table, notes, _ = repaired(table, problems, how, seed=seed)
    return table, notes


def repaired(
    table: Table, problems: Sequence[Problem], how: Repair, *, seed: int = 0
) -> tuple[Table, tuple[str, ...], dict[str, float]]:
    """Returns what `repair` does, and by column the width of the noise of "dequantize"."""
    from kappaflow._checks import one_of

    one_of("repair", how, REPAIRS)
    generator = _noise(seed)
    notes: list[str] = []
    for _ in range(ROUNDS):
        stops = [problem for problem in problems if problem.severity == "stop"]
        if not stops:
            break
        table, messages = _repair_stops(table, stops, how, generator)
        notes += messages
        problems = examine(table)
    left = [problem for problem in problems if problem.severity == "stop"]
    if left:
        raise DataError(_no_way_out(table, left, how))
    widths = resolutions(table) if how == "dequantize" else {}
    if widths:
        table = dequantize(table, widths, seed=seed)
        noise = ", ".join(f"{name!r} ({width:.6g})" for name, width in widths.items())
        notes.append(
            f"added uniform noise as wide as a step of their values to {noise}: the likelihood is "
            "a bound on that of the rounded values, in the units of the columns"
        )
    return table, tuple(notes), widths


def _repair_stops(
    table: Table, stops: list[Problem], how: Repair, generator: np.random.Generator
) -> tuple[Table, list[str]]:
    """Returns the table with columns left out or given noise, and incomplete rows dropped."""
    notes = []
    for code, names in _concerned(table, stops).items():
        if how == "dequantize" and code not in {"missing", "infinite"}:
            continue
        subject = f"column{'s' if len(names) > 1 else ''} {quoted(names)}"
        reason = _REASONS[code][len(names) > 1]
        if how == "drop" or code in {"missing", "infinite"}:
            table = table.without_columns(names)
            notes.append(f"left out {subject}: {reason}")
        else:
            table = _jitter(table, names, generator, constant=code == "constant")
            size = "standard deviation 1e-3" if code == "constant" else "1e-3 of the spread"
            notes.append(f"added Gaussian noise of {size} to {subject}: {reason}")
    incomplete = ~complete_rows(table)
    if total := int(incomplete.sum()):
        where = rows_in_words(table, incomplete)
        count = "1 row" if total == 1 else f"{total:,} rows"
        notes.append(f"dropped {count} with missing or infinite values ({where})")
        table = table.select(~incomplete)
    return table, notes


def _concerned(table: Table, stops: list[Problem]) -> dict[str, list[str]]:
    """Returns the columns to leave out or give noise to, each once, under the reason why."""
    named: dict[str, list[str]] = {}
    seen: set[str] = set()
    for problem in stops:
        for name in problem.drop:
            if name in table.columns and name not in seen:
                seen.add(name)
                named.setdefault(problem.code, []).append(name)
    return named


def jitter_columns(table: Table, names: Sequence[str], *, seed: int = 0) -> Table:
    """Returns a table with Gaussian noise of 1e-3 of their standard deviation on some columns.

    Args:
        table: The table.
        names: Its columns that are given noise.
        seed: Seed of the noise.

    Returns:
        The table.

    Raises:
        DataError: It has no such column.
    """
    lacking = [name for name in names if name not in table.columns]
    if lacking:
        raise DataError(
            f"{quoted(lacking)} cannot be given noise: there is no such column of numbers."
        )
    return _jitter(table, list(names), _noise(seed), constant=False)


def _noise(seed: int) -> np.random.Generator:
    from kappaflow._checks import natural_int

    return np.random.default_rng((natural_int("seed", seed), STREAM))


def _jitter(
    table: Table, names: list[str], generator: np.random.Generator, *, constant: bool
) -> Table:
    """Returns the table with Gaussian noise on columns, 1e-3 of their spread or 1e-3 itself."""
    values = table.values.copy()
    for name in names:
        place = table.columns.index(name)
        spread = 1.0 if constant else float(np.std(values[np.isfinite(values[:, place]), place]))
        values[:, place] += JITTER * spread * generator.standard_normal(len(table))
    whole = whole_columns(values, table.columns)
    kept = tuple(name for name in table.integer_columns if name not in names or name in whole)
    return replace(table, values=values, integer_columns=kept)


def _no_way_out(table: Table, left: list[Problem], how: Repair) -> str:
    other = " (repair='drop' can)" if how != "drop" and any(p.drop for p in left) else ""
    return (
        f"repair='{how}' cannot make {quoted([table.source])} fit for a density{other}: "
        f"{listed(left)}."
    )
