"""Examines a table, then repairs it or refuses it, so that a flow can be fitted to it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kappaflow.data.domains import Bounds, Domains, clip_to_domain, domains_of, unwrap_circles
from kappaflow.data.duplicates import Duplicates, Repeats, repeats_of, settle_duplicates
from kappaflow.data.edges import edges_of
from kappaflow.data.naming import JITTER, REPAIRS, listed, named_rows
from kappaflow.data.problems import Problem, complete_rows, messages_of, notes_of, problems_of
from kappaflow.data.raw import quoted
from kappaflow.data.rounding import coarse_columns, dequantize, grid_of, resolutions
from kappaflow.data.table import Grid, Table, whole_columns
from kappaflow.domains import Interval
from kappaflow.errors import ArgumentError, DataError
from kappaflow.options import Repair, kinds_option, option

ROUNDS = 3
# Noise must not repeat the draws of data that were themselves made with default_rng(seed).
NOISE_SEED = (0, 20071)
REASONS = {
    "missing": "no number",
    "infinite": "no number",
    "constant": "constant",
    "dependent-columns": "linear in other columns",
}
ROUNDED = {"integer-valued", "rounded", "two-values", "atom"}  # problems that noise solves
FEW_ROWS = 50  # rows to train on, below which no verdict is green
DONE: dict[Duplicates, str] = {
    "keep": "all are kept, and copies stay in one part of the split",
    "drop": "they are dropped",
    "weigh": "copies stay in one part of the split, and count by a weight",
}


def prepare(table: Table, *, repair: Repair | None = None) -> tuple[Table, tuple[str, ...]]:
    """Returns a table that a flow can be fitted to, with notes for the user.

    Args:
        table: The table as loaded.
        repair: None to raise an error for what is wrong. All others leave out rows with missing or
            infinite values, and columns that hold nothing else. "drop" leaves out constant columns
            and the fewest columns whose removal ends linear dependence; "jitter" keeps them and
            adds Gaussian noise of 1e-3 of their standard deviation (1e-3 to a constant column);
            "dequantize" adds uniform noise to all columns that are rounded, exactly as wide as a
            step of their values. None does so for columns of few values, such as counts; "keep"
            leaves them as they are, and is None otherwise.

    Returns:
        The table, and one sentence for each repair and each warning.

    Raises:
        DataError: The table has no density, and no matching repair was requested.

    Example:
        >>> import numpy as np
        >>> from kappaflow.data import load_table
        >>> x = np.linspace(0.1, 9.7, 40)
        >>> table, notes = prepare(load_table(np.stack([x, np.sin(x), 2 * x], 1)), repair="drop")
        >>> table.columns, notes
        (('x0', 'x1'), ("left out column 'x2': linear in other columns",))
    """
    prepared = prepare_table(table, repair=repair)
    return prepared.table, (*prepared.notes, *prepared.warnings)


@dataclass(frozen=True, eq=False)
class PreparedTable:
    """A table that a flow can be fitted to, not split yet, and how it was prepared."""

    table: Table
    domains: dict[str, Interval]
    repeats: Repeats  # rows that repeat earlier ones, before any were dropped
    notes: tuple[str, ...]
    warnings: tuple[str, ...]  # what was repaired, and what may be wrong


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
    `offered` has the repairs that an error may name. `jitter` names columns to add Gaussian noise
    of 1e-3 of their standard deviation to. `duplicates` is as for `settle_duplicates`.
    """
    from kappaflow._checks import one_of

    if repair is not None:
        one_of("repair", repair, REPAIRS)
    if duplicates == "weigh" and repair == "dequantize":
        raise ArgumentError(
            "'duplicates' should be 'keep' with repair='dequantize', whose noise makes copies "
            "different, got 'weigh'."
        )
    settled = settle_duplicates(table, duplicates)
    repeats = repeats_of(table.select(complete_rows(table)))
    by_column = domains_of(bounds, settled) if domains is None else dict(domains)
    find = resolutions if repair == "dequantize" else coarse_columns
    # by default too, unless copies count by a weight, which noise would make different
    adds = repair == "dequantize" or (repair is None and duplicates != "weigh")
    repair = None if repair == "keep" else repair
    rounded = find(settled) if adds and by_column else ()
    result, changes = clip_to_domain(
        settled, by_column, repair=repair, offered=offered, rounded=rounded
    )
    result, repairs, problems = _repaired(result, repair, offered)
    done = DONE[duplicates]
    if widths := find(result) if adds else {}:
        values = result.by_column
        grids = {n: grid_of(values[n], width, by_column.get(n)) for n, width in widths.items()}
        result = noisy(result, grids, by_column)
        repairs += (_noise_added(widths, by_default=repair is None),)
        problems = [p for p in problems if p.code not in ROUNDED or p.columns[0] not in grids]
        by_chance = not repeats.unexpected and 2 * repeats.total >= len(settled)
        if duplicates == "keep" and by_chance:  # a split of few different rows would part cells
            result, done = replace(result, groups=None), "all are kept"
    shapes = notes_of(result, edges_of(result, by_column), by_column)
    notes, warnings = (*table.notes, *messages_of(shapes)), messages_of(problems)
    if repeats.unexpected and duplicates == "keep":
        warnings.append(f"{repeats.sentence}: {DONE[duplicates]}")
    elif repeats.total:
        notes += (f"{repeats.sentence}: {done}",)
    if jitter:
        result = jitter_columns(result, jitter)
        notes += (f"added Gaussian noise of 1e-3 of the spread to {', '.join(jitter)}",)
    return PreparedTable(
        table=unwrap_circles(result, by_column),
        domains=by_column,
        repeats=repeats,
        notes=notes,
        warnings=(*changes, *repairs, *warnings),
    )


def describe_merged(table: Table) -> tuple[str, ...]:
    """Returns a sentence about rows that repeat others and are to be counted by a weight."""
    repeats = repeats_of(table.select(complete_rows(table)))
    return (f"{repeats.sentence}: {DONE['weigh']}",) if repeats.total else ()


def few_to_train_on(rows: int) -> tuple[str, ...]:
    """Returns a warning if these are too few rows to train on."""
    if rows >= FEW_ROWS:
        return ()
    return (
        f"{rows} {'row is' if rows == 1 else 'rows are'} left to train on, fewer than {FEW_ROWS}: "
        "too few to tell a good fit from chance",
    )


def noisy(table: Table, grids: Mapping[str, Grid], domains: Domains) -> Table:
    """Returns rows with the noise of a prepared table on rounded columns."""
    if not grids:
        return table
    result = dequantize(table, {name: grid.step for name, grid in grids.items()})
    return replace(unwrap_circles(result, domains), grids=grids)


def jitter_columns(table: Table, names: Sequence[str]) -> Table:
    """Returns a table with Gaussian noise of 1e-3 of their standard deviation on some columns."""
    lacking = [name for name in names if name not in table.columns]
    if lacking:
        raise DataError(
            f"{quoted(lacking)} cannot be given noise: there is no such column of numbers."
        )
    return _jitter(table, names, np.random.default_rng(NOISE_SEED))


def _repaired(
    table: Table, repair: Repair | None, offered: Collection[Repair]
) -> tuple[Table, tuple[str, ...], tuple[Problem, ...]]:
    """Returns a table that a fit can use, a sentence for each change, and the problems left."""
    generator, notes = np.random.default_rng(NOISE_SEED), []
    problems = problems_of(table, with_repeats=False)
    for _ in range(ROUNDS):
        stops = [problem for problem in problems if problem.severity == "error"]
        if stops and repair is None:
            raise DataError(_refusal(table, stops, offered))
        if not stops or repair is None:
            return table, tuple(notes), problems
        table, messages = _repair_stops(table, stops, repair, generator)
        notes += messages
        problems = problems_of(table, with_repeats=False)
    if any(problem.severity == "error" for problem in problems):
        raise DataError(_no_way_out(table, problems, repair))
    return table, tuple(notes), problems


def _repair_stops(
    table: Table, stops: list[Problem], repair: Repair, generator: np.random.Generator
) -> tuple[Table, list[str]]:
    """Returns the table with columns left out or given noise, and incomplete rows dropped."""
    notes, seen = [], set[str]()
    for code, reason in REASONS.items():
        dropped = (name for stop in stops if stop.code == code for name in stop.drop)
        names = [name for name in dict.fromkeys(dropped) if name not in seen]
        seen.update(names)
        is_empty = code in {"missing", "infinite"}
        if not names or (repair == "dequantize" and not is_empty):
            continue
        subject = f"column{'s' if len(names) > 1 else ''} {quoted(names)}"
        if repair == "drop" or is_empty:
            table = table.without_columns(names)
            notes.append(f"left out {subject}: {reason}")
        else:
            table = _jitter(table, names, generator, constant=code == "constant")
            size = "standard deviation 1e-3" if code == "constant" else "1e-3 of the spread"
            notes.append(f"added Gaussian noise of {size} to {subject}: {reason}")
    incomplete = ~complete_rows(table)
    if total := int(incomplete.sum()):
        count = "1 row" if total == 1 else f"{total:,} rows"
        rows = named_rows(table, incomplete)
        notes.append(f"dropped {count} with missing or infinite values ({rows})")
        table = table.select(~incomplete)
    return table, notes


def _jitter(
    table: Table, names: Sequence[str], generator: np.random.Generator, *, constant: bool = False
) -> Table:
    """Returns the table with Gaussian noise on columns, 1e-3 of their spread or 1e-3 itself."""
    values = table.values.copy()
    for name in names:
        index = table.columns.index(name)
        spread = 1.0 if constant else float(np.std(values[np.isfinite(values[:, index]), index]))
        values[:, index] += JITTER * spread * generator.standard_normal(len(table))
    integers = whole_columns(values, table.columns)
    kept = tuple(name for name in table.integer_columns if name not in names or name in integers)
    return replace(table, values=values, integer_columns=kept)


def _noise_added(widths: dict[str, float], *, by_default: bool) -> str:
    names: dict[str, list[str]] = {}
    for name, width in widths.items():
        names.setdefault(f" ({width:.6g})", []).append(name)
    noise = ", ".join(quoted(alike) + width for width, alike in names.items())
    keep = f"; {option('repair', 'keep')} leaves them as they are" if by_default else ""
    return (
        f"added uniform noise as wide as a step of their values to {noise}: the likelihood is "
        "a bound on that of the rounded values, in the units of the columns, and kappaflow sample "
        f"and the estimators round their samples, but flow.sample does not{keep}"
    )


def _refusal(table: Table, stops: list[Problem], offered: Collection[Repair]) -> str:
    """Returns the error for a table that stops: what is wrong, and which repairs can help."""
    text = f"no density can be fitted to {quoted([table.source])}: {listed(stops)}"
    if all(problem.code in {"too-few-rows", "no-numeric-column"} for problem in stops):
        return f"{text}."
    rows = any(problem.code in {"missing", "infinite"} for problem in stops)
    columns = any(problem.drop for problem in stops)
    what = " and ".join(["the rows"] * rows + ["the columns"] * columns)
    drop = [name for problem in stops for name in problem.drop]
    named = f" ({option('exclude', list(dict.fromkeys(drop)))})" if drop and not rows else ""
    remedies = [f"leave out {what} concerned{named}"]
    if "drop" in offered:
        remedies = [f"{option('repair', 'drop')} leaves out {what} concerned"]
    kinds, codes = kinds_option(), {problem.code for problem in stops}
    if kinds and offered and codes <= {"missing", "constant"}:
        gaps, fixed = "models missing values", "leaves out constant columns"
        does = [gaps] * ("missing" in codes) + [fixed] * ("constant" in codes)
        remedies.insert(0, f"{kinds} {' and '.join(does)}")
    if "jitter" in offered and columns and len(table) > len(table.columns):
        noise = "adds a little noise to the columns instead"
        remedies.append(f"{option('repair', 'jitter')} {noise}")
    return f"{text}; {', '.join(remedies)}."


def _no_way_out(table: Table, problems: Sequence[Problem], repair: Repair | None) -> str:
    stops = [problem for problem in problems if problem.severity == "error"]
    drop = list(dict.fromkeys(name for problem in stops for name in problem.drop))
    exclude = f"; {option('exclude', drop)} leaves {'them' if drop[1:] else 'it'} out"
    return (
        f"{option('repair', repair)} cannot make {quoted([table.source])} fit for a density: "
        f"{listed(stops)}{exclude if repair != 'drop' and drop else ''}."
    )
