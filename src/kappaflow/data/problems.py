"""`problems_of`: what stops a table from having a density, and what to know before fitting one."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kappaflow.data.domains import Domains
from kappaflow.data.duplicates import repeated_rows, repeats_of
from kappaflow.data.edges import bound_text
from kappaflow.data.naming import (
    SHOWN_PROBLEMS,
    BoolArray,
    FloatArray,
    describe_rows,
    first_rows,
    listed,
    named_rows,
)
from kappaflow.data.raw import NO_MISSING, identifiers, quoted, running
from kappaflow.data.rounding import PointMasses, coarse_columns, point_masses_of, resolution
from kappaflow.data.statistics import Sentinel, relations, sentinels_of, standardized, tail_of
from kappaflow.data.table import Table
from kappaflow.finding import Finding
from kappaflow.options import option

ROWS_PER_COLUMN = 10
LARGE_OFFSET = 1e5
SMALLEST = 1e-18


@dataclass(frozen=True)
class Problem(Finding):
    """A finding about the columns or rows of a table.

    It is an "error" if no density exists or can be computed, a "note" if a flow can follow the
    data only with a bound or another base, else a "warning". The message has no full stop and
    names the way out; cause and fix are empty. `layer` is None.

    Attributes:
        code: Its short name, such as "missing" or "dependent-columns".
        columns: The columns concerned; empty if the problem is about whole rows.
        rows: The first few rows concerned, as numbers in the source, counted from 1.
        drop: The columns to remove to solve the problem.
    """

    columns: tuple[str, ...] = ()
    rows: tuple[int, ...] = ()
    drop: tuple[str, ...] = ()


STOPS = {
    "no-numeric-column",
    "too-few-rows",
    "missing",
    "infinite",
    "constant",
    "dependent-columns",
}
NOTES = {"edge", "heavy-tails"}


def _problem(
    code: str,
    message: str,
    columns: tuple[str, ...] = (),
    rows: tuple[int, ...] = (),
    drop: tuple[str, ...] = (),
) -> Problem:
    severity = "error" if code in STOPS else "note" if code in NOTES else "warning"
    return Problem(code, severity, None, message, "", "", {}, columns, rows, drop)


def problems_of(table: Table, *, with_repeats: bool) -> tuple[Problem, ...]:
    """Returns the errors and the warnings about a table, optionally without repeated rows."""
    if not table.columns:
        message = f"{table.source} has no numeric column left"
        return (_problem("no-numeric-column", message),)
    problems = _incomplete(table)
    empty = {name for problem in problems for name in problem.drop}
    if len(table) < 2:
        count = "1 row" if len(table) else "no rows"
        problems.append(
            _problem("too-few-rows", f"{count} is too few: a density needs at least 2 rows")
        )
        return tuple(problems)
    complete = table.without_columns(empty)
    complete = complete.select(complete_rows(complete))
    if complete.columns and len(complete) >= 2:
        problems += _between_columns(complete)
        problems += _duplicate_rows(complete) if with_repeats else []
        problems += _few_rows(complete)
    return tuple(problems)


def notes_of(table: Table, edges: Domains, domains: Domains) -> tuple[Problem, ...]:
    """Returns the notes about a table that has some edges, and whose columns have some domains."""
    return (*_edges(table, edges), *_heavy_tails(table, domains))


def _edges(table: Table, edges: Domains) -> list[Problem]:
    """Returns one note about all columns with edges."""
    kinds = table.kinds
    if kinds is not None:  # samples have no date beyond those of the training rows
        edges = {name: domain for name, domain in edges.items() if kinds.get(name) != "date"}
    if not edges:
        return []
    *ends, last = [f"'{name}' ({domain.description})" for name, domain in edges.items()]
    shown = f"columns {', '.join(ends)} and {last} have" if ends else f"column {last} has"
    texts = {name: bound_text(domain) for name, domain in edges.items()}
    touched = [name for name in edges if edges[name].at_an_end(table.by_column[name]).any()]
    repair = f" with {option('repair', 'jitter')} for values on an edge" if touched else ""
    remedy = f": {option('bounds', texts)}{repair} keeps them inside"
    if kinds is not None:
        able = {n: t for n, t in texts.items() if t == "positive" or t.startswith("circular")}
        able = {name: text for name, text in able.items() if name not in touched}
        which = "them" if len(able) == len(texts) else f"those of {quoted(list(able))}"
        remedy = f": {option('kinds', able)} keeps {which} inside" if able else ""
    message = f"{shown} rows up to a hard edge, which samples can cross{remedy}"
    return [_problem("edge", message, tuple(edges))]


def _heavy_tails(table: Table, domains: Domains) -> list[Problem]:
    """Returns one note about all columns with heavy tails."""
    columns = {
        name: column[np.isfinite(column)]
        for name, column in table.by_column.items()
        if name not in domains
    }
    tails = {
        name: tail
        for name, column in columns.items()
        if (tail := tail_of(column)) is not None and tail.is_heavy
    }
    if not tails:
        return []
    heaviest = max(tails, key=lambda name: tails[name].index)
    tail, others = tails[heaviest], [name for name in tails if name != heaviest]
    also = f", and so do those of {quoted(others)}" if others else ""
    message = (
        f"the tails of column '{heaviest}' fall like a power of the distance, with an index of "
        f"{tail.index:.2f} ± {tail.standard_error:.2f}{also}"
    )
    numbers = {"index": tail.index, "standard_error": tail.standard_error}
    return [replace(_problem("heavy-tails", message, (heaviest, *others)), evidence=numbers)]


def messages_of(problems: Iterable[Problem]) -> list[str]:
    """Returns the message of each problem; of many of one kind, that of the first for all."""
    kinds: dict[str, list[Problem]] = {}
    for problem in problems:
        kinds.setdefault(problem.code, []).append(problem)
    messages = []
    for first, *others in kinds.values():
        if len(others) < SHOWN_PROBLEMS:
            messages += [problem.message for problem in (first, *others)]
        else:
            columns = [name for problem in others for name in problem.columns]
            messages.append(f"{first.message}; the same holds for {quoted(columns)}")
    return messages


def refusal_of(values: FloatArray, names: Sequence[str]) -> str | None:
    """Returns which columns of finite rows have no density and how to leave them out; or None."""
    table = Table(values, tuple(names), np.arange(1, 1 + len(values)), "the rows")
    problems = problems_of(table, with_repeats=False)
    stops = [problem for problem in problems if problem.severity == "error"]
    if not stops:
        return None
    gone = list(dict.fromkeys(name for problem in stops for name in problem.drop))
    return f"{listed(stops)}; {option('exclude', gone)} leaves {'them' if gone[1:] else 'it'} out"


def complete_rows(table: Table) -> BoolArray:
    """Returns a mask of the rows that hold finite numbers only, context included."""
    return np.logical_and.reduce(np.isfinite(table.all_values), axis=1)


def _incomplete(table: Table) -> list[Problem]:
    """Returns a problem for each column and kind of missing or infinite values."""
    problems = []
    for name, column in zip(table.all_columns, table.all_values.T, strict=True):
        is_modeled = name in table.columns
        subject = f"{'' if is_modeled else 'context '}column '{name}'"
        drop = (name,) if is_modeled and not np.isfinite(column).any() else ()
        written = " (NaN)" if table.lines is None else ""
        for code, article, mask in (
            ("missing", "a", np.isnan(column)),
            ("infinite", "an", np.isinf(column)),
        ):
            if total := int(mask.sum()):
                count = f"{article} {code} value" if total == 1 else f"{total:,} {code} values"
                count += written if code == "missing" else ""
                message = f"{subject} has {count} at {named_rows(table, mask)}"
                problems.append(_problem(code, message, (name,), first_rows(table, mask), drop))
    return problems


def _between_columns(table: Table) -> list[Problem]:
    """Returns the problems of a table of finite numbers with at least 2 rows and 1 column."""
    problems = _constant(table)
    varying = table.without_columns(name for problem in problems for name in problem.drop)
    if varying.columns:
        problems += _dependent(varying)
        problems += _badly_scaled(varying)
        problems += _rounded(varying)
        sentinels = sentinels_of(varying) if varying.has_codes else []
        problems += [_sentinel(varying, result) for result in sentinels]
        named = {result.column for result in sentinels}
        problems += [
            _point_mass(varying, name, masses)
            for name, masses in point_masses_of(varying).items()
            if name not in named
        ]
    return problems


def _constant(table: Table) -> list[Problem]:
    """Returns the columns that vary by no more than rounding."""
    least, most = table.values.min(axis=0), table.values.max(axis=0)
    size = np.maximum(np.abs(least), np.abs(most))
    flat = most / 2 - least / 2 <= 2 * np.finfo(np.float64).eps * size
    return [
        _problem(
            "constant",
            f"column '{table.columns[j]}' is constant: every row holds {table.values[0, j]:.6g}",
            (table.columns[j],),
            drop=(table.columns[j],),
        )
        for j in np.flatnonzero(flat)
    ]


def _dependent(table: Table) -> list[Problem]:
    result = relations(table.values)
    names = table.columns
    if result and len(table) <= len(names):
        drop = tuple(names[relation.column] for relation in result)
        message = (
            f"{len(table)} rows are too few for {len(names)} columns, which then always depend "
            f"on each other linearly: give more rows than columns, or leave out {len(drop)} "
            f"column{'s' if len(drop) > 1 else ''}"
        )
        return [_problem("dependent-columns", message, drop, drop=drop)]
    problems = []
    for relation in result:
        members = sorted((relation.column, *relation.others))
        involved = tuple(names[j] for j in members)
        how, out = f"depend on each other linearly, {relation.text(names)}", ""
        if _is_one_hot(table.values[:, members]):
            how = "are one category, one-hot encoded, and add up to 1"
            out = (
                "encode it with drop='first' (OneHotEncoder) or drop_first=True (get_dummies), or "
            )
        drop = (names[relation.column],)
        message = f"columns {quoted(involved)} {how}: {out}leave out '{drop[0]}'"
        problems.append(_problem("dependent-columns", message, involved, drop=drop))
    return problems


def _is_one_hot(values: FloatArray) -> bool:
    return bool(np.isin(values, (0.0, 1.0)).all() and (values.sum(axis=1) == 1).all())


def _badly_scaled(table: Table) -> list[Problem]:
    """Returns the columns that lose their digits, or overflow, once they are float32."""
    _, mean, std = standardized(table.values)
    size = np.maximum(np.abs(mean), std)
    extreme = [
        _problem(
            "extreme-scale",
            f"column '{table.columns[j]}' has values of size {size[j]:.3g}, whose squares "
            "float32 cannot hold: measure it in another unit",
            (table.columns[j],),
        )
        for j in np.flatnonzero((size > 1 / SMALLEST) | (size < SMALLEST))
    ]
    return extreme + [
        _problem(
            "large-offset",
            f"column '{table.columns[j]}' varies by {std[j]:.3g} around {mean[j]:.6g}, of which "
            f"float32 keeps too few digits: store the difference from {mean[j]:.6g} in the data, "
            f"or leave the column out ({option('exclude', [table.columns[j]])})",
            (table.columns[j],),
        )
        for j in np.flatnonzero(np.abs(mean) / LARGE_OFFSET > std)
    ]


def _rounded(table: Table) -> list[Problem]:
    """Returns the columns of whole numbers, and those rounded to steps that a flow resolves."""
    problems, coarse = [], coarse_columns(table)
    for name, column in table.by_column.items():
        is_whole = name in table.integer_columns
        step = coarse.get(name) or (resolution(column) if is_whole else None)
        if step is None:
            continue
        noise = f"add uniform noise of width {step:.6g} ({option('repair', 'dequantize')})"
        if table.kinds is not None:
            noise = f"name its kind ({option('kinds', {name: 'integer'})})"
        others = ", or leave it out or use it as context"
        if name in coarse:
            unless, others = f"unless {option('repair')} is given", ""
            noise = f"a fit in memory adds uniform noise of width {step:.6g} {unless}"
        problem = (
            "rounded",
            f"column '{name}' is rounded to {step:.6g}, and a density can grow without bound on "
            f"its values: {noise}",
        )
        if is_whole:
            problem = _special(name, column, noise) or (
                "integer-valued",
                f"column '{name}' holds whole numbers only, and a density can grow without bound "
                f"on them: {noise}{others}",
            )
        evidence = {"step": step} if name in coarse else {}
        problems.append(replace(_problem(*problem, (name,)), evidence=evidence))
    return problems


def _special(name: str, column: FloatArray, noise: str) -> tuple[str, str] | None:
    """Returns code and message of whole numbers of two values, or that count the rows."""
    out = f"leave it out ({option('exclude', [name])})"
    distinct = np.unique(column)
    if len(distinct) == 2:
        return "two-values", (
            f"column '{name}' holds only {distinct[0]:g} and {distinct[1]:g}, on which a density "
            f"can grow without bound: {noise}; {out} or use it as context if it is a category"
        )
    for ends, what, kind in (
        (running([column]), "counts the rows", ""),
        (identifiers(column), "has a different whole number in each row", ", as identifiers have"),
    ):
        if ends is not None:
            between = f"from {ends[0]:.10g} to {ends[1]:.10g}"
            message = f"column '{name}' {what}, {between}{kind}: {out} if it says nothing else"
            return "counts-rows", message
    return None


def _sentinel(table: Table, sentinel: Sentinel) -> Problem:
    count = int(sentinel.mask.sum())
    first = describe_rows(table, np.flatnonzero(sentinel.mask)[:1])[0]
    message = (
        f"column '{sentinel.column}' holds {sentinel.value:g} in {count:,} of {len(table):,} "
        f"rows, first at {first}, far from its other values: if it stands for a missing value, "
        f"say so by {option('missing', [f'{sentinel.value:g}'])}, "
        f"if it is a measurement, by {option('missing', [NO_MISSING])}"
    )
    rows = first_rows(table, sentinel.mask)
    problem = _problem("sentinel", message, (sentinel.column,), rows)
    return replace(problem, evidence={"value": sentinel.value})


def _point_mass(table: Table, name: str, masses: PointMasses) -> Problem:
    most, count, total = float(masses.values[0]), int(masses.counts[0]), len(masses.values)
    mask = np.isin(table.by_column[name], masses.values)
    rows = first_rows(table, mask)
    several = f"{total} values more often than predicted, most often " if total > 1 else ""
    message = (
        f"column '{name}' holds {several}the value {most:.6g} in {count:,} of {len(table):,} rows "
        f"({named_rows(table, mask)}), where its neighbors predict "
        f"{masses.expected[0]:,.2g}: a density can grow without bound there"
    )
    return _problem("atom", message, (name,), rows)


def _duplicate_rows(table: Table) -> list[Problem]:
    repeats = repeats_of(table)
    if not repeats.unexpected:
        return []
    rows = first_rows(table, repeated_rows(table))
    return [_problem("duplicate-rows", repeats.sentence, (), rows)]


def _few_rows(table: Table) -> list[Problem]:
    required = ROWS_PER_COLUMN * len(table.columns)
    if len(table) >= required:
        return []
    columns = "1 column" if len(table.columns) == 1 else f"{len(table.columns)} columns"
    message = (
        f"{len(table)} rows are few for {columns}: a flow will learn them by heart, so give "
        f"{required} at least"
    )
    return [_problem("few-rows", message)]
