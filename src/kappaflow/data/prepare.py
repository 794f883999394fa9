"""Examines a table, then repairs it or refuses it, so that a flow can be fitted to it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kappaflow.data.domains import (
    Bounds,
    Domains,
    bounds_hint,
    clip_to_domain,
    domains_of,
    unwrap_circles,
)
from kappaflow.data.duplicates import (
    Duplicates,
    Repeats,
    repeats_of,
    settle_duplicates,
)
from kappaflow.data.examine import Problem, complete_rows, messages_of, problems_of
from kappaflow.data.naming import JITTER, REPAIRS, listed, named_rows
from kappaflow.data.raw import quoted
from kappaflow.data.rounding import dequantize, resolutions
from kappaflow.data.table import Table, whole_columns
from kappaflow.domains import Interval
from kappaflow.errors import ArgumentError, DataError
from kappaflow.options import Repair, option

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


def repair(
    table: Table, problems: Sequence[Problem], how: Repair, *, seed: int = 0
) -> tuple[Table, tuple[str, ...]]:
    """Returns the table without the problems that stop a fit, and a sentence for each change.

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
    """
    table, notes, _ = repaired(table, problems, how, seed=seed)
    return table, notes


def repaired(
    table: Table, problems: Sequence[Problem], how: Repair, *, seed: int = 0
) -> tuple[Table, tuple[str, ...], dict[str, float]]:
    """Returns the results of `repair`, and the width of the noise of "dequantize" by column."""
    from kappaflow._checks import one_of

    one_of("repair", how, REPAIRS)
    generator = _noise(seed)
    notes: list[str] = []
    for _ in range(ROUNDS):
        stops = [problem for problem in problems if problem.severity == "error"]
        if not stops:
            break
        table, messages = _repair_stops(table, stops, how, generator)
        notes += messages
        problems = problems_of(table, with_repeats=False)
    left = [problem for problem in problems if problem.severity == "error"]
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
        where = named_rows(table, incomplete)
        count = "1 row" if total == 1 else f"{total:,} rows"
        notes.append(f"dropped {count} with missing or infinite values ({where})")
        table = table.select(~incomplete)
    return table, notes


def _concerned(table: Table, stops: list[Problem]) -> dict[str, list[str]]:
    """Returns the columns to leave out or give noise to, each once, by reason."""
    named: dict[str, list[str]] = {}
    seen: set[str] = set()
    for problem in stops:
        for name in problem.drop:
            if name in table.columns and name not in seen:
                seen.add(name)
                named.setdefault(problem.code, []).append(name)
    return named


def jitter_columns(table: Table, names: Sequence[str]) -> Table:
    """Returns a table with Gaussian noise of 1e-3 of their standard deviation on some columns."""
    lacking = [name for name in names if name not in table.columns]
    if lacking:
        raise DataError(
            f"{quoted(lacking)} cannot be given noise: there is no such column of numbers."
        )
    return _jitter(table, list(names), _noise(0), constant=False)


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
    drop = list(dict.fromkeys(name for problem in left for name in problem.drop))
    out = (
        f"; {option('exclude', drop)} leaves {'them' if drop[1:] else 'it'} out"
        if how != "drop" and drop
        else ""
    )
    return (
        f"{option('repair', how)} cannot make {quoted([table.source])} fit for a density: "
        f"{listed(left)}{out}."
    )


FEW_ROWS = 50  # rows to train on, below which no verdict is green
NEVER_GREEN = ("sentinel", "two-values")  # problems with which no verdict is green
DONE: dict[Duplicates, str] = {
    "keep": "all are kept, and copies stay in one part of the split",
    "drop": "they are dropped",
    "weigh": "copies stay in one part of the split, and count by a weight",
}


@dataclass(frozen=True, eq=False)
class PreparedTable:
    """A table that a flow can be fitted to, not split yet, and how it was prepared.

    `widths` has the width of the uniform noise that was added to rounded columns. `repeats` counts
    rows that repeat earlier ones, before any were dropped. `warnings` say what was repaired, and
    what may be wrong.
    """

    table: Table
    domains: dict[str, Interval]
    widths: dict[str, float]
    repeats: Repeats
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def prepare_table(
    table: Table,
    *,
    bounds: Bounds | None = None,
    domains: Domains | None = None,
    repair: Repair | None = None,
    jitter: Sequence[str] = (),
    duplicates: Duplicates = "keep",
    offered: Collection[Repair] = REPAIRS,
) -> PreparedTable:
    """Returns a table ready to be split: repeats settled, examined, repaired, in its domains.

    `bounds` are as for `domains_of`; `domains` are the same by column, if they are known already.
    Without `repair`, problems raise DataError; `offered` has the repairs that the error may name.
    `jitter` names columns to add Gaussian noise of 1e-3 of their standard deviation to.
    `duplicates` is as for `settle_duplicates`.
    """
    if duplicates == "weigh" and repair == "dequantize":
        raise ArgumentError(
            "'duplicates' should be 'keep' with repair='dequantize', whose noise makes copies "
            "different, got 'weigh'."
        )
    settled = settle_duplicates(table, duplicates)
    complete = table.select(complete_rows(table))
    repeats = repeats_of(complete)
    by_column = domains_of(bounds, settled) if domains is None else dict(domains)
    rounded = resolutions(settled) if repair == "dequantize" else ()
    moved, done = clip_to_domain(
        settled, by_column, repair=repair, offered=offered, rounded=rounded
    )
    result, widths, repaired_notes, problems = _prepared(
        moved, repair, 0, offered, with_repeats=False
    )
    notes = table.notes + bounds_hint(result, by_column)
    warnings = messages_of(problems)
    if repeats.total:
        sentence = f"{repeats.sentence}: {DONE[duplicates]}"
        if repeats.unexpected and duplicates == "keep":
            warnings.append(sentence)
        else:
            notes += (sentence,)
    if jitter:
        result = jitter_columns(result, jitter)
        notes += (f"added Gaussian noise of 1e-3 of the spread to {', '.join(jitter)}",)
    return PreparedTable(
        table=unwrap_circles(result, by_column),
        domains=by_column,
        widths=widths,
        repeats=repeats,
        notes=notes,
        warnings=(*done, *repaired_notes, *warnings),
    )


def describe_merged(table: Table) -> tuple[str, ...]:
    """Returns a sentence about rows that repeat others and are to be counted by a weight."""
    complete = table.select(complete_rows(table))
    repeats = repeats_of(complete)
    return (f"{repeats.sentence}: {DONE['weigh']}",) if repeats.total else ()


def few_to_train_on(rows: int) -> tuple[str, ...]:
    """Returns a warning if these are too few rows to train on."""
    if rows >= FEW_ROWS:
        return ()
    return (
        f"{rows} {'row is' if rows == 1 else 'rows are'} left to train on, fewer than {FEW_ROWS}: "
        "too few to tell a good fit from chance",
    )


def noisy(table: Table, widths: dict[str, float], domains: Domains) -> Table:
    """Returns other rows for a prepared table, with noise of the same widths."""
    return unwrap_circles(dequantize(table, widths), domains) if widths else table


def prepare(
    table: Table,
    *,
    repair: Repair | None = None,
    seed: int = 0,
    offered: Collection[Repair] = REPAIRS,
) -> tuple[Table, tuple[str, ...]]:
    """Returns a table that a flow can be fitted to, with notes for the user.

    Args:
        table: The table as loaded.
        repair: None to raise an error for what is wrong; "drop", "jitter" or "dequantize" to
            repair it, as `repair` does.
        seed: Seed of the noise of "jitter" and "dequantize".
        offered: The repairs that an error may name.

    Returns:
        The table, and one sentence for each repair and each warning.

    Raises:
        DataError: The table has no density and no matching repair was requested.

    Example:
        >>> import numpy as np
        >>> from kappaflow.data import load_table
        >>> x = np.linspace(0.1, 9.7, 40)
        >>> table, notes = prepare(load_table(np.stack([x, np.sqrt(x), 2 * x], 1)), repair="drop")
        >>> table.columns, notes
        (('x0', 'x1'), ("left out column 'x2': it follows linearly from other columns",))
    """
    table, _, notes, problems = _prepared(table, repair, seed, offered, with_repeats=True)
    return table, (*table.notes, *notes, *messages_of(problems))


def _prepared(
    table: Table,
    repair: Repair | None,
    seed: int,
    offered: Collection[Repair],
    *,
    with_repeats: bool,
) -> tuple[Table, dict[str, float], tuple[str, ...], tuple[Problem, ...]]:
    """Returns the table, widths of noise, notes on repairs, and the remaining problems."""
    from kappaflow._checks import one_of

    if repair is not None:
        one_of("repair", repair, REPAIRS)
    problems = problems_of(table, with_repeats=with_repeats)
    stops = [problem for problem in problems if problem.severity == "error"]
    if repair is None or not (stops or repair == "dequantize"):
        if stops:
            raise DataError(_refusal(table, stops, offered))
        return _with_warnings(table, problems), {}, (), problems
    table, notes, widths = repaired(table, problems, repair, seed=seed)
    problems = problems_of(table, with_repeats=with_repeats)
    return _with_warnings(table, problems), widths, notes, problems


def _with_warnings(table: Table, problems: Sequence[Problem]) -> Table:
    """Returns a table whose warnings include the problems that forbid a green verdict."""
    grave = tuple(messages_of(problem for problem in problems if problem.code in NEVER_GREEN))
    return replace(table, warnings=table.warnings + grave) if grave else table


def _refusal(table: Table, stops: list[Problem], offered: Collection[Repair]) -> str:
    """Returns the error for a table that stops: what is wrong, and which repairs can help."""
    text = f"no density can be fitted to {quoted([table.source])}: {listed(stops)}"
    if all(problem.code in {"too-few-rows", "no-numeric-column"} for problem in stops):
        return f"{text}."
    rows = any(problem.code in {"missing", "infinite"} for problem in stops)
    columns = any(problem.drop for problem in stops)
    what = " and ".join(["the rows"] * rows + ["the columns"] * columns)
    remedies = [f"leave out {what} concerned"]
    if "drop" in offered:
        remedies = [f"{option('repair', 'drop')} leaves out {what} concerned"]
    if "jitter" in offered and columns and len(table) > len(table.columns):
        noise = "adds a little noise to the columns instead"
        remedies.append(f"{option('repair', 'jitter')} {noise}")
    return f"{text}; {', '.join(remedies)}."
