"""Columns with a domain: which columns have one, and which values lie outside."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kappaflow.data.naming import JITTER, REPAIRS, BoolArray, FloatArray, describe_rows, named_rows
from kappaflow.data.raw import quoted
from kappaflow.domains import Interval, interval
from kappaflow.errors import ArgumentError, DataError
from kappaflow.options import Repair, option

if TYPE_CHECKING:
    from kappaflow.data.table import Table

Bounds = Mapping[Any, Any] | Sequence[str]
Domains = Mapping[str, Interval]
STREAM = 31337  # noise must not repeat the draws of data made with default_rng(seed)
TURN = 2 * np.pi


def domains_of(bounds: Bounds | None, table: "Table") -> dict[str, Interval]:
    """Returns the domains of columns that have one, by column.

    `bounds` maps columns or their places to domains, as `kappaflow.domains.interval` takes them,
    or holds texts such as "angle=circular" and "p=0,1". A circle without ends is the one from -pi
    to pi, or from 0 to 2 pi if only that holds all values.
    """
    result = {}
    for name, value in ({} if bounds is None else _by_name(bounds, table)).items():
        if name in table.context_columns:
            raise ArgumentError(
                f"'bounds' should name modeled columns, {name!r} is one of the context: give its "
                "logarithm, or cosine and sine of an angle, as context instead."
            )
        if name not in table.columns:
            raise ArgumentError(
                f"'bounds' names column {name!r}, which is not modeled: the columns are "
                f"{quoted(table.columns)}."
            )
        domain = interval("bounds", value)
        if isinstance(value, str) and value.strip() == "circular":
            column = table.by_column[name]
            from_zero = Interval(0.0, TURN, circular=True)
            if domain and domain.outside(column).any() and not from_zero.outside(column).any():
                domain = from_zero
        if domain is not None:
            result[name] = domain
    return result


def _by_name(bounds: Bounds, table: "Table") -> Mapping[str, Any]:
    """Returns bounds by column, also from places of columns and from texts such as "p=0,1"."""
    if isinstance(bounds, Mapping):
        names = dict(enumerate(table.columns))
        return {str(names.get(key, key)): value for key, value in bounds.items()}
    result = {}
    is_list = isinstance(bounds, Sequence) and not isinstance(bounds, str)
    for text in bounds if is_list else (bounds,):
        name, sign, value = text.rpartition("=") if isinstance(text, str) else ("", "", "")
        if not sign or not name or not is_list:
            raise ArgumentError(
                "'bounds' should map columns to domains, as in {'mass': 'positive', 'p': (0, 1)}, "
                "or list texts like mass=positive, p=0,1, x=2, or angle=circular:0,360, got "
                f"{text!r}."
            )
        if name in result:
            raise ArgumentError(f"'bounds' should name a column once, {name!r} is there twice.")
        result[name] = value
    return result


def bounds_of(domains: Domains, columns: Sequence[str]) -> list[str | None] | None:
    """Returns domains as a recipe takes them, one for each column; None where there are none."""
    if not domains:
        return None
    return [domains[name].text if name in domains else None for name in columns]


def clip_to_domain(
    table: "Table",
    domains: Domains,
    *,
    repair: Repair | None = None,
    offered: Collection[Repair] = REPAIRS,
    rounded: Collection[str] = (),
) -> tuple["Table", tuple[str, ...]]:
    """Returns a table whose values lie in their domains, and a sentence for each change.

    Without `repair`, values outside raise DataError. "drop" leaves out rows with a value beyond or
    on an end. "jitter" moves values that are on an end inside, by up to 1e-3 of the spread and not
    beyond the nearest other value. `offered` has the repairs that an error may name. `rounded`
    names columns whose values may be on an end, since they are given noise later. Domains of
    columns that the table does not have are ignored.
    """
    notes: list[str] = []
    for name, domain in domains.items():
        if name not in table.columns:
            continue
        column = table.by_column[name]
        beyond, on_end = domain.outside(column), domain.at_an_end(column)
        if name in rounded:
            on_end = np.zeros(len(table), dtype=np.bool_)
        if beyond.any() and repair != "drop":
            raise DataError(_outside(table, name, domain, beyond, offered))
        if on_end.any() and repair not in {"drop", "jitter"}:
            raise DataError(_on_end(table, name, domain, on_end, offered))
        if on_end.any() and repair == "jitter":
            table = _moved_in(table, name, domain, on_end)
            notes.append(
                f"moved {_counted(on_end, 'value')} of {name!r} from an end of its domain, "
                f"{domain.description}, inside, short of all others"
            )
        elif (beyond | on_end).any():
            for gone, where in ((beyond, "outside of"), (on_end, "on an end of")):
                if gone.any():
                    rows = named_rows(table, gone)
                    notes.append(
                        f"dropped {_counted(gone, 'row')} with {name!r} {where} its domain, "
                        f"{domain.description} ({rows})"
                    )
            table = table.select(~(beyond | on_end))
    return table, tuple(notes)


def unwrap_circles(table: "Table", domains: Domains) -> "Table":
    """Returns a table with values that noise moved over an end mirrored, or wrapped on circles."""
    values = table.values.copy()
    for name, domain in domains.items():
        if name in table.columns:
            index = table.columns.index(name)
            values[:, index] = _mirrored(values[:, index], domain)
    return replace(table, values=values)


def _mirrored(column: FloatArray, domain: Interval) -> FloatArray:
    low, high = domain.low, domain.high
    if domain.circular and low is not None and high is not None:
        return np.where(domain.outside(column), low + (column - low) % (high - low), column)
    if low is not None:
        column = np.where(column < low, 2 * low - column, column)
    if high is not None:
        column = np.where(column > high, 2 * high - column, column)
    return column


def _moved_in(table: "Table", name: str, domain: Interval, on_end: BoolArray) -> "Table":
    values, index = table.values.copy(), table.columns.index(name)
    column = values[:, index]
    inner = column[np.isfinite(column) & ~on_end & ~domain.outside(column)]
    spread = JITTER * (float(np.std(inner)) if len(inner) > 1 else 1.0)
    noise = np.random.default_rng((0, STREAM, index)).uniform(0.01, 1.0, len(column))
    inward = np.zeros(len(column))
    for end, sign in ((domain.low, 1.0), (domain.high, -1.0)):
        if end is not None:
            room = min([spread, *np.abs(inner - end)])  # the order of values stays what it was
            inward[column == end] = sign * room * noise[column == end]
    values[:, index] = np.where(on_end, column + inward, column)
    kept = tuple(other for other in table.integer_columns if other != name)
    return replace(table, values=values, integer_columns=kept)


def _outside(
    table: "Table", name: str, domain: Interval, beyond: BoolArray, offered: Collection[Repair]
) -> str:
    row, value, total = _first(table, name, beyond)
    more = f", as have {total - 1:,} more rows" if total > 1 else ""
    remedy = "leave out such rows, if the bounds are right"
    if "drop" in offered:
        remedy = f"{option('repair', 'drop')} leaves out such rows, if the bounds are right"
    if domain.circular:
        length = (domain.high or 0.0) - (domain.low or 0.0)
        remedy = (
            f"wrap the column first, modulo {length:.6g}, or name the ends that it is read "
            "between, as in circular:0,360"
        )
    return (
        f"column {name!r} of {table.source} should lie {domain.description}, {row} has "
        f"{value:.6g}{more}: {remedy}."
    )


def _on_end(
    table: "Table", name: str, domain: Interval, on_end: BoolArray, offered: Collection[Repair]
) -> str:
    row, value, total = _first(table, name, on_end)
    holds = "1 row holds" if total == 1 else f"{total:,} rows hold"
    drop = f"{option('repair', 'drop')} leaves" if "drop" in offered else "or leave"
    return (
        f"column {name!r} of {table.source} should lie {domain.description}, and {holds} an end "
        f"of that, {value:g} (first {row}), where a density has no value: "
        f"{option('repair', 'jitter')} moves them inside, short of all others, {drop} out the "
        "rows."
    )


def _first(table: "Table", name: str, mask: BoolArray) -> tuple[str, float, int]:
    """Returns name and value of the first row in a mask, and how many rows there are in it."""
    index = int(mask.argmax())
    value = float(table.values[index, table.columns.index(name)])
    return describe_rows(table, [index])[0], value, int(mask.sum())


def _counted(mask: BoolArray, noun: str) -> str:
    total = int(mask.sum())
    return f"{total:,} {noun}{'' if total == 1 else 's'}"
